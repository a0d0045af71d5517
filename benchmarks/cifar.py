"""Images/s of 32 x 32 pixels on one core, from packed records and from a dataset in the way of torchvision's CIFAR100.

    python -m benchmarks.cifar [--images 50000] [--rounds 5]

Random pixels in the official pickles' form are packed by dataset/cifar2lmdb.py. Every way ends with batches of 64,
padded, cropped and mirrored: torchvision's are PIL images through RandomCrop, RandomHorizontalFlip, ToTensor and
Normalize under torch's DataLoader; Limbeck's are uint8, which the networks normalise on their device, or normalised on
the core too. Rounds go through the ways in turn, the median counts, and `ratio` is to torchvision's.
"""

from __future__ import annotations

import argparse
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.common import check_counts, cores, run, show
from dataset.loader import DataConfig, TrainLoader, open_split
from models.zoo import NetworkConfig, build_network
from utils.console import exit_with_its_code, progress

BATCH, SIDE, CLASSES = 64, 32, 100
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


@exit_with_its_code
def main() -> None:
    """Pack, measure in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000, help="in the split (default: 50000)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="each goes through the split once in every way (default: 5)"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark_cifar"), help="where the packed images go")
    options = parser.parse_args()
    check_counts(images=options.images, rounds=options.rounds)
    pixels, labels = made(options.images)
    lmdb = packed(options.work, pixels, labels)
    network = build_network(NetworkConfig("cifar_resnet8", mean=MEAN, std=STD), CLASSES)
    ways: dict[str, Callable[[], Iterator[Tensor]]] = {
        "torchvision": lambda: torchvision_way(pixels, labels),
        "Limbeck": lambda: limbeck(lmdb),
        "Limbeck, normalised": lambda: map(network.normalize, limbeck(lmdb)),
        "Limbeck, with strong views": lambda: limbeck(lmdb, strong_view=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with cores(1):
        for _ in progress(iterable=range(options.rounds), desc="one core", unit="round"):
            for name, way in ways.items():
                rates[name].append(images_a_second(way()))
    base = median(rates["torchvision"])
    for name, values in rates.items():
        rate = median(values)
        show("cifar", {"way": name, "images_per_second": round(rate), "ratio": round(rate / base, 2)})


def made(count: int) -> tuple[np.ndarray, list[int]]:
    """Random images, uint8 [N, 32, 32, 3], and labels."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    return pixels, [number % CLASSES for number in range(count)]


def packed(work: Path, pixels: np.ndarray, labels: list[int]) -> str:
    """The folder of the packed images; a few are its validation split."""
    source, lmdb = work / f"pickles{len(labels)}", work / f"lmdb{len(labels)}"
    source.mkdir(parents=True, exist_ok=True)
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(labels), -1)
    for name, part in (("train", slice(None)), ("test", slice(BATCH))):
        row = {b"data": planes[part], b"fine_labels": labels[part], b"coarse_labels": labels[part]}
        row[b"filenames"] = [b"%d.png" % number for number in range(len(labels))][part]
        (source / name).write_bytes(pickle.dumps(row))
    names = [b"%02d" % number for number in range(CLASSES)]
    (source / "meta").write_bytes(pickle.dumps({b"fine_label_names": names, b"coarse_label_names": names}))
    run("dataset/cifar2lmdb.py", "--image_path", str(source), "--output_path", str(lmdb))
    return str(lmdb)


def limbeck(lmdb: str, *, strong_view: bool = False) -> Iterator[Tensor]:
    """Batches of this project, made in the process itself."""
    config = DataConfig(
        lmdb, BATCH, num_workers=0, input_size=SIDE, type_of_data_aug="pad_crop", strong_view=strong_view
    )
    samples = open_split(config, "train", "lmdb")
    loader = TrainLoader(samples, config, seed=0, rank=0, world=1, device=torch.device("cpu"))
    yield from (batch["images"] for batch in loader.epoch(0))
    loader.close()


def torchvision_way(pixels: np.ndarray, labels: list[int]) -> Iterator[Tensor]:
    """Batches of a dataset like torchvision.datasets.CIFAR100."""
    for images, _ in DataLoader(_Images(pixels, labels), BATCH, shuffle=True, drop_last=True):
        yield images


class _Images(Dataset):
    def __init__(self, pixels: np.ndarray, labels: list[int]) -> None:
        self._pixels, self._labels = pixels, labels
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(SIDE, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]


def images_a_second(batches: Iterator[Tensor]) -> float:
    """Of all batches but the first."""
    next(batches)
    start, count = time.perf_counter(), 0
    for images in batches:
        count += len(images)
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
