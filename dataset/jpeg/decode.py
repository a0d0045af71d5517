"""Pixels of an image file, whole or of a window."""

from __future__ import annotations

import cv2
import numpy as np

from dataset.jpeg.codec import library, readable, writable
from dataset.jpeg.header import BadImage, read_header
from dataset.jpeg.raw import raw_pixels
from dataset.jpeg.resize import resize
from dataset.jpeg.rgb import rgb_pixels
from dataset.jpeg.scratch import scratch

_MAX_PIXELS = 1 << 27  # 134 million, of an image that is decoded whole
_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    # The bit of REDUCED_GRAYSCALE halves; beside COLOR_RGB it keeps the colours.
    **{2**n: cv2.IMREAD_COLOR_RGB | getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{2**n}") for n in (1, 2, 3)},
}


def decode(data: bytes, *, halve: bool = False) -> np.ndarray:
    """RGB pixels, uint8 [H, W, 3], by stock decoders; with ``halve`` scaled to half the size by the decoder of a JPEG.

    Raises:
        BadImage: OpenCV (Pillow for CMYK and files that are not JPEG) cannot read it.
    """
    if not data:
        raise BadImage("the file is empty")
    header = read_header(data)
    if header is None or header.components == 4:
        raw = raw_pixels(data)
        pixels = rgb_pixels(data)[1] if raw is None else raw
        return resize(pixels, pixels.shape[0] // 2, pixels.shape[1] // 2) if halve else pixels
    if header.height * header.width > _MAX_PIXELS:
        raise BadImage(f"{header.width} x {header.height} pixels are more than {_MAX_PIXELS:,}: shrink it beforehand")
    return opencv_pixels(np.frombuffer(data, np.uint8), reduce=2 if halve else 1)


def decode_window(data: bytes, window: tuple[int, int, int, int], *, halve: bool = False) -> np.ndarray:
    """RGB pixels of ``window`` = (top, left, height, width), uint8 [height, width, 3]: those of `decode`.

    They hold until the next call. With ``halve`` the window is one of the smaller image. Of a tiled JPEG (`tiles.tile`)
    only the intervals under the window are decoded.

    Raises:
        BadImage: as `decode`, or the window does not lie in the image.
    """
    top, left, height, width = window
    header = read_header(data)
    if header is not None and not halve and _lies_in(window, header.height, header.width):
        out = scratch("window", height * width * 3).reshape(height, width, 3)
        if not library.decode_window(readable(data), len(data), _packed(window), writable(out)):
            return out
    pixels = decode(data, halve=halve)
    if not _lies_in(window, *pixels.shape[:2]):
        raise BadImage(f"it has {pixels.shape[1]} x {pixels.shape[0]} pixels, and the window {window} lies beyond")
    return pixels[top : top + height, left : left + width]


def window_intervals(data: bytes, window: tuple[int, int, int, int]) -> np.ndarray | None:
    """What `decode_window` reads of a JPEG; None where it is decoded whole by a stock decoder, or has no restarts.

    Returns:
        int64 [intervals, 4]: position of the first entropy-coded byte and one past the last; number of the first MCU,
        counted along the rows, and one past the last that is decoded.
    """
    header = read_header(data)
    if header is None or not header.restart:
        return None
    found = np.empty((len(data), 4), np.int64)
    count = library.window_intervals(readable(data), len(data), _packed(window), writable(found), len(found))
    return None if count < 0 else found[:count]


def _lies_in(window: tuple[int, int, int, int], image_height: int, image_width: int) -> bool:
    top, left, height, width = window
    return (
        min(top, left) >= 0 and min(height, width) > 0 and top + height <= image_height and left + width <= image_width
    )


def _packed(window: tuple[int, int, int, int]) -> bytes:
    return np.array(window, np.int64).tobytes()


def opencv_pixels(data: np.ndarray, *, reduce: int = 1) -> np.ndarray:
    """RGB pixels of a JPEG, uint8 [H, W, 3], at full size or reduced by 2, 4 or 8 in the decoder.

    Raises:
        BadImage: OpenCV cannot decode it.
    """
    try:
        decoded = cv2.imdecode(data, _REDUCED[reduce] | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:  # more than 2^30 pixels
        raise BadImage(f"OpenCV cannot decode this JPEG: {' '.join(str(error).split())}") from None
    if decoded is None:
        raise BadImage("OpenCV cannot decode this JPEG: it is truncated or damaged")
    return decoded
