"""Antialiased bilinear resampling of RGB pixels: Pillow's pixels in a quarter of its time.

Each output pixel is a weighted mean of the pixels within one output pixel of it (a triangle filter, its support scaled
with the reduction), horizontally and then vertically, in Pillow's fixed-point arithmetic. Pillow takes some shapes
vertically first, where pixels may differ by one level. Columns are combined as rows of the transposed image, so that
every inner loop runs along memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from dataset.jpeg.codec import library, writable
from dataset.jpeg.scratch import scratch


class FilterWeights(NamedTuple):
    """The input pixels that make N output pixels of one axis, and their weights."""

    first: np.ndarray  # int64 [N], the first input pixel of each output
    weights: np.ndarray  # int32 [N, most], of it and those behind it; zero beyond an output's last

    @property
    def span(self) -> tuple[int, int]:
        """The first input pixel that any output needs, and one past the last."""
        used = self.first + (self.weights != 0).cumsum(axis=1).argmax(axis=1) + 1
        return int(self.first.min()), int(used.max())


def filter_weights(
    length: int, size: int, begin: int = 0, count: int | None = None, *, mirror: bool = False
) -> FilterWeights:
    """Outputs ``begin`` to ``begin + count`` of ``length`` pixels resized to ``size``; mirrored: in reverse order."""
    count = size - begin if count is None else count
    most = 2 * math.ceil(max(length / size, 1.0)) + 1
    first, weights = np.empty(count, np.int64), np.empty((count, most), np.int32)
    library.triangle_weights(length, size, begin, count, most, writable(first), writable(weights))
    if mirror:
        first, weights = first[::-1].copy(), weights[::-1].copy()
    return FilterWeights(first, weights)


def resample(
    pixels: np.ndarray, vertical: FilterWeights, horizontal: FilterWeights, out: np.ndarray | None = None
) -> np.ndarray:
    """Resize ``pixels``, uint8 [H, W, 3], to ``out``, uint8 [N, M, 3] and contiguous."""
    height, width = pixels.shape[:2]
    high, wide = len(vertical.first), len(horizontal.first)
    out = np.empty((high, wide, 3), np.uint8) if out is None else out
    turned = cv2.transpose(pixels, dst=scratch("turned", width * height * 3).reshape(width, height, 3))
    columns = scratch("columns", wide * height * 3).reshape(wide, height, 3)
    _combine(turned, horizontal, columns)
    rows = cv2.transpose(columns, dst=scratch("rows", height * wide * 3).reshape(height, wide, 3))
    _combine(rows, vertical, out)
    return out


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased bilinear resize, uint8 [H, W, 3] -> [height, width, 3]."""
    return resample(pixels, filter_weights(pixels.shape[0], height), filter_weights(pixels.shape[1], width))


def _combine(rows: np.ndarray, weights: FilterWeights, out: np.ndarray) -> None:
    """out[n] = sum over t of weights[n, t] * rows[first[n] + t], rounded; rows [R, W, 3], out [N, W, 3]."""
    count, most = weights.weights.shape
    library.combine_rows(
        writable(rows),
        3 * rows.shape[1],
        count,
        most,
        writable(weights.first),
        writable(weights.weights),
        writable(out),
    )
