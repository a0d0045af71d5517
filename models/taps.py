"""Where the features of a network are read: found while one image passes through it.

Stages are known by their stride, not by position: `stage1`..`stage4` are the last maps at strides 4, 8, 16 and 32, or
the four quarters of a transformer that keeps one stride. So they exist in every classifier whose blocks stand in one
container; others name their taps in the config. Our own networks give their maps themselves. `pooled` is one thing for
all: what the classifier is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.outputs import Behind, Body, Form, Tap
from utils.errors import UsageError

STRIDES = (4, 8, 16, 32)
STAGES = tuple(f"stage{number}" for number in range(1, len(STRIDES) + 1))
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Mish)


class NoClassifier(nn.Identity):
    """Stands where a network had a classifier."""


class _Seen(NamedTuple):
    """A map that a module gave."""

    module: str
    output: Tensor
    version: int  # of the tensor, which grows when it is written to
    form: Form
    stride: int


def find_taps(network: nn.Module, num_classes: int, side: int, named: Mapping[str, str]) -> dict[str, Tap]:
    """Where ``network`` gives its features, by name, for images of ``side`` x ``side`` pixels.

    Args:
        network: images [B, 3, H, W] -> logits [B, K], or `Outputs`; then only what it does not give itself is found.
            One image passes through it, in eval mode.
        num_classes: K.
        side: H = W.
        named: features that the user names: name -> path of the module that gives it.

    Raises:
        UsageError: ``named`` names a module that the network lacks or that gives no tensor of a known form.
    """
    maps, activations = _watch(network, side)
    found: dict[str, Tap] = {}
    for name, end in _stages(maps).items() if not isinstance(network, Body) else ():
        found[name] = Tap(end.module, "output", end.form)
        # The tensor itself, not an equal one: this activation is what the stage ends with.
        ended_by = [module for module, output in activations if output is end.output]
        rectified = end.output._version > end.version  # by a ReLU that is no module and writes in place
        before = Tap(end.module, "output", end.form, copy=rectified)
        found[f"{name}_pre"] = Tap(ended_by[-1], "input", end.form) if ended_by else before
        last = [seen for seen in maps if seen.stride == end.stride][-1]
        found["last"] = Tap(last.module, "output", last.form)
    if classifier := classifier_of(network, num_classes):
        found["pooled"] = Tap(_before_dropout(network, classifier), "input")
    forms = {seen.module: seen.form for seen in maps}
    for name, module in named.items():
        if name != "pooled" and module not in forms:
            raise UsageError(f"taps.{name}: {type(network).__name__} has no module {module!r} that gives a map")
        found[name] = Tap(module, "output", forms.get(module, "map"))
    return found


def classifier_of(network: nn.Module, num_classes: int) -> str | None:
    """Path of the linear layer that gives the logits [B, K]; None when there is none."""
    if isinstance(network, Body) and network.classified_by:
        return network.classified_by
    paths = [
        path
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == num_classes
    ]
    if isinstance(network, Behind):
        paths = _giving_logits(network, [path for path in paths if not path.startswith("body.")])
    return paths[-1] if paths else None


@torch.no_grad()
def _giving_logits(network: Behind, paths: list[str]) -> list[str]:
    """Those of the layers behind a backbone whose output the logits are: others may be as wide by chance."""
    if not paths:
        return []
    outputs: list[tuple[str, Tensor]] = []
    device = next(network.parameters()).device
    training = network.training
    with ExitStack() as stack:
        stack.callback(network.train, training)
        for path in paths:
            module = network.get_submodule(path)
            hook = module.register_forward_hook(lambda _, __, output, path=path: outputs.append((path, output)))
            stack.callback(hook.remove)
        features = {name: torch.zeros(shape, device=device) for name, shape in network.shapes.items()}
        logits = network.eval().behind(features).logits
    return [path for path, output in outputs if output is logits]


def _before_dropout(network: nn.Module, classifier: str) -> str:
    """The classifier, or the dropout right before it: features are read without its noise."""
    parent, _, name = classifier.rpartition(".")
    siblings = list(network.get_submodule(parent).named_children())
    position = [sibling for sibling, _ in siblings].index(name)
    if position and isinstance(siblings[position - 1][1], nn.Dropout):
        return f"{parent}.{siblings[position - 1][0]}".lstrip(".")
    return classifier


def _watch(network: nn.Module, side: int) -> tuple[list[_Seen], list[tuple[str, Tensor]]]:
    """Every map in the order it was made, and every output of an activation, of one image."""
    maps: list[_Seen] = []
    activations: list[tuple[str, Tensor]] = []

    def note(path: str, module: nn.Module, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        if isinstance(module, _ACTIVATIONS):
            activations.append((path, output))
        form, rows = _form(output)
        if form is not None and rows > 0:
            maps.append(_Seen(path, output, output._version, form, 0 if side % rows else side // rows))

    modules = dict(network.named_modules())
    inplace = [module for module in modules.values() if getattr(module, "inplace", False)]
    with ExitStack() as stack:
        for path, module in modules.items():
            hook = module.register_forward_hook(lambda module, _, output, path=path: note(path, module, output))
            stack.callback(hook.remove)
        for module in inplace:
            module.inplace = False
            stack.callback(setattr, module, "inplace", True)
        run_once(network, side)
    return maps, activations


@torch.no_grad()
def run_once(network: nn.Module, side: int) -> Any:
    """What ``network`` gives in eval mode for one black image [1, 3, side, side]."""
    training = network.training
    result = network.eval()(torch.zeros(1, 3, side, side))
    network.train(training)
    return result


def _form(output: Tensor) -> tuple[Form | None, int]:
    """How a map of a square image lies in memory, and its rows."""
    shape = output.shape
    if output.ndim == 4 and shape[2] == shape[3]:
        return "map", shape[2]
    if output.ndim == 4 and shape[1] == shape[2]:
        return "channels_last", shape[1]
    if output.ndim == 3:
        rows = int(shape[1] ** 0.5)  # of the tokens; a class token or a few registers may stand before them
        return "tokens", rows
    return None, 0


def _stages(maps: list[_Seen]) -> dict[str, _Seen]:
    """The stages' last maps, from the container whose children show the most strides."""
    usual = [seen for seen in maps if seen.stride in STRIDES]
    patches = [seen for seen in maps if seen.form == "tokens" and seen.stride > 1]  # of 14 pixels, as DINOv2's
    children: dict[str, list[_Seen]] = {}
    for seen in usual or patches:
        if seen.module:
            children.setdefault(seen.module.rpartition(".")[0], []).append(seen)
    if not children:
        return {}
    ordered = max(children.values(), key=lambda rows: (len({row.stride for row in rows}), len(rows)))
    strides = sorted({seen.stride for seen in ordered})
    if len(strides) == 1:
        quarters = [len(ordered) * number // len(STAGES) for number in range(1, len(STAGES) + 1)]
        return {stage: ordered[end - 1] for stage, end in zip(STAGES, quarters) if end}
    last = {seen.stride: seen for seen in ordered}
    return {f"stage{STRIDES.index(stride) + 1}": last[stride] for stride in strides}


def pair_stages(one: Mapping[str, Tensor], other: Mapping[str, Tensor], kind: str = "stage") -> list[tuple[str, str]]:
    """Features of two networks that belong together, shallow to deep: stages, or levels of detectors.

    Stages are paired by the height and width of their maps. Where several stages of a network share a resolution, the
    deepest are paired with the deepest. Networks without a common resolution are paired by their deepest stages alone.
    `fpn*` and `tower*` are paired by name, which says their stride.

    Args:
        one: features by name, [B, C, H, W] those of stages.
        other: likewise.
        kind: `stage`, `fpn` or `tower`.

    Raises:
        UsageError: there is none that both have.
    """
    if kind != "stage":
        return _by_name(one, other, kind)
    by_size = [_by_size(features) for features in (one, other)]
    common = [size for size in by_size[0] if size in by_size[1]]
    pairs = [
        pair for size in common for pair in reversed(list(zip(reversed(by_size[0][size]), reversed(by_size[1][size]))))
    ]
    if not all(by_size):
        raise UsageError(f"no stages to compare: {_what_each_has(one, other)}")
    deepest = [list(sizes.values())[-1][-1] for sizes in by_size]
    return pairs or [(deepest[0], deepest[1])]


def _by_name(one: Mapping[str, Tensor], other: Mapping[str, Tensor], kind: str) -> list[tuple[str, str]]:
    common = [name for name in one if name in other and re.fullmatch(rf"{kind}\d+", name)]
    if not common:
        raise UsageError(f"no {kind}* of one stride to compare: {_what_each_has(one, other)}")
    return [(name, name) for name in sorted(common, key=lambda name: int(name.removeprefix(kind)))]


def _what_each_has(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> str:
    has = {"student": student, "teacher": teacher}
    return ", ".join(f"the {who} has {', '.join(features) or 'none'}" for who, features in has.items())


def _by_size(features: Mapping[str, Tensor]) -> dict[tuple[int, ...], list[str]]:
    sizes: dict[tuple[int, ...], list[str]] = {}
    for name in sorted({name.removesuffix("_pre") for name in features if re.fullmatch(r"stage\d+(_pre)?", name)}):
        one = features[name] if name in features else features[f"{name}_pre"]
        sizes.setdefault(tuple(one.shape[2:]), []).append(name)
    return sizes


def norms_before(network: nn.Module, images: Tensor, names: Iterable[str]) -> dict[str, nn.BatchNorm2d | None]:
    """The batch norm that makes each feature: the last one with an output of its shape, None without one.

    Args:
        network: normalised images -> `Outputs`.
        images: [B, 3, H, W].
        names: features.
    """
    outputs: list[tuple[nn.BatchNorm2d, Tensor]] = []
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with ExitStack() as stack, torch.no_grad():
        for module in norms:
            hook = module.register_forward_hook(lambda module, _, output: outputs.append((module, output)))
            stack.callback(hook.remove)
        features = network(images).features
    found: dict[str, nn.BatchNorm2d | None] = {}
    for name in names:
        made = [norm for norm, output in outputs if output is features[name]]
        alike = [norm for norm, output in outputs if output.shape == features[name].shape]
        best = made or alike
        found[name] = best[-1] if best else None
    return found


def expanded(reads: Iterable[str], known: Iterable[str]) -> frozenset[str]:
    """``reads`` with `stage*`, `stage*_pre`, `fpn*` and the like spelt out, as far as they are ``known``."""
    spelt = ((name, [one for one in known if re.fullmatch(name.replace("*", r"\d+"), one)]) for name in reads)
    return frozenset(one for name, some in spelt for one in (some or [name]))
