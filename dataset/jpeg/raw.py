"""Pixels as they are, for small images: a binary PPM (P6, 8 bits), which any image reader opens.

Uncompressed, a 32 x 32 image is 3 kB and costs no decoding.
"""

from __future__ import annotations

import re
from struct import Struct

import numpy as np

from dataset.jpeg.codec import library, readable, writable

_HEADER = re.compile(rb"P6\n(\d{1,5}) (\d{1,5})\n255\n")
_WINDOW = Struct("6q")  # PaddedWindow of codec.h


def encode_raw(pixels: np.ndarray) -> bytes:
    """RGB pixels, uint8 [H, W, 3], as PPM."""
    height, width, _ = pixels.shape
    return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()


def raw_pixels(data: bytes) -> np.ndarray | None:
    """The pixels of a PPM, uint8 [H, W, 3], in the memory of ``data``; None for a file of another kind or length."""
    header = _HEADER.match(data)
    if header is None:
        return None
    width, height = int(header[1]), int(header[2])
    if len(data) != header.end() + 3 * height * width:
        return None
    return np.ndarray((height, width, 3), np.uint8, data, header.end())


def padded_window(pixels: np.ndarray, top: int, left: int, mirror: bool, out: np.ndarray) -> None:
    """Fill ``out`` [S, S, 3] with the window of ``pixels`` [H, W, 3] at (top, left), which may reach beyond: black."""
    height, width, _ = pixels.shape
    window = _WINDOW.pack(height, width, top, left, len(out), mirror)
    library.padded_window(readable(pixels), window, writable(out))
