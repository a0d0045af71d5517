"""What the benchmarks share: their photos, one core each, and lines of JSON that name the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch

from configs._method import setups
from configs.methods import METHODS
from dataset.feed.batches import BatchMaker
from dataset.feed.targets import Arrays
from utils.errors import UsageError


def parser(description: str | None, work: str) -> argparse.ArgumentParser:
    """A command line with the photos, a folder for what is made of them, and rounds, to be read by `parsed`."""
    made = on_photos(description, work)
    made.add_argument("--rounds", type=int, default=5, help="each measures every candidate once; the median counts")
    return made


def on_photos(description: str | None, work: str) -> argparse.ArgumentParser:
    """A command line with the photos and a folder for what is made of them."""
    photos = Path(os.environ.get("LIMBECK_DATA", "../shared/data")) / "imagenet200" / "images"
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, default=photos, help="folder of class folders with JPEG files")
    made.add_argument("--work", type=Path, default=Path("runs", work), help="where packed copies and results go")
    return made


def parsed(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of a `parser`.

    Raises:
        UsageError: there are no photos, or an option counts less than one.
    """
    options = made.parse_args()
    files_below(options.data)
    check_counts(**{name: count for name, count in vars(options).items() if isinstance(count, int)})
    return options


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Run on the first ``count`` cores, child processes too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    torch.set_num_threads(count)
    cv2.setNumThreads(1)
    yield
    os.sched_setaffinity(0, before)


def config_of(data: str) -> Path:
    """The config file of a data set's methods."""
    return Path("configs", f"{data}.py")


def check_methods(methods: Sequence[str], data: str) -> None:
    """See that each of ``methods`` is one of a teacher and a student on a data set.

    Raises:
        UsageError: one is not; those that there are are named.
    """
    known = setups(METHODS, data)
    with_teacher = [name for name, setup in known.items() if setup.teachers == ("teacher",)]
    for method in methods:
        if method not in with_teacher:
            why = "does not learn from exactly one teacher" if method in known else f"is no method for {data}"
            raise UsageError(f"--methods {method}: {method} {why}; there is {', '.join(with_teacher)}")


def check_counts(**counts: int) -> None:
    """See that each option counts something."""
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"--{name} {count}: at least 1")


def show(benchmark: str, row: dict[str, object]) -> None:
    """One result as a line of JSON."""
    print(json.dumps({"benchmark": benchmark, **row, "machine": machine()}), flush=True)


def machine() -> dict[str, object]:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": model, "cores": os.cpu_count(), "torch": torch.__version__, "opencv": cv2.__version__}


def run(*command: str) -> None:
    """One of the project's scripts."""
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


def photos(data: Path) -> list[bytes]:
    """The files below ``data``, in order."""
    return [path.read_bytes() for path in files_below(data)]


def files_below(data: Path) -> list[Path]:
    """The files in the class folders of ``data``, in order.

    Raises:
        UsageError: there are none.
    """
    files = sorted(path for path in data.glob("*/*") if path.is_file())
    if not files:
        raise UsageError(
            f"--data {data}: no class folders with JPEG files; give such a folder, such as --data /data/imagenet/train"
        )
    return files


class Prepared(BatchMaker):
    """Batches of pixels that are there already: one copy, no decoding."""

    def fill(self, batch: Arrays, rows: range, epoch: int, watch: np.ndarray, spent: np.ndarray) -> list[str]:
        """Copy."""
        part = batch["images"][rows.start : rows.stop]
        np.copyto(part, np.zeros((), np.uint8))
        return []
