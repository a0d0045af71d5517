"""What `data.resize` costs and how near it comes to Pillow's antialiased bilinear, on training windows of photos.

    python -m benchmarks.resize [--data /data/imagenet/train]

Each photo is decoded once; windows are those of RandomResizedCrop, resized to 224. PSNR is that of the mean squared
error over all windows, in decibels; microseconds are medians over the rounds, on one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from benchmarks.common import cores, parsed, parser, photos, show
from dataset.feed.crops import random_resized_crop, uniform
from dataset.jpeg.decode import decode
from dataset.jpeg.resize import filter_weights, resample
from utils.console import exit_with_its_code, progress

SIDE = 224


def ours(pixels: np.ndarray) -> np.ndarray:
    """data.resize=antialias."""
    return resample(pixels, filter_weights(pixels.shape[0], SIDE), filter_weights(pixels.shape[1], SIDE))


def torchvision(pixels: np.ndarray) -> np.ndarray:
    """torchvision's tensor resize, antialiased."""
    resized = functional.resize(torch.from_numpy(pixels).permute(2, 0, 1), [SIDE, SIDE], antialias=True)
    return resized.permute(1, 2, 0).numpy()


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Pillow, bilinear": lambda pixels: np.asarray(
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    ),
    "torchvision, antialiased": torchvision,
    "antialias": ours,
    "area (OpenCV)": lambda pixels: cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA),
    "linear (OpenCV)": lambda pixels: cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR),
}


@exit_with_its_code
def main() -> None:
    """Resize in turn, print."""
    options = parsed(parser(__doc__, "benchmark_resize"))
    images = [decode(data) for data in photos(options.data)]
    sizes = np.array([image.shape[:2] for image in images])
    draws = uniform(0, 0, np.arange(len(images)), 44)
    windows = random_resized_crop(draws[:, 4:], sizes, (0.08, 1.0), (3 / 4, 4 / 3))
    parts = [
        np.ascontiguousarray(image[top : top + height, left : left + width])
        for image, (top, left, height, width) in zip(images, windows, strict=True)
    ]
    microseconds: dict[str, list[float]] = {name: [] for name in METHODS}
    squares: dict[str, float] = {}
    with cores(1):
        for _ in progress(iterable=range(options.rounds), desc="resizing", unit="round"):
            expected: list[np.ndarray] = []
            for name, method in METHODS.items():
                start = time.perf_counter()
                resized = [method(part) for part in parts]
                microseconds[name].append((time.perf_counter() - start) / len(parts) * 1e6)
                expected = expected or resized
                errors = [np.square(a.astype(float) - b).mean() for a, b in zip(resized, expected, strict=True)]
                squares[name] = float(np.mean(errors))
    for name, times in microseconds.items():
        psnr = round(10 * np.log10(255**2 / squares[name]), 1) if squares[name] else None
        show("resize", {"resize": name, "microseconds": round(median(times)), "psnr_db": psnr, "images": len(parts)})


if __name__ == "__main__":
    main()
