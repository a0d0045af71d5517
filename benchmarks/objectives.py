"""Time and peak memory of each objective alone, beside its formula as the papers' repositories compute it.

    python -m benchmarks.objectives [--objectives kd dkd ...] [--rounds 9] [--batch 64] [--classes 100] [--device cpu]

Forward, and backward to the student's tensors and to the objective's parameters, on random tensors of the sizes of
ResNet-32x4 and ResNet-8x4 on CIFAR-100. Every pair must agree in value first, in float64 on a few samples. The
objective and `transcriptions` take turns and the median of the rounds counts; `ratio` is the transcription's time over
the objective's. The peak is of the tensors allocated during one of them, beyond those that were there before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks import transcriptions
from benchmarks.common import check_counts, show
from objectives import Objective, get, kdsvd
from objectives.logits import kd, standardize
from objectives.reviewkd import hcl
from utils.console import exit_with_its_code, progress
from utils.errors import UsageError

TOLERANCE = 1e-4  # of the values, relative
SECONDS = 0.05  # that one side of a round lasts at least


@exit_with_its_code
def main() -> None:
    """Measure, and print a line an objective."""
    options = parse()
    device = torch.device(options.device)
    sizes = Sizes(batch=options.batch, classes=options.classes)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    for objective in progress(iterable=options.objectives, desc="objectives", unit="objective"):
        check(objective, Tensors(replace(sizes, batch=min(sizes.batch, 8)), device, torch.float64))
        pair = build(objective, Tensors(sizes, device))
        show("objectives", {"objective": objective, **measure(pair, options.rounds, device), "device": name})


@dataclass(frozen=True)
class Sizes:
    """Of the tensors: those of ResNet-32x4 and ResNet-8x4 on CIFAR-100, and of its training split."""

    batch: int = 64
    classes: int = 100
    stages: tuple[tuple[int, int], ...] = ((64, 32), (128, 16), (256, 8))  # channels, pixels a side
    samples: int = 50_000
    contrasts: int = 16_384


class Tensors:
    """Random outputs of student and teacher, and a batch, as `objectives.contract` names them."""

    def __init__(self, sizes: Sizes, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.sizes, self._device, self._dtype = sizes, device, dtype
        all_labels = torch.arange(sizes.samples, device=device) % sizes.classes
        index = torch.randperm(sizes.samples, device=device)[: sizes.batch]
        norms = [self.module(nn.BatchNorm2d(channels)) for channels, _ in sizes.stages]
        self._values: dict[str, dict[str, Any]] = {
            "batch": {"all_labels": all_labels, "index": index, "labels": all_labels[index]},
            "student": self._outputs(),
            "teacher": {**self._outputs(), "norms": norms},
        }
        for tensor in _tensors(list(self._values["student"].values())):
            tensor.requires_grad_()

    def read(self, objective: Objective, parameters: Sequence[str]) -> list[Any]:
        """What the objective's ``parameters`` are."""
        return [self._values[where][what] for where, what in map(objective.place, parameters)]

    def module(self, module: nn.Module) -> nn.Module:
        """On the device, in the precision."""
        return module.to(self._device, self._dtype)

    def _outputs(self) -> dict[str, Any]:
        batch, classes, width = self.sizes.batch, self.sizes.classes, self.sizes.stages[-1][0]
        before = [self._normal(batch, channels, side, side) for channels, side in self.sizes.stages]
        return {
            "logits": 3 * self._normal(batch, classes),
            "stages": [x.relu() for x in before],
            "stages_pre": before,
            "last": before[-1].relu(),
            "pooled": self._normal(batch, width).abs(),
            "head_weight": self._normal(classes, width) / width**0.5,
            "head_bias": self._normal(classes),
        }

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self._device, dtype=self._dtype)


class Pair(NamedTuple):
    """An objective and its transcription, on the same tensors."""

    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    learned: list[Tensor]  # what gradients go to


def build(name: str, tensors: Tensors) -> Pair:
    """The pair called ``name``."""
    return _BUILDERS.get(name, partial(_pair, name))(tensors)


def _pair(name: str, tensors: Tensors) -> Pair:
    """A transcription that takes what the objective takes, and then the parts of its module."""
    objective, function, learned = _sized(name, tensors)
    inputs = tensors.read(objective, objective.inputs)
    parts = _PARTS[name](function) if name in _PARTS else ()
    return _on(inputs, function, partial(getattr(transcriptions, name), *inputs, *parts), learned)


def _sized(name: str, tensors: Tensors) -> tuple[Objective, Any, list[Tensor]]:
    """An objective's declaration, its function with the default options, and its parameters."""
    objective = get(name)
    if not isinstance(objective.made, type):
        return objective, objective.made, []
    options = {"contrasts": tensors.sizes.contrasts} if name == "crd" else {}
    module = tensors.module(objective.made(*tensors.read(objective, objective.sized_by), **options))
    return objective, module, list(module.parameters())


