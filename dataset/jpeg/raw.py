"""Pixels as they are, for small images: a binary PPM (P6, 8 bits), which any image reader opens.

Uncompressed, a 32 x 32 image is 3 kB and costs no decoding.
"""

from __future__ import annotations

import re

import numpy as np
from numba import njit, types

_HEADER = re.compile(rb"P6\n(\d{1,5}) (\d{1,5})\n255\n")
_LONGEST = 20  # bytes of a header


def encode_raw(pixels: np.ndarray) -> bytes:
    """RGB pixels, uint8 [H, W, 3], as PPM."""
    height, width, _ = pixels.shape
    return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()


def raw_pixels(data: bytes) -> np.ndarray | None:
    """The pixels of a PPM, uint8 [H, W, 3], in the memory of ``data``; None for a file of another kind or length."""
    if data[:3] != b"P6\n":
        return None
    header = _HEADER.match(bytes(data[:_LONGEST]))
    if header is None:
        return None
    width, height = int(header[1]), int(header[2])
    if len(data) != header.end() + 3 * height * width:
        return None
    return np.frombuffer(data, np.uint8, offset=header.end()).reshape(height, width, 3)


_READ_ONLY = types.Array(types.uint8, 3, "C", readonly=True)


@njit(types.void(_READ_ONLY, types.int64, types.int64, types.boolean, types.uint8[:, :, ::1]), cache=True, nogil=True)
def padded_window(pixels: np.ndarray, top: int, left: int, mirror: bool, out: np.ndarray) -> None:
    """Fill ``out`` [S, S, 3] with the window of ``pixels`` [H, W, 3] at (top, left), which may reach beyond: black."""
    side = out.shape[0]
    for row in range(side):
        from_row = top + row
        for column in range(side):
            from_column = left + (side - 1 - column if mirror else column)
            inside = 0 <= from_row < pixels.shape[0] and 0 <= from_column < pixels.shape[1]
            for channel in range(3):
                out[row, column, channel] = pixels[from_row, from_column, channel] if inside else 0
