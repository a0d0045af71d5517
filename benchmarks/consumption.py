"""Which samples each step of a run takes, written down while it trains, and compared with a run that nothing befell.

    python -m benchmarks.consumption LOG train_with_distillation.py [--cfg ...]    # as the script, and writes the log

Each process appends a line a step to a file of its own in the folder LOG, before it takes the step.
"""

from __future__ import annotations

import itertools
import json
import os
import runpy
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from training import loop
from utils.distributed import Ranks


class Taken(NamedTuple):
    """A rank's part of a step."""

    process: str
    at: float  # seconds, of a clock that the processes of a machine share
    rank: int
    world: int
    epoch: int
    step: int  # from 0
    samples: list[int]


class Difference(NamedTuple):
    """How what a run took differs from what it should have taken."""

    lost: int  # samples of an epoch that no step took
    doubled: int  # samples that an epoch has twice, or steps that one process took out of turn
    other: int  # parts of steps with other samples than they should have
    again: int  # steps that were taken again after a restart, from the last checkpoint


def record(log: Path) -> None:
    """From now on write down in the folder ``log`` what `training.loop.Trainer` takes."""
    log.mkdir(parents=True, exist_ok=True)
    process = uuid.uuid4().hex
    take = loop.Trainer.take

    def noted(self: loop.Trainer, batch: Any, shared: Any) -> None:
        place: Ranks = self.ranks
        samples = batch.index.tolist()
        taken = Taken(process, time.monotonic(), place.rank, place.world, batch.epoch, self.state.step, samples)
        with (log / f"{process}.jsonl").open("ab", buffering=0) as file:
            file.write(f"{json.dumps(taken)}\n".encode())
        take(self, batch, shared)

    loop.Trainer.take = noted  # type: ignore[method-assign]


def read(log: Path) -> list[Taken]:
    """What the processes of a run took, in the order of time; lines that a kill cut off are left out."""
    lines = (line for path in log.glob("*.jsonl") for line in path.read_bytes().split(b"\n")[:-1])
    return sorted((Taken(*json.loads(line)) for line in lines), key=lambda taken: taken.at)


def compare(taken: Iterable[Taken], whole: Iterable[Taken]) -> Difference:
    """How what a run ``taken`` differs from the ``whole`` run, which nothing befell; the ranks may be others."""
    should = {step: (parts[0].epoch, _joined(parts)) for step, parts in _by_step(whole).items()}
    seen: dict[int, set[int]] = defaultdict(set)
    lives: dict[str, list[int]] = defaultdict(list)
    other = 0
    for one in taken:
        epoch, samples = should.get(one.step, (-1, []))
        share = len(samples) // one.world
        other += (one.epoch, one.samples) != (epoch, samples[one.rank * share : (one.rank + 1) * share])
        seen[one.step].update(one.samples)
        lives[one.process].append(one.step)
    epochs: dict[int, list[int]] = defaultdict(list)
    for epoch, samples in should.values():
        epochs[epoch] += samples
    twice = sum(len(samples) - len(set(samples)) for samples in epochs.values())
    out_of_turn = sum(later != step + 1 for steps in lives.values() for step, later in itertools.pairwise(steps))
    lost = sum(len(set(samples) - seen[step]) for step, (_, samples) in should.items())
    first = {one.process for one in taken if one.rank == 0}
    again = sum(len(steps) for process, steps in lives.items() if process in first) - len(should)
    return Difference(lost, twice + out_of_turn, other, again)


def _by_step(taken: Iterable[Taken]) -> dict[int, list[Taken]]:
    steps: dict[int, list[Taken]] = defaultdict(list)
    for one in taken:
        steps[one.step].append(one)
    return steps


def _joined(parts: list[Taken]) -> list[int]:
    """The samples of a step, in the order of its ranks."""
    return [sample for part in sorted(parts, key=lambda part: part.rank) for sample in part.samples]


if __name__ == "__main__":
    record(Path(sys.argv[1]))
    sys.argv = sys.argv[2:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))  # noqa: PTH100, PTH120 - as Python does for a script
    runpy.run_path(sys.argv[0], run_name="__main__")