def _on(
    inputs: Sequence[Any], ours: Callable[..., Tensor], theirs: Callable[[], Tensor], parameters: Sequence[Tensor] = ()
) -> Pair:
    return Pair(partial(ours, *inputs), theirs, [x for x in _tensors(inputs) if x.requires_grad] + list(parameters))


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among values and lists of them."""
    return [x for value in values for x in (value if isinstance(value, list) else [value]) if isinstance(x, Tensor)]


def _standardized(tensors: Tensors) -> Pair:
    inputs = tensors.read(get("kd"), ["student", "teacher"])
    theirs = partial(transcriptions.kd_standardized, *inputs)
    return _on(inputs, lambda s, t: kd(standardize(s), standardize(t)), theirs)


def _hcl(tensors: Tensors) -> Pair:
    """The loss of `reviewkd`, whose fusions are the same convolutions everywhere."""
    inputs = tensors.read(get("at"), ["student", "teacher"])
    return _on(inputs, hcl, partial(transcriptions.hcl, *inputs))


def _kdsvd(tensors: Tensors) -> Pair:
    """The value depends on the signs of the teacher's vectors: those of the objective's decomposition."""
    student, teacher = tensors.read(get("kdsvd"), ["student", "teacher"])
    signs = []
    for s, t in zip(student, teacher):
        matrix = t.flatten(1, 2)
        vectors = kdsvd._aligned(s.detach().flatten(1, 2), matrix, 1)[1]  # [B, W, 1]
        signs.append((vectors * torch.svd(matrix)[2][:, :, :1]).sum(1, keepdim=True).sign())
    return _on([student, teacher], kdsvd.kdsvd, partial(transcriptions.kdsvd, student, teacher, signs))


def _lshfm(tensors: Tensors) -> Pair:
    """With the options of the class: hashes of zero bias, on all samples."""
    objective, module, _ = _sized("lshfm", tensors)
    student, teacher, *others = tensors.read(objective, objective.inputs)
    theirs = partial(transcriptions.lshfm, student, teacher, module.weight, module.bias)
    return _on([student, teacher, *others], module, theirs)


def _crd(tensors: Tensors) -> Pair:
    """Without the choice of the contrasts, which is the data loader's there; each side has memories of its own."""
    objective, module, parameters = _sized("crd", tensors)
    student, teacher, labels, index = tensors.read(objective, objective.inputs)
    compared = module.compared(labels, index)
    embeds, memories = (module.embed_student, module.embed_teacher), tuple(module.memory.clone())
    theirs = partial(transcriptions.crd, student, teacher, index, compared, embeds, memories, [-1.0, -1.0])
    return _on([student, teacher, index, compared], module.contrast, theirs, parameters)


_PARTS: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "ab": lambda module: (module.connectors,),
    "consecutive_correlation": lambda module: (module.embed_student, module.embed_teacher),
    "fsp": lambda module: (module.connectors,),
    "ickd": lambda module: (module.connector,),
    "ofd": lambda module: (module.connectors, [module.get_buffer(f"margin{n}") for n in range(len(module.known))]),
    "vid": lambda module: (module.means, module.scales),
}

_BUILDERS: dict[str, Callable[[Tensors], Pair]] = {
    "crd": _crd,
    "hcl": _hcl,
    "kd_standardized": _standardized,
    "kdsvd": _kdsvd,
    "lshfm": _lshfm,
}

_LOGITS = ("kd", "kd_standardized", "wsld", "dkd", "dist", "nkd", "ttm", "class_correlation", "batch_correlation")
_MAPS = ("sdd", "catkd", "at", "nst", "fsp", "hcl", "ofd", "ab", "vid", "kdsvd", "ickd")
_RELATIONS = ("pkt", "rkd_distance", "rkd_angle", "sp", "consecutive_correlation", "lshfm", "crd")
NAMES = _LOGITS + _MAPS + _RELATIONS


def check(name: str, tensors: Tensors) -> None:
    """Both sides of a pair must give the same value.

    Raises:
        UsageError: they do not.
    """
    pair = build(name, tensors)
    ours, theirs = pair.ours().item(), pair.theirs().item()
    if not abs(ours - theirs) <= TOLERANCE * abs(theirs):
        raise UsageError(f"{name}: {ours} is not what its transcription gives, {theirs}")


def measure(pair: Pair, rounds: int, device: torch.device) -> dict[str, float]:
    """Milliseconds and peak megabytes of both sides."""
    sides = {"": pair.ours, "transcription_": pair.theirs}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    calls = dict.fromkeys(sides, 1)
    for number in range(-1, rounds):
        for side, function in sides.items():
            taken = _seconds(function, pair.learned, calls[side], device)
            if number >= 0:
                seconds[side].append(taken)
            else:  # the first round warms up
                calls[side] = int(SECONDS / taken) + 1
    row = {f"{side}milliseconds": round(1e3 * median(times), 3) for side, times in seconds.items()}
    row["ratio"] = round(median(seconds["transcription_"]) / median(seconds[""]), 2)
    peaks = {side: peak(partial(_step, function, pair.learned), device) for side, function in sides.items()}
    return {**row, **{f"{side}peak_mb": round(value / 1e6, 2) for side, value in peaks.items()}}


def _seconds(function: Callable[[], Tensor], learned: list[Tensor], calls: int, device: torch.device) -> float:
    """Of one of ``calls`` in a row."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        _step(function, learned)
    _wait(device)
    return (time.perf_counter() - start) / calls


def _step(function: Callable[[], Tensor], learned: list[Tensor]) -> None:
    torch.autograd.grad(function(), learned, allow_unused=True)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(function: Callable[[], object], device: torch.device) -> int:
    """Most bytes of tensors at once during a call, without those from before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        function()
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        highest = max(highest, live)
    return highest


def parse() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objectives", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help="default: all")
    parser.add_argument("--rounds", type=int, default=9, help="each measures both sides once (default: 9)")
    parser.add_argument("--batch", type=int, default=64, help="samples (default: 64)")
    parser.add_argument("--classes", type=int, default=100, help="default: 100")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: CUDA if any")
    options = parser.parse_args()
    check_counts(rounds=options.rounds, batch=options.batch, classes=options.classes)
    return options


if __name__ == "__main__":
    main()
