"""Antialiased bilinear resampling: Pillow's pixels in a quarter of its time.

Each output pixel is a weighted mean of the pixels within one output pixel of it (a triangle filter, its support scaled
with the reduction), horizontally and then vertically, in Pillow's fixed-point arithmetic. Pillow takes some shapes
vertically first, where pixels may differ by one level. Columns are combined as rows of the transposed image, so that
every inner loop runs along memory.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numba import njit

from dataset.jpeg.scratch import scratch

_PRECISION = 22  # bits of a weight, as in Pillow


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
    first, weights = _triangle_weights(length, size, begin, size - begin if count is None else count)
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
    _combine(turned.reshape(width, height * 3), *horizontal, columns.reshape(wide, height * 3))
    rows = cv2.transpose(columns, dst=scratch("rows", height * wide * 3).reshape(height, wide, 3))
    _combine(rows.reshape(height, wide * 3), *vertical, out.reshape(high, wide * 3))
    return out


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased bilinear resize, uint8 [H, W, 3] -> [height, width, 3]."""
    return resample(pixels, filter_weights(pixels.shape[0], height), filter_weights(pixels.shape[1], width))


@njit("Tuple((int64[::1], int32[:, ::1]))(int64, int64, int64, int64)", cache=True, nogil=True)
def _triangle_weights(length: int, size: int, begin: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    scale = length / size
    support = max(scale, 1.0)
    first = np.empty(count, np.int64)
    weights = np.zeros((count, int(np.ceil(support)) * 2 + 1), np.int32)
    row = np.empty(weights.shape[1])
    for at in range(count):
        center = (begin + at + 0.5) * scale
        low = max(0, int(center - support + 0.5))
        number = min(length, int(center + support + 0.5)) - low
        total = 0.0
        for place in range(number):
            row[place] = max(0.0, 1.0 - abs((place + low - center + 0.5) * (1.0 / support)))
            total += row[place]
        first[at] = low
        for place in range(number):
            weights[at, place] = int(row[place] * (1.0 / total) * (1 << _PRECISION) + 0.5)
    return first, weights


@njit("void(uint8[:, ::1], int64[::1], int32[:, ::1], uint8[:, ::1])", cache=True, nogil=True)
def _combine(rows: np.ndarray, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """out[n] = sum over t of weights[n, t] * rows[first[n] + t], rounded."""
    width = out.shape[1]
    total = np.empty(width, np.int32)
    for at in range(out.shape[0]):
        total[:] = 1 << (_PRECISION - 1)
        for place in range(weights.shape[1]):
            weight = weights[at, place]
            if weight:
                row = rows[first[at] + place]
                for x in range(width):
                    total[x] += np.int32(row[x]) * weight
        line = out[at]
        for x in range(width):
            line[x] = total[x] >> _PRECISION
