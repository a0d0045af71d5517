"""Whether an image file is sound, and whether what is stored in its place decodes to the same pixels."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from itertools import pairwise

import numpy as np
from tqdm import tqdm

from dataset.jpeg.decode import decode, decode_window, opencv_pixels
from dataset.jpeg.header import BadImage, is_complete, jpeg_header, read_header, scan_headers, without_stray_bytes
from dataset.jpeg.rgb import rgb_pixels
from dataset.jpeg.tiles import NotTiled, find_flaw, window_jpeg

# Decoding a progressive file visits every pixel at each scan: pixels times scans, as many as 16 scans of the largest.
_MAX_WORK = 1 << 30
_BEFORE_END = re.compile(r"Corrupt JPEG data: [12] extraneous bytes before marker 0xd9")


def find_damage(data: bytes) -> str | None:
    """A remark on a harmless flaw of an image file; None for one without.

    Raises:
        BadImage: as `sound_pixels`.
    """
    return sound_pixels(data)[1]


def sound_pixels(data: bytes, *, reduce: int = 1) -> tuple[np.ndarray, str | None]:
    """The pixels of a whole image file, RGB uint8 [H, W, 3], and a remark on a harmless flaw.

    Of a JPEG every entropy-coded bit is accounted for: by our own reading of a sequential scan, where up to two bytes
    more than its blocks need are harmless (encoders pad so) and libjpeg's warnings are of header fields that change no
    pixel; by libjpeg's warnings alone in other files, where only padding before the end marker is harmless.

    Args:
        data: the file.
        reduce: 2, 4 or 8 for pixels of a JPEG at that part of its size, scaled by the decoder.

    Raises:
        BadImage: truncated, damaged, no image, or too large.
    """
    header = read_header(data)
    if header is None:
        return rgb_pixels(data)[1], None
    walked, flaw = True, None
    if header.stray:
        data, flaw = without_stray_bytes(data, header), f"{header.stray} stray bytes between its header segments"
        header = jpeg_header(data)
    try:
        flaw = find_flaw(data) or flaw
    except NotTiled:
        walked = False
    scans = scan_headers(data, header)[: 1 if walked else None]
    if header.height * header.width * len(scans) > _MAX_WORK:
        raise BadImage(f"{len(scans)} scans of {header.width} x {header.height} pixels take too long: write it again")
    if not is_complete(data, header, scans):
        raise BadImage("truncated JPEG: its last scans are missing")
    pixels, warning = _decoded_with_warning(data, reduce)
    if warning and not walked and not _BEFORE_END.fullmatch(warning):
        raise BadImage(f"damaged JPEG: {warning}")
    if flaw or warning:
        flaw = f"kept with a harmless flaw: {flaw or warning}"
    return rgb_pixels(data)[1] if header.components == 4 else pixels, flaw


def prove(stored: bytes, pixels: np.ndarray) -> None:
    """Decode ``stored`` as training will, whole and in two windows, and compare with ``pixels``, uint8 [H, W, 3].

    Raises:
        BadImage: they differ.
    """
    height, width = pixels.shape[:2]
    if not np.array_equal(decode(stored), pixels):
        raise BadImage("what is stored for it decodes to other pixels")
    for left, right in pairwise(sorted({0, 3 * width // 7, width})):
        window = (0, left, height, right - left)
        if window_jpeg(np.frombuffer(stored, np.uint8), window) is None:
            return  # it is read whole
        if not np.array_equal(decode_window(stored, window), pixels[:, left:right]):
            raise BadImage("windows of what is stored for it decode to other pixels")


def _decoded_with_warning(data: bytes, reduce: int) -> tuple[np.ndarray, str]:
    """OpenCV's pixels, and libjpeg's first warning, which OpenCV passes on to the process's standard error alone.

    Under the lock of progress bars, which a thread of their own may draw there at any time.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tqdm.get_lock(), tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            pixels = opencv_pixels(np.frombuffer(data, np.uint8), reduce=reduce)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        return pixels, " ".join(file.read().decode(errors="replace").split())
