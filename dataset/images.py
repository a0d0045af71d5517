"""Image files: reading headers, checking that a JPEG is whole, decoding, resizing.

Orientation tags are ignored throughout, as torchvision's ImageFolder does: pixels are those stored in the file.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from utils.errors import DataError

MAX_PIXELS = 1 << 27  # 134 million: larger headers are taken for damage or malice, not photographs
_MAX_SIDE = 65500  # that libjpeg writes

# Frame headers of baseline, extended, progressive and arithmetic JPEG; 0xC4, 0xC8 and 0xCC are other segments.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class JpegHeader:
    """What the frame header of a JPEG says."""

    height: int
    width: int
    components: int  # 1 gray, 3 colour, 4 CMYK
    precision: int  # bits a sample


class BadImage(DataError):
    """An image that cannot be read whole; says why, the caller says which."""


def read_header(data: bytes) -> JpegHeader | None:
    """The frame header of a JPEG, None for a file of another kind.

    Raises:
        BadImage: ``data`` begins as a JPEG but has no readable frame header.
    """
    if data[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise BadImage(f"damaged JPEG: no marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD7 or marker == 0x01:  # fill bytes, markers without a segment
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES and position + 10 <= len(data):
            frame = data[position + 4 : position + 10]
            header = JpegHeader(
                int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big"), frame[5], frame[0]
            )
            if not 0 < header.height * header.width <= MAX_PIXELS:
                raise BadImage(f"the JPEG header says {header.width} x {header.height} pixels")
            return header
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise BadImage("truncated JPEG: it ends before its frame header")


def packable_jpeg(data: bytes) -> tuple[bytes, JpegHeader, str | None]:
    """JPEG bytes fit to store, their header, and a remark when they are not simply ``data``.

    A sound gray or colour JPEG, baseline or progressive, is returned as it is. Anything else that Pillow can read
    (PNG, CMYK, ...) is converted once to RGB, JPEG quality 100 without chroma subsampling.

    Raises:
        BadImage: empty, unreadable, truncated, or damaged in mid-stream.
    """
    if not data:
        raise BadImage("the file is empty")
    header = read_header(data)
    if header is None or header.components not in (1, 3) or header.precision != 8:
        kind, pixels = _pillow_pixels(data)
        if max(pixels.shape) > _MAX_SIDE:
            raise BadImage(f"{pixels.shape[1]} x {pixels.shape[0]} pixels: a JPEG holds {_MAX_SIDE} a side")
        data = encode(pixels, quality=100)
        return data, JpegHeader(pixels.shape[0], pixels.shape[1], 3, 8), f"{kind} converted to RGB JPEG, quality 100"
    try:
        # Decoding the luma alone reads every entropy-coded bit; `strict` turns libjpeg's warnings into errors.
        simplejpeg.decode_jpeg(data, colorspace="GRAY", fastdct=True, strict=True)
    except ValueError as error:
        if "extraneous bytes before marker" not in str(error):
            raise BadImage(f"damaged JPEG: {error}") from None
        return data, header, f"kept with a harmless flaw: {error}"
    return data, header, None


def decode(data: bytes) -> np.ndarray:
    """RGB pixels, uint8 [H, W, 3].

    Raises:
        BadImage: OpenCV (Pillow for CMYK and files that are not JPEG) cannot read it.
    """
    if not data:
        raise BadImage("the file is empty")
    header = read_header(data)
    if header is None or header.components == 4:
        return _pillow_pixels(data)[1]
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise BadImage("OpenCV cannot decode this JPEG: it is truncated or damaged")
    return pixels


def encode(pixels: np.ndarray, *, quality: int) -> bytes:
    """RGB pixels, uint8 [H, W, 3], as JPEG; quality 100 keeps chroma at full resolution."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0 if quality == 100 else 2)
    return file.getvalue()


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased bilinear resize, uint8 [H, W, 3] -> [height, width, 3]: the pixels of torchvision's Resize."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def resized_shape(height: int, width: int, side: int, *, longest: bool = False) -> tuple[int, int]:
    """(height, width) scaled so that the short (or longest) side is ``side``, rounded down as torchvision's Resize."""
    reference = max(height, width) if longest else min(height, width)
    return max(1, height * side // reference), max(1, width * side // reference)


def resize_and_center_crop(pixels: np.ndarray, resize_side: int, crop: int) -> np.ndarray:
    """Evaluation pixels [crop, crop, 3], equal to torchvision's Resize(resize_side) and CenterCrop(crop)."""
    height, width = resized_shape(pixels.shape[0], pixels.shape[1], resize_side)
    pixels = resize(pixels, height, width)
    if height < crop or width < crop:  # torchvision pads with black, the odd pixel at the end
        top, left = max(0, (crop - height) // 2), max(0, (crop - width) // 2)
        bottom, right = max(0, (crop - height + 1) // 2), max(0, (crop - width + 1) // 2)
        pixels = np.pad(pixels, ((top, bottom), (left, right), (0, 0)))
        height, width = pixels.shape[:2]
    top, left = round((height - crop) / 2.0), round((width - crop) / 2.0)
    return pixels[top : top + crop, left : left + crop]


def _pillow_pixels(data: bytes) -> tuple[str, np.ndarray]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(f"the header says {image.width} x {image.height} pixels")
            kind = f"{image.mode} {image.format}"
            return kind, np.asarray(image.convert("RGB"))
    except BadImage:
        raise
    except Exception as error:  # damaged files make Pillow's plugins raise OSError, SyntaxError, RuntimeError, ...
        raise BadImage(f"not an image that Pillow can read: {error}") from None
