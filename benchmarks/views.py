"""What a training view costs from the bytes of a packed photo on, and how near its pixels come to Pillow's.

    python -m benchmarks.views [--data /data/imagenet/train] [--epochs 3]

Views are RandomResizedCrop to 224, by `data.decode` and `data.resize`, of photos that are tiled in memory; Pillow
decodes the original photo, crops and resizes it. Microseconds are medians over the rounds, on one core; the PSNR of a
view is that of its mean squared error beside Pillow's, in decibels.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np
from PIL import Image

from benchmarks.common import cores, parsed, parser, photos, show
from dataset.config import DataConfig
from dataset.feed import crops
from dataset.feed.batches import BatchMaker
from dataset.feed.targets import Arrays, Labels
from dataset.jpeg.images import image_size
from dataset.jpeg.tiles import tile
from dataset.store.record import Record
from dataset.store.samples import Samples
from utils.console import exit_with_its_code, progress

SIDE = 224
CONFIGS = {
    "decode=planes": DataConfig("", flip=False),
    "decode=exact": DataConfig("", flip=False, decode="exact"),
    "resize=area": DataConfig("", flip=False, resize="area"),
    "resize=linear": DataConfig("", flip=False, resize="linear"),
}


class Tiled(Samples):
    """Photos in memory, tiled."""

    sizes: np.ndarray

    def __init__(self, files: list[bytes]) -> None:
        self.classes, self.labels = ("photo",), np.zeros(len(files), np.int64)
        self.sizes = np.array([image_size(data) for data in files])
        self._images = [tile(data) for data in files]

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Record:
        """One of them."""
        return Record(str(index), self._images[index], 0)


@exit_with_its_code
def main() -> None:
    """Show the views in turn, print."""
    made = parser(__doc__, "benchmark_views")
    made.add_argument("--epochs", type=int, default=3, help="views of each photo that the PSNR is of")
    options = parsed(made)
    cv2.setNumThreads(1)
    files = photos(options.data)
    samples = Tiled(files)
    methods: dict[str, Callable[[int], np.ndarray]] = {"Pillow": lambda epoch: pillow(files, samples.sizes, epoch)}
    methods |= {name: views_of(samples, config) for name, config in CONFIGS.items()}
    microseconds: dict[str, list[float]] = {name: [] for name in methods}
    with cores(1):
        for _ in progress(iterable=range(options.rounds), desc="views", unit="round"):
            for name, method in methods.items():
                start = time.perf_counter()
                method(0)
                microseconds[name].append((time.perf_counter() - start) / len(files) * 1e6)
    expected = [pillow(files, samples.sizes, epoch) for epoch in range(options.epochs)]
    for name, method in methods.items():
        row: dict[str, object] = {"view": name, "microseconds": round(median(microseconds[name]))}
        if name != "Pillow":
            quality = np.concatenate([psnr(method(epoch), expected[epoch]) for epoch in range(options.epochs)])
            row |= {"psnr_db_median": rounded(np.median(quality)), "psnr_db_worst": rounded(quality.min())}
        show("views", {**row, "views": len(files) * options.epochs})


def pillow(files: list[bytes], sizes: np.ndarray, epoch: int) -> np.ndarray:
    """The views by Pillow, uint8 [N, S, S, 3]."""
    numbers = crops.uniform(0, epoch, np.arange(len(files)), crops.WINDOW)
    config = CONFIGS["decode=exact"]
    windows = crops.random_resized_crop(numbers[:, 4:], sizes, config.scale, config.ratio).tolist()
    views = np.empty((len(files), SIDE, SIDE, 3), np.uint8)
    for view, data, (top, left, height, width) in zip(views, files, windows, strict=True):
        window = Image.open(io.BytesIO(data)).convert("RGB").crop((left, top, left + width, top + height))
        view[:] = np.asarray(window.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return views


def views_of(samples: Tiled, config: DataConfig) -> Callable[[int], np.ndarray]:
    """A function of the epoch that shows all samples, uint8 [N, S, S, 3], in memory that the next call overwrites."""
    maker = BatchMaker(samples, config, Labels(1), seed=0)
    batch: Arrays = {name: np.empty(shape, kind) for name, (kind, shape) in maker.layout(len(samples)).items()}
    batch["canvas"][:] = maker.canvas(np.arange(len(samples)), 0)
    batch["index"][:] = np.arange(len(samples))

    def views(epoch: int) -> np.ndarray:
        maker.fill(batch, range(len(samples)), epoch, np.zeros(2, np.int64), np.zeros(3, np.int64))
        return batch["images"]

    return views


def rounded(value: float) -> float:
    """To a tenth."""
    return round(float(value), 1)


def psnr(views: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """In decibels, float64 [N]."""
    errors = np.square(views.astype(np.float64) - expected).mean(axis=(1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(errors, 1e-9))


if __name__ == "__main__":
    main()
