"""What a run would gain from an infinitely fast loader, by its config.

    python -m benchmarks.headspace [--cfg config.py] [key=value ...] [--steps 20] [--rounds 3]

Trains the last phase of the last run, on one device, as `train_with_distillation.py` does with the same words: in each
round so many steps on batches of the loader, and as many on its first batches again and again, which are on the device
already. Before each, enough steps are not counted for decoding processes to have filled the ring, or to have emptied
it. `ratio` is the images/s on those batches over the loader's, medians of the rounds, and `shares` where the time of
the loader's rounds went (docs/waiting.md). Networks begin with random weights, which neither change the speed nor must
be there. It leaves nothing behind.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count, cycle, islice
from pathlib import Path
from statistics import mean, median

import torch
from torch import nn

from benchmarks.common import check_counts, show
from dataset.feed.batch import Batch
from dataset.loader import TrainLoader
from networks import build_distiller, open_splits
from procedure import read_procedure
from recipe import Recipe
from training.loop import Trainer
from training.run_folder import RunFolder
from training.schedule import learning_rate, momentum
from training.spent import Spent
from training.state import State
from training.step import step_on
from utils.console import exit_with_its_code, progress
from utils.distributed import Ranks
from utils.memory import keep_freed_memory

CACHED = 4  # batches


@exit_with_its_code
def main() -> None:
    """Measure both in turn, print a line each and one of both."""
    options, overrides = parse()
    cfg = recipe(options.cfg, overrides)
    ranks = Ranks(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if ranks.device.type == "cpu":
        keep_freed_memory()
    task = cfg.made_task()
    train, _ = open_splits(cfg.data, task)
    targets = task.targets(train.classes)
    with closing(TrainLoader(train, cfg.data, cfg.train_params.seed, 0, 1, ranks.device, targets)) as loader:
        state = State(
            build_distiller(cfg, train, ranks), cfg.phases, cfg.train_params, task, RunFolder(cfg.folder), ranks
        )
        state.begin(len(cfg.phases) - 1)
        state.distiller.train()
        measured = Measured(state, loader)
        endless = (batch for epoch in count() for batch in loader.epoch(epoch))
        cached = cycle([copy(batch) for batch in islice(endless, CACHED)])
        ways = {"loader": endless, "cached batches": cached}
        rounds: dict[str, list[tuple[float, dict[str, float]]]] = {way: [] for way in ways}
        for _ in progress(iterable=range(options.rounds), desc=cfg.name, unit="round"):
            for way, batches in ways.items():
                rounds[way].append(measured.steps(batches, options.steps, warmup=loader.ahead + 1))
        endless.close()
    rates = {way: median(rate for rate, _ in results) for way, results in rounds.items()}
    shares = [one for _, one in rounds["loader"]]
    row = {"run": cfg.name, "batch": cfg.data.batch_size, "num_workers": cfg.data.num_workers, "device": _name(ranks)}
    for way, rate in rates.items():
        show("headspace", {**row, "way": way, "images_per_second": round(rate, 1)})
    ratio = round(rates["cached batches"] / rates["loader"], 3)
    of_each = {name.removeprefix("time/"): round(mean(one[name] for one in shares), 3) for name in shares[0]}
    show("headspace", {**row, "ratio": ratio, "shares": of_each})


class Measured:
    """Steps of a run, in the phase that it is in."""

    def __init__(self, state: State, loader: TrainLoader) -> None:
        self._state, self._loader = state, loader
        self._module: nn.Module = Trainer(state, loader, state.run).wrapped()
        self._spent = Spent(loader, state.stopwatch)

    def steps(self, batches: Iterator[Batch], number: int, warmup: int) -> tuple[float, dict[str, float]]:
        """Images/s of so many steps after some that do not count, and where their time went."""
        for _ in range(warmup):
            self._step(next(batches))
        self._wait()
        self._spent.begin()
        waited, start = 0.0, time.perf_counter()
        for left in reversed(range(number)):
            self._spent.measure(last=not left)
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            self._step(batch)
        self._wait()
        elapsed = time.perf_counter() - start
        return number * self._loader.batch_size / elapsed, self._spent.shares(number, elapsed, waited)

    def _step(self, batch: Batch) -> None:
        state = self._state
        place = state.phase.optim, state.step, self._loader.batches, state.phase.epochs
        for given, part in step_on(state, self._module, batch, learning_rate(*place), momentum(*place)):
            state.meters.add(given, part, state.step)
        state.step += 1

    def _wait(self) -> None:
        if self._state.ranks.device.type == "cuda":
            torch.cuda.synchronize(self._state.ranks.device)


def recipe(path: Path, overrides: list[str]) -> Recipe:
    """The last run of a config, with networks that need no weights.

    Raises:
        UsageError: there is something wrong with it or with the overrides.
    """
    cfg = read_procedure([path], [], overrides, __doc__ or "", {}).last
    cfg.check()
    cfg.check_terms()
    teachers = {name: replace(one, weights="none") for name, one in cfg.teachers.items()}
    return replace(cfg, student=replace(cfg.student, weights="none"), teachers=teachers)


def copy(batch: Batch) -> Batch:
    """The same in memory of its own."""
    images, targets = (
        {name: tensor.clone() for name, tensor in tensors.items()} for tensors in (batch.images, batch.targets)
    )
    return replace(batch, images=images, targets=targets)


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Options, and overrides of the config."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", type=Path, default=Path("imagenet_train_cfg.py"), help="config of the run")
    parser.add_argument("--steps", type=int, default=20, help="in a row in each round (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="each measures both once (default: 3)")
    options, overrides = parser.parse_known_args()
    check_counts(steps=options.steps, rounds=options.rounds)
    return options, overrides


def _name(ranks: Ranks) -> str:
    gpu = ranks.device.type == "cuda"
    return torch.cuda.get_device_name(ranks.device) if gpu else f"{torch.get_num_threads()} CPU threads"


if __name__ == "__main__":
    main()
