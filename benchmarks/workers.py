"""The decoding processes: how soon they are at work, and what they keep in memory.

    python -m benchmarks.workers [--data /data/imagenet/train] [--batches 500] [--workers 8]

Start: seconds from `Ring.start` until each of the processes, all on two cores, has decoded its first photos; the median
of the rounds. Memory: private megabytes of the largest of two that work on the photos in batches of 16 (what it alone
holds: neither the batches' slots nor pages of the shards, which all share), after so many batches.
"""

from __future__ import annotations

import time
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.common import cores, parsed, parser, run, show
from dataset.feed.batches import BatchMaker
from dataset.feed.ring import Ring
from dataset.feed.targets import Labels
from dataset.feed.worker import STATUS
from dataset.loader import DataConfig, TrainLoader, open_split
from dataset.store.samples import Samples
from utils.console import exit_with_its_code, progress

ROWS = 16  # of a batch


@exit_with_its_code
def main() -> None:
    """Pack, measure both, print."""
    made = parser(__doc__, "benchmark_workers")
    made.add_argument("--batches", type=int, default=500, help="after which the memory is read (default: 500)")
    made.add_argument("--workers", type=int, default=8, help="of the start (default: 8)")
    options = parsed(made)
    config = DataConfig(packed(options.data, options.work), batch_size=ROWS, num_workers=2)
    samples = open_split(config, "train", "lmdb")
    bar = progress(iterable=range(options.rounds), desc="start", unit="round")
    seconds = [start(samples, config, options.workers) for _ in bar]
    show("start", {"workers": options.workers, "seconds": round(median(seconds), 2)})
    show("memory", {"batches": options.batches, "mb": round(memory(samples, config, options.batches), 1)})


def packed(data: Path, work: Path) -> str:
    """The folder of the packed photos."""
    link = work / "images" / "train"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(data.resolve())
    paths = ["--image_path", str(work / "images")]
    run("dataset/mk_img_list.py", *paths, "--output_path", str(work / "lists"))
    paths += ["--list_path", str(work / "lists"), "--output_path", str(work / "lmdb"), "--split", "train"]
    run("dataset/img2lmdb.py", *paths)
    return str(work / "lmdb")


def start(samples: Samples, config: DataConfig, workers: int) -> float:
    """Seconds until every process has decoded something."""
    ring = Ring(BatchMaker(samples, config, Labels(len(samples.classes)), seed=0), ROWS, workers)
    with closing(ring):
        begun = time.perf_counter()
        ring.start()
        decoded = ring._status[:, STATUS.index("decode")]
        asked = []
        while not decoded.all():
            while ring.has_room:
                asked.append(ring.submit(np.arange(ROWS) % len(samples), 0))
            ring.wait(asked[0])
            ring.release(asked.pop(0))
        return time.perf_counter() - begun


def memory(samples: Samples, config: DataConfig, batches: int) -> float:
    """Private megabytes of the largest process."""
    loader = TrainLoader(samples, config, 0, rank=0, world=1, device=torch.device("cpu"))
    with closing(loader):
        endless = (batch for epoch in count() for batch in loader.epoch(epoch))
        for _ in progress(iterable=islice(endless, batches), total=batches, desc="memory", unit="batch"):
            pass
        most = max(private_megabytes(worker.process.pid) for worker in loader._stream.ring._workers)
        endless.close()
    return most


def private_megabytes(process: int) -> float:
    """Pages that ``process`` alone has, but for those of the slots and the shards."""
    total, counts = 0, False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):  # a mapping begins: addresses, rights, ..., what is mapped
            counts = "limbeck-batches" not in line and not line.endswith(".lmdb")
        elif counts and first.startswith("Private_"):
            total += int(rest[0])
    return total / 1024


if __name__ == "__main__":
    with cores(2):
        main()
