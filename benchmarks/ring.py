"""The hand-over of batches from decoding processes to the training process, and what those processes keep in memory.

    python -m benchmarks.ring [--data /data/imagenet/train] [--batches 10000]

Hand-over: milliseconds a batch of 256 images (38.5 MB) from two processes that copy ready pixels instead of decoding,
through this project's ring and through torch's DataLoader. Memory: resident private megabytes of a decoding process
that works on the photos (what it alone holds: neither the batches' slots nor pages of the shards), after the first
batches and after the last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.common import Prepared, cores, parsed, parser, run, show
from dataset.config import DataConfig
from dataset.feed.ring import Ring
from dataset.feed.targets import Labels
from dataset.loader import TrainLoader, open_split
from utils.console import exit_with_its_code, progress

SIDE, BATCH, WORKERS, BATCHES = 224, 256, 2, 60


@exit_with_its_code
def main() -> None:
    """Measure both, print."""
    made = parser(__doc__, "benchmark_ring")
    made.add_argument("--batches", type=int, default=10_000, help="of the memory's measurement, 16 images each")
    options = parsed(made)
    ways = {"ring": ring_batches, "torch DataLoader": dataloader_batches}
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in progress(iterable=range(options.rounds), desc="handing over", unit="round"):
        for name, way in ways.items():
            milliseconds[name] += way()
    for name, times in milliseconds.items():
        show("handover", {"way": name, "milliseconds": round(median(times), 2), "workers": WORKERS})
    show("memory", memory(options.data, options.work, options.batches))


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


def memory(data: Path, work: Path, batches: int) -> dict[str, object]:
    """Private megabytes of the largest decoding process, early and late."""
    link = work / "images" / "train"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(data.resolve())
    paths = ["--image_path", str(work / "images")]
    run("dataset/mk_img_list.py", *paths, "--output_path", str(work / "lists"))
    paths += ["--list_path", str(work / "lists"), "--output_path", str(work / "lmdb"), "--split", "train"]
    run("dataset/img2lmdb.py", *paths)
    config = DataConfig(str(work / "lmdb"), batch_size=16, num_workers=WORKERS)
    loader = TrainLoader(open_split(config, "train", "lmdb"), config, 0, rank=0, world=1, device=torch.device("cpu"))
    endless = (batch for epoch in range(batches) for batch in loader.epoch(epoch))
    early = 0.0
    for number, _ in enumerate(progress(iterable=range(batches), desc="memory", unit="batch")):
        next(endless)
        if number == min(500, batches // 2):
            early = private_megabytes()
    late = private_megabytes()
    endless.close()
    loader.close()
    return {"batches": batches, "early_mb": round(early, 1), "late_mb": round(late, 1)}


def private_megabytes() -> float:
    """Of the largest decoding process below this one: anonymous memory and pages that it alone maps."""
    most = 0.0
    for process in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        command = Path(f"/proc/{process}/cmdline").read_bytes()
        if b"dataset.feed.worker" in command:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            most = max(most, sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024)
    return most


if __name__ == "__main__":
    with cores(2):
        main()
