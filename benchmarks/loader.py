"""Images/s of loaders over the same photos, interleaved in one run.

    pip install -e '.[benchmarks]'
    python -m benchmarks.loader [--data /data/imagenet/train] [--workers 0 2] [--rounds 5] [--copies 5]

The training crop (RandomResizedCrop to 224, flip) and the evaluation crop (Resize 256, CenterCrop 224), batches of 64,
uint8 unless the name says otherwise. With 0 workers each loader decodes in its training process, on one core; with
more, on that many cores. Rounds go through the loaders in turn, those that wait stand still, and the median counts. A
loader whose package is not installed is left out with a line.

The data is a folder of class folders with original JPEGs, packed once under --work. A small one is repeated --copies
times, so that an epoch is long enough for its beginning not to count.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import NamedTuple

import cv2
import matplotlib.pyplot as plt
import torch
from torchvision import datasets

from benchmarks.common import cores, parsed, parser, show
from benchmarks.peers import BATCH, LOADERS, Epochs, copies_of, prepare
from utils.console import exit_with_its_code, progress


@exit_with_its_code
def main() -> None:
    """Pack, measure, print and draw."""
    options = parse()
    prepare(options)
    rows = [row for crop in LOADERS for workers in options.workers for row in measure(options, crop, workers)]
    for row in rows:
        show("loader", row)
    draw(rows, options.work / "loader.png")


def measure(options: argparse.Namespace, crop: str, workers: int) -> list[dict[str, object]]:
    """One row for each loader: images/s of each round, their median, and the ratio to the first's, torchvision's."""
    images = len(datasets.ImageFolder(str(copies_of(options))).samples)
    images -= images % BATCH if crop == "train" else 0
    loaders = {name: partial(_started, crop, name, options, workers) for name in LOADERS[crop]}
    taken = in_turn(loaders, workers, options.rounds, f"{crop}, {workers} workers")
    seconds = {name: [one.seconds for one in rounds] for name, rounds in taken.items()}
    base = median(next(iter(seconds.values())))
    return [
        {
            "crop": crop,
            "loader": name,
            "workers": workers,
            "images_per_second": round(images / median(times)),
            "ratio": round(base / median(times), 2),
            "slowest_and_fastest_round": [round(images / max(times)), round(images / min(times))],
        }
        for name, times in seconds.items()
    ]


class Taken(NamedTuple):
    """What an epoch took: seconds, and those that its processes worked on any core."""

    seconds: float
    worked: float


def in_turn(
    loaders: Mapping[str, Callable[[], Epochs]], workers: int, rounds: int, title: str
) -> dict[str, list[Taken]]:
    """By the name of each loader that works, its rounds, for which all take turns on max(1, ``workers``) cores.

    Args:
        loaders: by name, what starts each; it goes to a process of its own.
        workers: decoding processes of each.
        rounds: after one that warms up.
        title: of the progress bar.
    """
    with cores(max(1, workers)), ExitStack() as stack:
        started = [stack.enter_context(Runner(name, make)) for name, make in loaders.items()]
        runners = [runner for runner in started if runner.works]
        taken: dict[str, list[Taken]] = {runner.name: [] for runner in runners}
        for number in progress(iterable=range(rounds + 1), desc=title, unit="round"):
            for runner in runners:
                one = runner.epoch(number)
                if number:
                    taken[runner.name].append(one)
    return taken


class Runner:
    """A loader in a process of its own, which stands still while others are measured."""

    def __init__(self, name: str, make: Callable[[], Epochs]) -> None:
        self.name = name
        self._control, theirs = Pipe()
        self._process = get_context("spawn").Process(target=serve, args=(theirs, make))
        self._process.start()
        theirs.close()
        missing = self._control.recv()
        self.works = missing is None
        if missing:
            print(f"{name}: left out ({missing})", file=sys.stderr)
        self._signal(signal.SIGSTOP)

    def epoch(self, number: int) -> Taken:
        """Run one."""
        self._signal(signal.SIGCONT)
        self._control.send(number)
        taken = self._control.recv()
        self._signal(signal.SIGSTOP)
        return taken

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGCONT)
        self._control.close()
        self._process.join()

    def _signal(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self._process.pid or 0, number)


def serve(control: Connection, make: Callable[[], Epochs]) -> None:
    """Run the epochs that are asked for."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        epochs = make()
    except ImportError as error:
        control.send(str(error))
        return
    control.send(None)
    with suppress(EOFError):
        while True:
            number = control.recv()
            start, worked = time.perf_counter(), _worked("self")
            for _batch in epochs(number):
                pass
            control.send(Taken(time.perf_counter() - start, _worked("self") - worked))


def _started(crop: str, name: str, options: argparse.Namespace, workers: int) -> Epochs:
    return LOADERS[crop][name](options, workers)


def _worked(process: str) -> float:
    """Seconds that a process and its children have had of the cores."""
    folder = Path("/proc", process)
    words = (folder / "stat").read_text().rpartition(")")[2].split()
    children = [child for file in folder.glob("task/*/children") for child in file.read_text().split()]
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK") + sum(map(_worked, children))


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Bars of images/s, one panel for each crop and number of workers."""
    panels = list(dict.fromkeys((row["crop"], row["workers"]) for row in rows))
    groups = [[row for row in rows if (row["crop"], row["workers"]) == panel][::-1] for panel in panels]
    heights = [len(group) + 2 for group in groups]
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(9, 0.34 * sum(heights)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axis, (crop, workers), group in zip(axes[:, 0], panels, groups, strict=True):
        colours = ["tab:orange" if str(row["loader"]).startswith("Limbeck") else "tab:gray" for row in group]
        bars = axis.barh([row["loader"] for row in group], [row["images_per_second"] for row in group], color=colours)
        axis.bar_label(bars, [f"{row['ratio']} x" for row in group], padding=3)
        axis.set(xlabel="images/s", title=f"{crop}, {f'{workers} workers' if workers else 'one core'}")
        axis.margins(x=0.1)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    print(f"Plot: {path}", file=sys.stderr)


def parse() -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__, "benchmark_loader")
    made.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="decoding processes")
    made.add_argument("--copies", type=int, default=5, help="times that each photo appears in an epoch")
    return parsed(made)


if __name__ == "__main__":
    main()
