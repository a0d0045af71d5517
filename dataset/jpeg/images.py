"""Image files: what is read of them, and what is stored.

Orientation tags are ignored throughout, as torchvision's ImageFolder does: pixels are those stored in the file.
"""

from __future__ import annotations

import io
import stat
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.jpeg.header import BadImage, Header, jpeg_header, read_header, without_stray_bytes
from dataset.jpeg.raw import raw_pixels
from dataset.jpeg.rgb import rgb_pixels

MAX_BYTES = 1 << 28  # 268 MB, of a file
_MAX_SIDE = 65500  # that libjpeg writes


def read_image(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        BadImage: a pipe, a socket or a device, or larger than `MAX_BYTES`.
        OSError: it cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BadImage("not a regular file")
    if status.st_size > MAX_BYTES:
        raise BadImage(f"{status.st_size:,} bytes, the limit is {MAX_BYTES:,}: write it again, smaller")
    return path.read_bytes()


def as_jpeg(data: bytes) -> tuple[bytes, Header, str | None]:
    """JPEG bytes fit to store, their header, and a remark when they are not simply ``data``.

    A gray or colour JPEG, baseline or progressive, is returned as it is, but for bytes between its header segments that
    belong to none. Anything else that Pillow can read (PNG, CMYK, ...) is converted once to RGB, JPEG quality 100
    without chroma subsampling.

    Raises:
        BadImage: empty, unreadable, or no JPEG and too large; damage inside a JPEG is for `damage.find_damage`.
    """
    header = read_header(data)
    if header is not None and header.components in (1, 3) and header.precision == 8:
        if header.stray:
            data = without_stray_bytes(data, header)
            return data, jpeg_header(data), f"{header.stray} stray bytes between its header segments left out"
        return data, header, None
    if not data:
        raise BadImage("the file is empty")
    kind, pixels = rgb_pixels(data)
    if max(pixels.shape) > _MAX_SIDE:
        raise BadImage(f"{pixels.shape[1]} x {pixels.shape[0]} pixels: a JPEG holds {_MAX_SIDE} a side")
    data = encode(pixels, quality=100)
    return data, jpeg_header(data), f"{kind} converted to RGB JPEG, quality 100"


def encode(pixels: np.ndarray, *, quality: int) -> bytes:
    """RGB pixels, uint8 [H, W, 3], as JPEG; quality 100 keeps chroma at full resolution."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0 if quality == 100 else 2)
    return file.getvalue()


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width of the stored pixels.

    Raises:
        BadImage: ``data`` is not an image.
    """
    header = read_header(data)
    if header is not None:
        return header.height, header.width
    raw = raw_pixels(data)
    pixels = rgb_pixels(data)[1] if raw is None else raw
    return pixels.shape[0], pixels.shape[1]


def resized_shape(height: int, width: int, side: int, *, longest: bool = False) -> tuple[int, int]:
    """(height, width) scaled so that the short (or longest) side is ``side``, rounded down as torchvision's Resize."""
    reference = max(height, width) if longest else min(height, width)
    return max(1, height * side // reference), max(1, width * side // reference)
