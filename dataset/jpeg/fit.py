"""An image file as the bytes that a record stores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataset.jpeg.damage import Sound, examine
from dataset.jpeg.decode import opencv_pixels
from dataset.jpeg.header import BadImage, Header, jpeg_header, read_header
from dataset.jpeg.images import as_jpeg, encode, resized_shape
from dataset.jpeg.resize import resize
from dataset.jpeg.rgb import MAX_PIXELS, check_size
from dataset.jpeg.tiles import NotTiled, compare, tiled, walk

MAX_STORED = 1 << 26  # 67 MB, of an image in a record


@dataclass(frozen=True)
class Fitting:
    """How an image file is to be stored.

    Attributes:
        image_size: short side to shrink it to, pixels; None keeps its size.
        longest_side: whether that is the longest side.
        quality: of a shrunk JPEG, 1 to 100.
        tiles: whether to put restart markers in, so that windows can be decoded alone.
        check: whether to search for damage, and to compare what is stored with the file.
    """

    image_size: int | None = None
    longest_side: bool = False
    quality: int = 95
    tiles: bool = True
    check: bool = True


def fit(data: bytes, fitting: Fitting) -> tuple[bytes, int, int, str | None]:
    """Bytes to store, height and width of the image in them, and a remark.

    With ``fitting.check`` the file is sound, and what is stored decodes to the same pixels: it is the file itself, or
    its coefficients read back.

    Raises:
        BadImage: the file is damaged, no image, or too large.
    """
    sound, remark, untiled = Sound(None, None, None), None, None
    header = read_header(data)
    reduce = 1 if header is None else _reduction(header, fitting)
    if header is not None:
        check_size(header.height // reduce, header.width // reduce, ", or by --image_size")
    if fitting.check:
        shrinks = header is not None and _smaller(header, fitting) is not None
        sound = examine(data, header, reduce=reduce if shrinks else None)
    if header is None or reduce == 1:
        given = data
        data, header, remark = as_jpeg(given)
        if data is not given:
            sound = Sound(None, None, None)
    shape = _smaller(header, fitting)
    if shape is not None:
        pixels = sound.pixels
        if pixels is None:
            pixels = opencv_pixels(np.frombuffer(data, np.uint8), reduce=reduce)
        data, sound = encode(resize(pixels, *shape), quality=fitting.quality), Sound(None, None, sound.remark)
        header = jpeg_header(data)
    stored = data
    if fitting.tiles:
        try:
            walked = sound.walk or walk(data)
            stored = tiled(walked)
            if fitting.check:
                compare(stored, walked)
        except NotTiled as reason:
            untiled = f"kept untiled: {reason}"
    if len(stored) > MAX_STORED:
        raise BadImage(f"{len(stored):,} bytes to store, the limit is {MAX_STORED:,}; --image_size makes them fewer")
    return stored, header.height, header.width, "; ".join(filter(None, (remark, untiled, sound.remark))) or None


def _smaller(header: Header, fitting: Fitting) -> tuple[int, int] | None:
    """Height and width that the image is to be shrunk to; it is never enlarged."""
    if fitting.image_size is None:
        return None
    shape = resized_shape(header.height, header.width, fitting.image_size, longest=fitting.longest_side)
    return shape if shape[0] < header.height or shape[1] < header.width else None


def _reduction(header: Header, fitting: Fitting) -> int:
    """By how much the decoder scales an image down that is too large at full size, and is to be shrunk by more.

    Only a sequential scan is decoded in little memory: of other files libjpeg keeps every coefficient.
    """
    shape, reduce = _smaller(header, fitting), 1
    while (
        shape is not None
        and header.interleaved
        and reduce < 8
        and header.height * header.width > MAX_PIXELS * reduce**2
        and min(header.height // shape[0], header.width // shape[1]) >= 2 * reduce
    ):
        reduce *= 2
    return reduce
