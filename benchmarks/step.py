"""Images/s of a training step by method, beside cross-entropy training of the student plus the teacher's forward pass.

    python -m benchmarks.step [--pair resnet32x4/resnet8x4] [--methods kd dkd ...] [--rounds 9] [--batch 64]

The terms are those of the methods on CIFAR-100, or with --on imagenet on ImageNet, on random images that are on the
device already: student and teacher forward, objective, backward, SGD; terms of all phases at once. Rounds
go through the methods in turn, each right after the baseline, and the median counts. `cost` is what the method adds to
the time of the baseline, over that time; `operations` likewise to the arithmetic of convolutions and matrix products.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import check_counts, check_methods, config_of, show
from configs._method import setups
from configs._pieces import PAIRS
from configs.methods import METHODS
from dataset.feed.batch import Batch
from knowledge_distiller import KnowledgeDistiller
from models.heads import HeadConfig
from models.zoo import Network, build_network
from recipe import Recipe
from teachers import Live
from terms import Term, features_of
from training.optimizer import build_optimizer
from training.trainable import train_only, trainable_parameters
from utils.config import read_config
from utils.console import exit_with_its_code, progress
from utils.errors import UsageError
from utils.memory import keep_freed_memory

CLASSES, SAMPLES = 100, 50_000  # of CIFAR-100, which crd's memory is as large as


@exit_with_its_code
def main() -> None:
    """Measure, and print a line a method."""
    options = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_memory()
    baseline = Step(options, None, device)
    steps = {"cross_entropy and the teacher's forward": baseline}
    steps |= {method: Step(options, method, device) for method in options.methods}
    operations = {name: step.operations() for name, step in steps.items()}  # and warm up
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}  # of the baseline, of the method
    for _ in progress(iterable=range(options.rounds), desc=options.pair, unit="round"):
        for name, step in steps.items():
            seconds[name].append((baseline.measure(options.steps), step.measure(options.steps)))
    for name, times in seconds.items():
        row = {
            "images_per_second": round(options.batch / median(taken for _, taken in times), 1),
            "cost": round(median(taken / before for before, taken in times) - 1, 3),
            "operations": round(operations[name] / next(iter(operations.values())) - 1, 3),
        }
        show("step", {"pair": options.pair, "method": name, **row, "device": _name(device)})


class Step:
    """The training step of a method, or of the baseline."""

    def __init__(self, options: argparse.Namespace, method: str | None, device: torch.device) -> None:
        teacher, student = options.pair.split("/", 1)
        overrides = [f"method={method or options.methods[0]}", f"teacher={teacher}", f"student={student}"]
        recipe, _ = read_config(config_of(options.on), Recipe, overrides)
        terms = recipe.all_terms if method else {"cross_entropy": Term("cross_entropy")}
        reads, reads_of = features_of(terms.values())
        side = recipe.data.input_size
        torch.manual_seed(0)
        config = replace(recipe.teachers["teacher"], weights="none")
        frozen = build_network(config, CLASSES, reads_of.get("teacher", ()), side)
        network = recipe.student if method else replace(recipe.student, head=HeadConfig())
        trained = build_network(network, CLASSES, reads, side, {"teacher": frozen})
        labels = torch.arange(SAMPLES) % CLASSES
        example = torch.zeros(2, 3, side, side, dtype=torch.uint8)
        teachers = {"teacher": Live(frozen)}
        self._distiller = KnowledgeDistiller(trained, teachers, terms, example, labels).to(device)
        self._distiller.to(memory_format=torch.channels_last)
        train_only(trainable_parameters(self._distiller), recipe.last.trainable if method else ())
        self._distiller.train()
        self._beside: Network | None = None if method else frozen
        self._optimizer = build_optimizer(recipe.last.optim, self._distiller)
        index = torch.randperm(SAMPLES)[: options.batch].to(device)
        images = torch.randint(0, 256, (options.batch, 3, side, side), dtype=torch.uint8)
        images = images.contiguous(memory_format=torch.channels_last).to(device)
        sizes, targets = torch.tensor(images.shape[2:]).expand(len(index), 2), {"labels": labels.to(device)[index]}
        self._batch = Batch({"weak": images, "strong": images.flip(3)}, sizes, targets, index)
        self._device = device

    def measure(self, steps: int) -> float:
        """Seconds of one of ``steps`` in a row."""
        self._wait()
        start = time.perf_counter()
        for _ in range(steps):
            if self._beside is not None:
                with torch.no_grad():
                    self._beside.predict(self._batch["images"])
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


def parse() -> argparse.Namespace:
    """Options.

    Raises:
        UsageError: a method that is not of one teacher, a pair that is not teacher/student, or a count below 1.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", choices=tuple(PAIRS), default="cifar100", help="default: cifar100")
    parser.add_argument("--pair", metavar="TEACHER/STUDENT", help="default: the first of the data set")
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--rounds", type=int, default=9, help="each measures every method once (default: 9)")
    parser.add_argument("--steps", type=int, default=2, help="in a row in each round (default: 2)")
    parser.add_argument("--batch", type=int, default=64, help="images a step (default: 64)")
    options = parser.parse_args()
    check_counts(rounds=options.rounds, steps=options.steps, batch=options.batch)
    check_methods(options.methods or [], options.on)
    options.pair = options.pair or "/".join(PAIRS[options.on][0])
    if not all((options.pair or "").partition("/")):
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
