"""Images/s of a training step by method, beside plain training of the student plus the teacher's forward pass.

    python -m benchmarks.step [--pair resnet32x4/resnet8x4] [--methods kd dkd ...] [--rounds 9] [--batch 64]
    python -m benchmarks.step --task multi_label [--pair resnet101/resnet50] [--methods mld led ...] [--side 224]

The terms are those of the methods on CIFAR-100, or with --on imagenet on ImageNet, on random images that are on the
device already: student and teacher forward, objective, backward, SGD; terms of all phases at once. Rounds
go through the methods in turn, each right after the baseline, and the median counts. `cost` is what the method adds to
the time of the baseline, over that time; `operations` likewise to the arithmetic of convolutions and matrix products.

Multi-label, they are those of the configs of COCO, each beside its config's hard loss: L2D's, with heads of label
embeddings; LSHFM's, with pooling heads; CPSD's (`cpsd_mse`, `cpsd_kl`), whose student learns from ten teachers of its
own kind, beside training with one. `cpsd_teachers` is the forward passes of those ten, beside that of one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import check_counts, check_methods, config_of, show
from configs import _cpsd, _l2d, _lshfm
from configs._method import setups
from configs._multi_label import network, term
from configs._pieces import PAIRS
from configs.methods import METHODS
from dataset.feed.batch import Batch
from dataset.sources.coco import COCO_NAMES
from knowledge_distiller import KnowledgeDistiller
from models.heads import HeadConfig
from models.zoo import build_network
from partition import Partition
from recipe import Recipe
from teachers import Views, build_teacher, teacher_of
from terms import Term, features_of
from training.optimizer import build_optimizer
from training.trainable import train_only, trainable_parameters
from utils.config import read_config
from utils.console import exit_with_its_code, progress
from utils.errors import UsageError
from utils.memory import keep_freed_memory

CLASSES, SAMPLES = 100, 50_000  # of CIFAR-100, which crd's memory is as large as
PRESENT = 2.9  # classes an image, of COCO
COCO_PAIR = "resnet101/resnet50"
L2D = {  # methods, by the override that chooses each
    method: part
    for part, methods in (("logits", _l2d.LOGITS), ("embeddings", _l2d.EMBEDDINGS), ("feature", _l2d.FEATURES))
    for method in methods
    if method != "none"
}
LSHFM = (*_lshfm.METHODS, "kd")
CPSD = tuple(f"cpsd_{metric}" for metric in _cpsd.METRICS)
MULTI_LABEL = ("asymmetric", *L2D, *LSHFM, *CPSD, "cpsd_teachers")


class Compared(NamedTuple):
    """Methods with one baseline, called ``name``."""

    name: str
    baseline: Recipe
    methods: dict[str, Recipe]


@exit_with_its_code
def main() -> None:
    """Measure, and print a line a method."""
    options = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_memory()
    if options.task == "multi_label":
        classes, compared = sorted(COCO_NAMES), of_coco(options.pair, options.methods)
    else:
        classes, compared = [*map(str, range(CLASSES))], single_label(options.on, options.pair, options.methods)
    for name, plain, methods in compared:
        baseline = Step(options, plain, classes, device)
        steps = {name: baseline}
        steps |= {method: Step(options, recipe, classes, device) for method, recipe in methods.items()}
        operations = {method: step.operations() for method, step in steps.items()}  # and warm up
        seconds: dict[str, list[tuple[float, float]]] = {method: [] for method in steps}  # baseline's, and its own
        for _ in progress(iterable=range(options.rounds), desc=options.pair, unit="round"):
            for method, step in steps.items():
                seconds[method].append((baseline.measure(options.steps), step.measure(options.steps)))
        for method, times in seconds.items():
            row = {
                "images_per_second": round(options.batch / median(taken for _, taken in times), 1),
                "cost": round(median(taken / before for before, taken in times) - 1, 3),
                "operations": round(operations[method] / operations[name] - 1, 3),
            }
            show("step", {"pair": options.pair, "method": method, **row, "device": _name(device)})


def single_label(data: str, pair: str, methods: Sequence[str]) -> Iterator[Compared]:
    """Those of CIFAR-100 or ImageNet."""
    teacher, student = pair.split("/", 1)
    networks = [f"teacher={teacher}", f"student={student}"]
    recipes = {method: read_config(config_of(data), Recipe, [f"method={method}", *networks])[0] for method in methods}
    first = recipes[methods[0]]
    alone = replace(first, student=replace(first.student, head=HeadConfig()))
    plain = _with({"cross_entropy": Term("cross_entropy")}, alone)
    yield Compared("cross_entropy and the teacher's forward", plain, recipes)


def of_coco(pair: str, methods: Sequence[str]) -> Iterator[Compared]:
    """Those of COCO, by the config that they are of."""
    teacher, student = pair.split("/", 1)
    plain = _of_l2d(teacher, student)
    l2d = {method: _of_l2d(teacher, student, **{L2D[method]: method}) for method in methods if method in L2D}
    if "asymmetric" in methods:
        l2d["asymmetric"] = _with(_cpsd.HARD, plain)
    if l2d:
        yield Compared("bce and the teacher's forward, label embeddings", plain, l2d)
    lshfm = {
        method: _lshfm.lshfm("coco", student, teacher, method, "none")["distillation"]
        for method in methods
        if method in LSHFM
    }
    for one in [*lshfm.values()][:1]:
        yield Compared("bce and the teacher's forward, pooling", _with(term("bce"), one), lshfm)
    cpsd = {method: _of_cpsd(student, method.removeprefix("cpsd_")) for method in methods if method in CPSD}
    ten = _of_cpsd(student, "mse")
    single = replace(ten, teachers={"teacher": teacher_of(ten.student)})
    if cpsd:
        yield Compared("asymmetric and a teacher's forward", _with(_cpsd.HARD, single), cpsd)
    if "cpsd_teachers" in methods:
        yield Compared("a teacher's forward", _with({}, single), {"cpsd_teachers": _with({}, ten)})


def _of_l2d(
    teacher: str, student: str, feature: str = "none", embeddings: str = "none", logits: str = "none"
) -> Recipe:
    return _l2d.l2d("coco", teacher, student, feature, embeddings, logits, "none")["distillation"]


def _of_cpsd(name: str, metric: str) -> Recipe:
    """A student and ten teachers of the network called ``name``, of five parts each of two partitions."""
    classes = sorted(COCO_NAMES)
    partitions = {"cgp": [classes[n : n + 16] for n in range(0, 80, 16)], "dgp": [classes[n::5] for n in range(5)]}
    with TemporaryDirectory() as folder:
        for key, parts in partitions.items():
            Partition(tuple(map(tuple, parts))).write(Path(folder, key))
        cgp, dgp = (str(Path(folder, key)) for key in partitions)
        runs = _cpsd.cpsd("coco", "resnet101", "448", cgp, dgp, metric, "0.5", "", "", "none", None)
    last = runs["distillation"]
    kind = network(name, "student", "none", last.student.head)
    teachers = {name: replace(teacher_of(kind), classes=runs[name].data.classes) for name in last.teachers}
    return replace(last, student=kind, teachers=teachers)


def _with(terms: dict[str, Term], recipe: Recipe) -> Recipe:
    """``recipe`` in one phase of these terms, which trains everything."""
    return replace(recipe, phases={"training": replace(recipe.last, terms=terms, trainable=())})


class Step:
    """The training step of a recipe; teachers that no term reads see the images too. Without a term it is only that."""

    def __init__(
        self, options: argparse.Namespace, recipe: Recipe, classes: Sequence[str], device: torch.device
    ) -> None:
        terms = recipe.all_terms
        reads, reads_of = features_of(terms.values())
        side = options.side or recipe.data.input_size
        torch.manual_seed(0)
        teachers = {
            name: build_teacher(
                replace(one, weights="none"), classes, reads_of.get(name, ()), side, name, knows_all=False
            )
            for name, one in recipe.teachers.items()
        }
        frozen = {name: one.network for name, one in teachers.items()}
        self._beside = [one for name, one in frozen.items() if name not in reads_of]
        index = torch.randperm(SAMPLES)[: options.batch].to(device)
        images = torch.randint(0, 256, (options.batch, 3, side, side), dtype=torch.uint8)
        images = images.contiguous(memory_format=torch.channels_last).to(device)
        sizes, targets = (
            torch.tensor(images.shape[2:]).expand(len(index), 2),
            _targets(recipe.task, index, len(classes)),
        )
        self._batch = Batch({"weak": images, "strong": images.flip(3)}, sizes, targets, index)
        self._device = device
        self._distiller = None
        if not terms:
            nn.ModuleDict(teachers).to(device).to(memory_format=torch.channels_last)
            return
        trained = build_network(replace(recipe.student, weights="none"), len(classes), reads, side, frozen)
        labels = torch.arange(SAMPLES) % len(classes)
        example = torch.zeros(2, 3, side, side, dtype=torch.uint8)
        self._distiller = KnowledgeDistiller(trained, teachers, terms, example, labels).to(device)
        self._distiller.to(memory_format=torch.channels_last)
        train_only(trainable_parameters(self._distiller), recipe.last.trainable)
        self._distiller.train()
        self._optimizer = build_optimizer(recipe.last.optim, self._distiller)

    def measure(self, steps: int) -> float:
        """Seconds of one of ``steps`` in a row."""
        self._wait()
        start = time.perf_counter()
        for _ in range(steps):
            views = Views(self._batch)
            with torch.no_grad():
                for one in self._beside:
                    views.through(one, "weak")
            if self._distiller is not None:
                self._distiller(self._batch).loss.backward()
                self._optimizer.step()
                self._optimizer.zero_grad()
        self._wait()
        return (time.perf_counter() - start) / steps

    def operations(self) -> int:
        """Floating point operations of the convolutions and matrix products of a step."""
        with FlopCounterMode(display=False) as counter:
            self.measure(1)
        return counter.get_total_flops()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def _targets(task: str, index: Tensor, classes: int) -> dict[str, Tensor]:
    """Of samples by their numbers, [B]; several classes are drawn."""
    if task == "single_label":
        return {"labels": index % classes}
    return {"present": (torch.rand(len(index), classes) < PRESENT / classes).to(torch.int8).to(index.device)}


def parse() -> argparse.Namespace:
    """Options.

    Raises:
        UsageError: a method that there is not, or not with one teacher, a pair that is not teacher/student, or a count
            below 1.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("single_label", "multi_label"), default="single_label")
    parser.add_argument("--on", choices=tuple(PAIRS), default="cifar100", help="of single_label; default: cifar100")
    parser.add_argument("--pair", metavar="TEACHER/STUDENT", help="default: the first of the data set")
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--rounds", type=int, default=9, help="each measures every method once (default: 9)")
    parser.add_argument("--steps", type=int, default=2, help="in a row in each round (default: 2)")
    parser.add_argument("--batch", type=int, default=64, help="images a step (default: 64)")
    parser.add_argument("--side", type=int, help="of the images, pixels; default: as the methods have it")
    options = parser.parse_args()
    check_counts(rounds=options.rounds, steps=options.steps, batch=options.batch)
    if options.side is not None:
        check_counts(side=options.side)
    if options.task == "multi_label":
        options.methods = options.methods or [*MULTI_LABEL]
        for method in options.methods:
            if method not in MULTI_LABEL:
                raise UsageError(f"--methods {method}: no method of multi_label; there is {', '.join(MULTI_LABEL)}")
        first = COCO_PAIR
    else:
        check_methods(options.methods or [], options.on)
        first = "/".join(PAIRS[options.on][0])
    options.pair = options.pair or first
    if not all(options.pair.partition("/")):
        raise UsageError(f"--pair {options.pair}: expected teacher/student, such as resnet32x4/resnet8x4")
    options.methods = options.methods or [
        method
        for method in setups(METHODS, options.on)
        if _comparable(read_config(config_of(options.on), Recipe, [f"method={method}"])[0])
    ]
    return options


def _comparable(recipe: Recipe) -> bool:
    """Whether the networks work as much as in the baseline: one teacher, one view, one backward pass."""
    return len(recipe.teachers) == 1 and not recipe.data.strong_view and recipe.last.optim.optimizer == "sgd"


if __name__ == "__main__":
    main()
