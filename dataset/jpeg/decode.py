"""Pixels of an image file, whole or of a window, by stock decoders."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

from dataset.jpeg.header import BadImage, read_header
from dataset.jpeg.raw import raw_pixels
from dataset.jpeg.resize import resize
from dataset.jpeg.rgb import rgb_pixels
from dataset.jpeg.scratch import scratch
from dataset.jpeg.tiles import align, window_jpeg

_MAX_PIXELS = 1 << 27  # 134 million, of an image that is decoded whole
_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    # The bit of REDUCED_GRAYSCALE halves; beside COLOR_RGB it keeps the colours.
    **{2**n: cv2.IMREAD_COLOR_RGB | getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{2**n}") for n in (1, 2, 3)},
}


def decode(data: bytes) -> np.ndarray:
    """RGB pixels, uint8 [H, W, 3].

    Raises:
        BadImage: OpenCV (Pillow for CMYK and files that are not JPEG) cannot read it.
    """
    return _decode(data)


def decode_window(data: bytes, window: tuple[int, int, int, int], *, halve: bool = False) -> np.ndarray:
    """RGB pixels of ``window`` = (top, left, height, width), uint8 [height, width, 3]: those of `decode`.

    They hold until the next call. Of a tiled JPEG (`tiles.tile`) only the parts under the window are decoded. With
    ``halve``, [height / 2, width / 2, 3] at half the resolution, scaled by the decoder; the window's numbers must be
    even.

    Raises:
        BadImage: as `decode`, or the window does not lie in the image.
    """
    top, left, height, width = (side // 2 for side in window) if halve else window
    part = window_jpeg(np.frombuffer(data, np.uint8), window, margin=4 if halve else 2)
    if part is None or (halve and max(height, width) < 8):  # which the decoder may scale by 3/8
        pixels = _decode(data, halve=halve)
        if min(top, left) < 0 or top + height > pixels.shape[0] or left + width > pixels.shape[1]:
            raise BadImage(f"it has {pixels.shape[1]} x {pixels.shape[0]} pixels, and the window {window} lies beyond")
        return pixels[top : top + height, left : left + width]
    pixels = _turbo_pixels(part.data, halve=halve)
    if pixels.shape[:2] != tuple(-(-side // (1 + halve)) for side in part.size):
        raise BadImage(f"a part of it decodes to {pixels.shape[1]} x {pixels.shape[0]} pixels, not {part.size[::-1]}")
    if halve:
        part = part._replace(top=part.top // 2, lefts=part.lefts >> 1)
    return align(pixels, part, height, width, 4 if halve else 8)


def _decode(data: bytes, *, halve: bool = False) -> np.ndarray:
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


def _turbo_pixels(data: np.ndarray, *, halve: bool) -> np.ndarray:
    """As OpenCV's, in memory of this thread that the next call overwrites; silent about a short last interval."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
        half = {"min_height": (height + 1) // 2, "min_width": (width + 1) // 2, "min_factor": 2} if halve else {}
        buffer = scratch("pixels", height * width * 3)
        return simplejpeg.decode_jpeg(data, buffer=buffer, strict=False, **half)
    except (ValueError, KeyError):  # sampling factors or colours that TurboJPEG does not know
        return opencv_pixels(data, reduce=2 if halve else 1)
