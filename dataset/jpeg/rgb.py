"""Image files of every kind as the 8-bit RGB that a viewer shows, by Pillow."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image, UnidentifiedImageError

from dataset.jpeg.header import BadImage

MAX_PIXELS = 1 << 26  # 67 million, of an image at full size
Image.MAX_IMAGE_PIXELS = None  # the limit above stands in its place, and is no warning

_PNG = b"\x89PNG"
_PHOTOMETRIC = 262  # TIFF's tag
_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself with git lfs pull",
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a zip archive",
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript document",
    b"<?xml": "an XML document, perhaps SVG",
    b"<svg": "an SVG document",
    b"<!doctype html": "an HTML page, such as a server sends in place of a missing file",
    b"<html": "an HTML page, such as a server sends in place of a missing file",
    b"{": "JSON text",
}


def check_size(height: int, width: int, way_out: str = "") -> None:
    """Raises BadImage where an image has more than `MAX_PIXELS` pixels."""
    if height * width > MAX_PIXELS:
        raise BadImage(f"{width} x {height} pixels, the limit is {MAX_PIXELS:,}: shrink it beforehand{way_out}")


def rgb_pixels(data: bytes) -> tuple[str, np.ndarray]:
    """What kind of image it is, and its pixels, uint8 [H, W, 3]; of several frames the first.

    16-bit values give their eight high bits, floating-point values their range of 0 to 1, transparency shows white. The
    checksums of a PNG are compared.

    Raises:
        BadImage: it is no image, damaged, too large, or its values have no agreed meaning.
    """
    data = bytes(data)  # that of a shard is a memoryview
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            check_size(image.height, image.width)
            kind = f"{image.mode} {image.format}"
            pixels = as_rgb(image)
        if data.startswith(_PNG):  # decoding compares the checksums of some chunks alone
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                image.verify()
        return kind, pixels
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage(f"not an image that Pillow can read, but {describe(data)}") from None
    except Exception as error:  # damaged files make Pillow's plugins raise OSError, SyntaxError, RuntimeError, ...
        raise BadImage(f"not an image that Pillow can read: {error or type(error).__name__}") from None


def describe(data: bytes) -> str:
    """What a file that is no image seems to be."""
    if data[4:8] == b"ftyp":
        return "HEIC or another film format: convert it to JPEG or PNG beforehand"
    start = data[:64].lstrip().lower()
    for beginning, what in _BEGINNINGS.items():
        if start.startswith(beginning.lower()):
            return what
    if not data:
        return "an empty file"
    if not data.strip(b"\0"):
        return f"{len(data):,} bytes of zero"
    return f"a file that begins with {data[:12]!r}"


def as_rgb(image: Image.Image) -> np.ndarray:
    """Pixels, uint8 [H, W, 3].

    Raises:
        BadImage: its values have no agreed meaning.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        gray = _as_bytes(np.asarray(image))
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow passes over at 16 bits
            gray = 255 - gray
        return np.repeat(gray[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return np.asarray(Image.alpha_composite(white, image).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _as_bytes(gray: np.ndarray) -> np.ndarray:
    """Values of 16 bits, or between 0 and 1, as uint8; [H, W]. All below 256 they may be of 8 bits as well."""
    low, high = gray.min(), gray.max()
    if gray.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(255 * gray).astype(np.uint8)
    if gray.dtype.kind in "iu" and low >= 0 and (high == 0 or 1 << 8 <= high < 1 << 16):
        return (gray >> 8).astype(np.uint8)
    raise BadImage(f"its values reach from {low:g} to {high:g}, from which black and white do not follow: convert it")


@cache
def _formats() -> tuple[str, ...]:
    """Every format but EPS, which would run Ghostscript."""
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")
