"""The hand-over of batches from decoding processes to the training process.

    python -m benchmarks.ring [--rounds 5]

Milliseconds a batch of 256 images (38.5 MB) from two processes that copy ready pixels instead of decoding, through this
project's ring and through torch's DataLoader. benchmarks/workers.py has what these processes keep in memory.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from statistics import median

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.common import Prepared, check_counts, cores, show
from dataset.config import DataConfig
from dataset.feed.ring import Ring
from dataset.feed.targets import Labels
from utils.console import exit_with_its_code, progress

SIDE, BATCH, WORKERS, BATCHES = 224, 256, 2, 60


@exit_with_its_code
def main() -> None:
    """Measure both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="each measures both once; the median counts (default: 5)")
    options = parser.parse_args()
    check_counts(rounds=options.rounds)
    ways = {"ring": ring_batches, "torch DataLoader": dataloader_batches}
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in progress(iterable=range(options.rounds), desc="handing over", unit="round"):
        for name, way in ways.items():
            milliseconds[name] += way()
    for name, times in milliseconds.items():
        show("handover", {"way": name, "milliseconds": round(median(times), 2), "workers": WORKERS})


def ring_batches() -> list[float]:
    """Milliseconds of each batch through the ring."""
    config = DataConfig("", input_size=SIDE)
    ring = Ring(Prepared(samples=None, config=config, targets=Labels(1), seed=0), BATCH, WORKERS)  # type: ignore[arg-type]
    ring.start()

    def batches() -> Iterator[object]:
        asked = []
        for _ in range(BATCHES):
            while ring.has_room:
                asked.append(ring.submit(np.arange(BATCH), 0))
            yield ring.wait(asked[0])
            ring.release(asked.pop(0))
        ring.drain()

    try:
        return intervals(batches())
    finally:
        ring.close()


def dataloader_batches() -> list[float]:
    """Milliseconds of each batch through torch's DataLoader."""
    return intervals(DataLoader(Ready(), BATCH, num_workers=WORKERS))


class Ready(Dataset):
    """Samples that cost nothing."""

    image = torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8)

    def __len__(self) -> int:
        return BATCH * BATCHES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.image, index


def intervals(batches: object) -> list[float]:
    """Milliseconds between batches, without the first ten."""
    times = [time.perf_counter() for _ in batches]  # type: ignore[attr-defined]
    return list(np.diff(times)[10:] * 1e3)


if __name__ == "__main__":
    with cores(2):
        main()
