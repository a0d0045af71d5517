"""A student as files that need no Limbeck: safetensors, torch.export and ONNX.

Programs take uint8 pixels [B, 3, S, S], RGB, for any number of images B, S the input's side, and give logits [B, K] of
K classes, or the feature [B, K] that was learned in their place: normalisation is inside, so that no pixels can be
scaled twice or not at all. Those of detectors take canvases [B, 3, H, W] and the sizes of the images on them, int64
[B, 2], and give boxes [B, D, 4], scores [B, D] and classes int64 [B, D] of at most D detections.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dataset.config import STEP
from export.detectors import DetectorProgram
from export.student import WEIGHTS, Student
from models.outputs import FOUND
from models.weights import packed
from models.zoo import Network
from utils.errors import UsageError
from utils.files import write_atomically

FILES = {"safetensors": WEIGHTS, "pt2": "model.pt2", "onnx": "model.onnx"}
INPUT, SIZES = "images", "sizes"
_ABOUT = "about.json"  # the notes, within a program of torch.export
_OF_ONNX = ("onnx", "onnxruntime", "onnxscript")
_CANVAS = 256, 384  # that a detector is followed on: no map of it is a single cell, which would pass for any to repeat

Predict = Callable[..., Any]  # uint8 [B, 3, S, S] -> [B, K]; of a detector images and sizes -> boxes, scores, classes


class Program(nn.Module):
    """A network that normalises for itself, and gives one of its outputs: uint8 [B, 3, S, S] -> [B, K]."""

    def __init__(self, network: Network, output: str) -> None:
        super().__init__()
        self.network, self.output = network, output

    def forward(self, images: Tensor) -> Tensor:
        """images: uint8 [B, 3, S, S]."""
        return self.network.predict(images).read(self.output)


def write_weights(student: Student, path: Path, about: Mapping[str, str]) -> None:
    """Write the weights of ``student`` without what only training needs, and the notes ``about`` them.

    Entries of a safetensors file's head are written in any order; here in that of their names, so that the same
    weights are the same bytes.
    """
    network = student.network
    content = packed(network.exported(network.network.state_dict()))
    length = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + length])
    head["__metadata__"] = dict(sorted({**head["__metadata__"], "format": "pt", **about}.items()))
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    write_atomically(path, len(text).to_bytes(8, "little") + text + content[8 + length :])


def write_programs(student: Student, paths: Mapping[str, Path], about: Mapping[str, str]) -> None:
    """Write the program of ``student`` to those of ``paths`` that are there: `pt2` and `onnx`.

    Raises:
        UsageError: the network has no form as a program; or a package is missing.
    """
    if not paths:
        return
    with _quiet(), torch.no_grad():
        exported = _exported(student)
        for module in exported.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
                node.meta.pop("stack_trace", None)  # paths of this machine
        if "pt2" in paths:
            torch.export.save(exported, paths["pt2"], extra_files={_ABOUT: json.dumps(dict(about), indent=1)})
        if "onnx" in paths:
            detects = student.settings.made_task().detects
            inputs, outputs = ([INPUT, SIZES], [*FOUND]) if detects else ([INPUT], [student.output])
            _write_onnx(exported, paths["onnx"], inputs, outputs, about)


def _exported(student: Student) -> Any:
    """The program of ``student`` for any number of images: as it runs or, where it takes their `len()`, as it reads.

    Raises:
        UsageError: it has none.
    """
    program, examples, shapes = _to_follow(student)
    for strict in (False, True):
        try:
            return torch.export.export(program.eval(), examples, dynamic_shapes=shapes, strict=strict)
        except Exception as error:  # what a network does may be anything
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
    name = student.settings.student.name
    raise UsageError(f"--formats: torch.export cannot follow {name} ({reason}): leave pt2 and onnx out")


def _to_follow(student: Student) -> tuple[nn.Module, tuple[Tensor, ...], dict[str, dict[int, Any]]]:
    """The program as a module, an example of its inputs, and which of their dimensions are free."""
    data, batch = student.settings.data, torch.export.Dim("batch", min=1)
    height = width = data.input_size
    free: dict[int, Any] = {0: batch}
    if not student.settings.made_task().detects:
        program: nn.Module = Program(student.network, student.output)
        return program, (torch.zeros(2, 3, height, width, dtype=torch.uint8),), {INPUT: free}
    if data.val_crop == "short_side":
        height, width = _CANVAS
        free |= {2: STEP * torch.export.Dim("rows", min=1), 3: STEP * torch.export.Dim("columns", min=1)}
    images, sizes = torch.zeros(2, 3, height, width, dtype=torch.uint8), torch.tensor([[height, width]] * 2)
    return DetectorProgram(student.network), (images, sizes), {INPUT: free, SIZES: {0: batch}}


def _write_onnx(
    exported: Any, path: Path, inputs: Sequence[str], outputs: Sequence[str], about: Mapping[str, str]
) -> None:
    check_onnx()
    made = torch.onnx.export(
        exported, dynamo=True, input_names=inputs, output_names=outputs, external_data=False, verbose=False
    )
    assert made is not None
    model = made.model_proto
    for node in _nodes_of([*model.graph.node, *(node for function in model.functions for node in function.node)]):
        del node.metadata_props[:]  # how the exporter came to it
    for name, value in sorted(about.items()):
        model.metadata_props.add(key=name, value=value)
    write_atomically(path, model.SerializeToString(deterministic=True))


def _nodes_of(nodes: Iterable[Any]) -> Iterator[Any]:
    """Nodes of ONNX and those of the graphs within them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _nodes_of(attribute.g.node)


def check_onnx() -> None:
    """See that what ONNX needs is installed.

    Raises:
        UsageError: it is not.
    """
    if missing := [package for package in _OF_ONNX if find_spec(package) is None]:
        raise UsageError(
            f"--formats: onnx needs {', '.join(missing)}: pip install {' '.join(missing)}; or leave it out, "
            "--formats safetensors pt2"
        )


def program_of(path: Path) -> Predict:
    """What a program of torch.export in a file gives."""
    with _quiet():
        # Guards would refuse a detector the canvases on which a map is a single cell.
        program = torch.export.load(path).module(check_guards=False)
    return lambda *inputs: program(*(one.contiguous() for one in inputs))


def onnx_program_of(path: Path) -> Predict:
    """What ONNX Runtime gives for a model in a file, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def predict(*inputs: Tensor) -> Any:
        arrays = [np.ascontiguousarray(one.numpy()) for one in inputs]
        outputs = [torch.from_numpy(one) for one in session.run(None, dict(zip(names, arrays)))]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    return predict


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings and remarks about their own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
