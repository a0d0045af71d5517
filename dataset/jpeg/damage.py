"""Whether an image file is sound."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from dataset.jpeg.decode import opencv_pixels
from dataset.jpeg.header import (
    BadImage,
    Header,
    is_complete,
    jpeg_header,
    read_header,
    scan_headers,
    without_stray_bytes,
)
from dataset.jpeg.rgb import rgb_pixels
from dataset.jpeg.tiles import NotTiled, Walk, walk

# Decoding a progressive file visits every pixel at each scan: pixels times scans, as many as 16 scans of the largest.
_MAX_WORK = 1 << 30
_BEFORE_END = re.compile(r"Corrupt JPEG data: [12] extraneous bytes before marker 0xd9")


class Sound(NamedTuple):
    """What was found out about a sound image file."""

    walk: Walk | None  # of a JPEG with one sequential scan, without the stray bytes between its header segments
    pixels: np.ndarray | None  # RGB uint8 [H, W, 3], where they were asked for
    remark: str | None  # on a harmless flaw


def find_damage(data: bytes) -> str | None:
    """A remark on a harmless flaw of an image file; None for one without.

    Raises:
        BadImage: as `examine`.
    """
    return examine(data, read_header(data)).remark


def sound_pixels(data: bytes) -> tuple[np.ndarray, str | None]:
    """The pixels of a whole image file, RGB uint8 [H, W, 3], and a remark on a harmless flaw.

    Raises:
        BadImage: as `examine`.
    """
    _, pixels, remark = examine(data, read_header(data), reduce=1)
    assert pixels is not None
    return pixels, remark


def examine(data: bytes, header: Header | None, *, reduce: int | None = None) -> Sound:
    """See that a whole image file is sound.

    Of a JPEG every entropy-coded bit is accounted for: by our own reading of a sequential scan, where up to two bytes
    more than its blocks need are harmless (encoders pad so); by libjpeg's warnings in other files, where only padding
    before the end marker is harmless. Files whose headers a decoder may refuse are decoded to see.

    Args:
        data: the file.
        header: what `read_header` made of it.
        reduce: 1 for its pixels; 2, 4 or 8 for those of a JPEG at that part of its size, scaled by the decoder.

    Raises:
        BadImage: truncated, damaged, no image, or too large.
    """
    if header is None:
        return Sound(None, rgb_pixels(data)[1], None)
    walked, flaw = None, None
    if header.stray:
        data, flaw = without_stray_bytes(data, header), f"{header.stray} stray bytes between its header segments"
        header = jpeg_header(data)
    try:
        walked = walk(data)
        flaw = walked.flaw or flaw
    except NotTiled:
        pass
    scans = [data[header.sos : header.scan]] if walked else scan_headers(data, header)
    if header.height * header.width * len(scans) > _MAX_WORK:
        raise BadImage(f"{len(scans)} scans of {header.width} x {header.height} pixels take too long: write it again")
    if not walked and not is_complete(data, header, scans):
        raise BadImage("truncated JPEG: its last scans are missing")
    pixels = None
    if walked and walked.frame.is_usual:
        warning = walked.frame.warning
        if reduce is not None:
            pixels = opencv_pixels(np.frombuffer(data, np.uint8), reduce=reduce)
    else:
        pixels, warning = _decoded_with_warning(data, reduce or 1)
        if warning and not walked and not _BEFORE_END.fullmatch(warning):
            raise BadImage(f"damaged JPEG: {warning}")
        if header.components == 4 and reduce is not None:
            pixels = rgb_pixels(data)[1]
    if flaw or warning:
        flaw = f"kept with a harmless flaw: {flaw or warning}"
    return Sound(walked, pixels, flaw)


def _decoded_with_warning(data: bytes, reduce: int) -> tuple[np.ndarray, str]:
    """OpenCV's pixels, and libjpeg's first warning, which OpenCV passes on to the process's standard error alone.

    Under the lock of progress bars, which a thread of their own may draw there at any time.
    """
    sys.stderr.flush()
    with tqdm.get_lock(), tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            pixels = opencv_pixels(np.frombuffer(data, np.uint8), reduce=reduce)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        return pixels, " ".join(file.read().decode(errors="replace").split())
