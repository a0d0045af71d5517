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

from dataset.raw import raw_pixels
from dataset.resize import resample, taps
from dataset.scratch import scratch
from dataset.tiles import align, window_jpeg
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


def as_jpeg(data: bytes) -> tuple[bytes, JpegHeader, str | None]:
    """JPEG bytes fit to store, their header, and a remark when they are not simply ``data``.

    A gray or colour JPEG, baseline or progressive, is returned as it is. Anything else that Pillow can read (PNG, CMYK,
    ...) is converted once to RGB, JPEG quality 100 without chroma subsampling.

    Raises:
        BadImage: empty or unreadable; damage inside a JPEG is for `find_damage`.
    """
    if not data:
        raise BadImage("the file is empty")
    header = read_header(data)
    if header is not None and header.components in (1, 3) and header.precision == 8:
        return data, header, None
    kind, pixels = _pillow_pixels(data)
    if max(pixels.shape) > _MAX_SIDE:
        raise BadImage(f"{pixels.shape[1]} x {pixels.shape[0]} pixels: a JPEG holds {_MAX_SIDE} a side")
    header = JpegHeader(pixels.shape[0], pixels.shape[1], 3, 8)
    return encode(pixels, quality=100), header, f"{kind} converted to RGB JPEG, quality 100"


def find_damage(data: bytes) -> str | None:
    """Decode a JPEG only to look for damage; returns a remark on a harmless flaw.

    Raises:
        BadImage: truncated, or damaged in mid-stream.
    """
    try:
        # Decoding the luma alone reads every entropy-coded bit; `strict` turns libjpeg's warnings into errors.
        simplejpeg.decode_jpeg(data, colorspace="GRAY", fastdct=True, strict=True)
    except ValueError as error:
        if "extraneous bytes before marker" not in str(error):
            raise BadImage(f"damaged JPEG: {error}") from None
        return f"kept with a harmless flaw: {error}"
    return None


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
        BadImage: as `decode`.
    """
    top, left, height, width = (side // 2 for side in window) if halve else window
    part = window_jpeg(np.frombuffer(data, np.uint8), window, margin=4 if halve else 2)
    if part is None or (halve and max(height, width) < 8):  # which the decoder may scale by 3/8
        return _decode(data, halve=halve)[top : top + height, left : left + width]
    pixels = _turbo_pixels(part.data, halve=halve)
    if halve:
        part = part._replace(top=part.top // 2, lefts=part.lefts >> 1)
    return align(pixels, part, height, width, 4 if halve else 8)


def _decode(data: bytes, *, halve: bool = False) -> np.ndarray:
    if not data:
        raise BadImage("the file is empty")
    header = read_header(data)
    if header is None or header.components == 4:
        raw = raw_pixels(data)
        pixels = _pillow_pixels(data)[1] if raw is None else raw
        return resize(pixels, pixels.shape[0] // 2, pixels.shape[1] // 2) if halve else pixels
    return _opencv_pixels(np.frombuffer(data, np.uint8), halve=halve)


def _opencv_pixels(data: np.ndarray, *, halve: bool) -> np.ndarray:
    mode = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    # The bit of REDUCED_GRAYSCALE_2 halves; beside COLOR_RGB it keeps the colours.
    decoded = cv2.imdecode(data, mode | cv2.IMREAD_REDUCED_GRAYSCALE_2 if halve else mode)
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
    except ValueError as error:
        raise BadImage(f"this JPEG cannot be decoded: {error}") from None


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
    header = read_header(data) if data else None
    if header is not None:
        return header.height, header.width
    if (raw := raw_pixels(data)) is not None:
        return raw.shape[0], raw.shape[1]
    pixels = _pillow_pixels(data)[1]
    return pixels.shape[0], pixels.shape[1]


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased bilinear resize, uint8 [H, W, 3] -> [height, width, 3]."""
    return resample(pixels, taps(pixels.shape[0], height), taps(pixels.shape[1], width))


def resized_shape(height: int, width: int, side: int, *, longest: bool = False) -> tuple[int, int]:
    """(height, width) scaled so that the short (or longest) side is ``side``, rounded down as torchvision's Resize."""
    reference = max(height, width) if longest else min(height, width)
    return max(1, height * side // reference), max(1, width * side // reference)


def center_view(data: bytes, size: tuple[int, int], resize_side: int, crop: int, out: np.ndarray) -> None:
    """Fill ``out``, uint8 [crop, crop, 3], with what torchvision's Resize(resize_side) and CenterCrop(crop) show.

    Args:
        data: the image file.
        size: its height and width, pixels.
        resize_side: short side before the crop, pixels.
        crop: side of the output, pixels; where the image is smaller, black surrounds it.
        out: contiguous.
    """
    if size == (crop, crop) and resize_side == crop:
        out[:] = decode(data)
        return
    axes, places = [], []
    for length, resized in zip(size, resized_shape(*size, resize_side)):
        count = min(crop, resized)
        axes.append(taps(length, resized, round((resized - count) / 2.0), count))
        places.append((crop - count) // 2)
    (top, bottom), (left, right) = (axis.span for axis in axes)
    pixels = decode_window(data, (top, left, bottom - top, right - left))
    vertical, horizontal = (axis._replace(first=axis.first - low) for axis, low in zip(axes, (top, left)))
    if len(vertical.first) == len(horizontal.first) == crop:
        resample(pixels, vertical, horizontal, out)
    else:
        out[:] = 0
        high, wide = len(vertical.first), len(horizontal.first)
        out[places[0] : places[0] + high, places[1] : places[1] + wide] = resample(pixels, vertical, horizontal)


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
