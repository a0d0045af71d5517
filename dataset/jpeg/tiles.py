"""Restart-tiled JPEG: a lossless rewrite after which a window of the image can be decoded alone.

Entropy decoding is most of a JPEG's decoding cost and is sequential, unless restart markers cut the scan into intervals
that stand alone. `tile` rewrites the entropy-coded segment with a restart marker every few MCUs and with Huffman tables
made for the file: the coefficients, and so every decoded pixel, stay as they are, and any JPEG reader reads the result.
`decode.decode_window` and `views.show_planes` decode only the intervals under a window.

MCU: the 8 x 8 to 16 x 16 pixels that a JPEG codes together. Segments are those of ITU-T T.81, annex B.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dataset.jpeg.codec import library, readable, writable
from dataset.jpeg.header import KINDS, SOI, BadImage, Header, jpeg_header
from dataset.jpeg.scratch import scratch

# What a restart marker costs against what it saves, by measurement: 1.3 % more bytes on photos. And the time of a block
# beside that of a byte of entropy-coded data.
_EXCHANGE, _BLOCK_BYTES = 7.0, 3.3
_ROOM = 4096  # bytes and symbols that a damaged MCU may read too far


# By the numbers that src/pack.h gives them.
_PROBLEMS = {
    1: "damaged JPEG: a code that its Huffman tables lack",
    2: "damaged JPEG: a block of more than 64 coefficients",
    3: "damaged JPEG: coefficients that no pixels have",
    4: "damaged JPEG: its entropy-coded data end too early",
    5: "damaged JPEG: unread bytes after its entropy-coded data",
    6: "damaged JPEG: its restart markers are missing or out of order",
    7: "truncated JPEG: its end marker is missing",
    8: "damaged JPEG: a quantization table of impossible length or number",
    9: "damaged JPEG: a quantization step of zero",
    10: "damaged JPEG: a Huffman table makes no sense",
    11: "damaged JPEG: its scan names another component or Huffman table than the file has",
    12: "damaged JPEG: a quantization table is missing",
    13: "damaged JPEG: its sampling factors are not allowed",
}
_OTHER_KIND = 14
_OTHERS = {
    15: "its components are not in one scan of 8 bits",
    16: "it has more than two Huffman tables of a class",
    17: "more than one scan follows its headers",
}


class NotTiled(ValueError):
    """A JPEG that is kept as it is; with the reason."""


class _Frame(ctypes.Structure):
    """`Frame` of src/pack.h: the headers, with what is read of the tables in the bytes at the end."""

    _fields_ = (
        ("header", ctypes.c_int64 * len(Header._fields)),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("blocks", ctypes.c_int64),
        ("unusual", ctypes.c_int64),
        ("warning", ctypes.c_int64),
        ("tables", ctypes.c_uint8 * 1640),
    )


@dataclass(frozen=True)
class Frame:
    """What the headers of a sequential Huffman JPEG with one scan say."""

    header: Header
    mcus: tuple[int, int]  # rows and columns
    blocks: int  # of an MCU
    compiled: _Frame

    @property
    def is_usual(self) -> bool:
        """Whether every decoder reads the headers.

        They are of gray or colour, of the usual segments, of components that can be told apart, and of chroma that is
        upsampled by whole numbers.
        """
        return not self.compiled.unusual

    @property
    def warning(self) -> str:
        """What libjpeg warns of in them, though it changes no pixel."""
        kind, value = self.compiled.warning & 255, self.compiled.warning >> 8
        if kind == 1:
            return f"Warning: unknown JFIF revision number {value >> 8}.{value & 255:02d}"
        if kind == 2:
            return f"Unknown Adobe color transform code {value}"
        return "Invalid SOS parameters for sequential JPEG" if kind else ""


class Walk(NamedTuple):
    """The entropy-coded data of a file, taken apart."""

    data: bytes  # the file
    frame: Frame
    interval: int  # MCUs between the restart markers that it is to be written with
    symbols: np.ndarray  # uint32, as src/pack.h has them; they hold until the next walk
    counts: np.ndarray  # int64 [4 * 256], how often each occurs
    unread: int  # bytes left over at the end of intervals

    @property
    def flaw(self) -> str | None:
        """A remark where encoders padded."""
        return f"{self.unread} unread bytes in its entropy-coded data" if self.unread else None


def tile(data: bytes) -> bytes:
    """``data`` with a restart marker every few MCUs; the decoded pixels are identical.

    Segments before the scan (EXIF, ICC profile, comments, quantization) are kept; what follows the end marker is not.

    Raises:
        NotTiled: progressive, arithmetic, several scans, CMYK, more than two Huffman tables of a class.
        BadImage: damaged.
    """
    return tiled(walk(data))


def walk(data: bytes) -> Walk:
    """Every entropy-coded bit of a JPEG with one sequential scan, accounted for.

    Raises:
        NotTiled: of another kind.
        BadImage: damaged.
    """
    frame = read_frame(data)
    mcus = frame.mcus[0] * frame.mcus[1]
    interval = _interval(frame, (len(data) - frame.header.scan) / mcus)
    # A symbol takes a bit at least, a block 64 symbols at most.
    most = min(8 * len(data), 64 * frame.blocks * mcus) + mcus + _ROOM
    symbols, clean = scratch("symbols", 4 * most).view(np.uint32), scratch("clean", len(data) + _ROOM)
    results = np.empty(3 + 4 * 256, np.int64)
    problem = library.pack_walk(
        readable(data),
        len(data),
        ctypes.byref(frame.compiled),
        interval,
        writable(clean),
        writable(symbols),
        writable(results),
    )
    _refuse(problem)
    return Walk(data, frame, interval, symbols[: results[0]], results[3:], int(results[2]))


def tiled(walked: Walk) -> bytes:
    """The file that was walked, with restart markers.

    Raises:
        NotTiled: it is CMYK.
    """
    data, frame, interval, symbols, counts, _ = walked
    if not frame.header.can_be_cut:
        raise NotTiled("it is CMYK")
    out = scratch("packed", len(data) + 8 * len(symbols) + _ROOM)
    length = library.pack_write(
        readable(data),
        len(data),
        ctypes.byref(frame.compiled),
        interval,
        writable(symbols),
        len(symbols),
        writable(counts),
        writable(out),
    )
    return out[:length].tobytes()


def compare(stored: bytes, walked: Walk) -> None:
    """Read ``stored`` back and see that it is the file that was walked, with restart markers.

    Its headers are the same but for Huffman tables and the restart interval; its entropy-coded data are, bit for bit,
    the same coefficients and markers in turn. So every decoder makes the same pixels of both.

    Raises:
        BadImage: it is not.
    """
    data, _, interval, symbols, _, _ = walked
    clean = scratch("clean", len(stored) + _ROOM)
    if not library.pack_compare(
        readable(data), len(data), stored, len(stored), interval, writable(symbols), len(symbols), writable(clean)
    ):
        raise BadImage("what is stored for it does not read back with its coefficients, so it decodes to other pixels")


def _interval(frame: Frame, mcu_bytes: float) -> int:
    """MCUs between restart markers, of ``mcu_bytes`` each.

    A window's decoding takes in half an interval a row too many; the markers' number is inverse to the interval. The
    least of time plus weighted bytes lies at the square root.
    """
    columns = frame.mcus[1]
    best = _EXCHANGE * (columns / (_BLOCK_BYTES * frame.blocks + mcu_bytes)) ** 0.5
    return min(max(round(best), 1), columns)


def read_frame(data: bytes) -> Frame:
    """The contents of the headers.

    Raises:
        NotTiled, BadImage: as `tile`.
    """
    if data[:2] != SOI:
        raise NotTiled("it is no JPEG")
    compiled = _Frame()
    problem = library.pack_frame(readable(data), len(data), ctypes.byref(compiled))
    if problem == _OTHER_KIND:
        header = jpeg_header(data)
        raise NotTiled(f"it is {KINDS.get(header.sof, 'coded in a rare way')}")
    _refuse(problem)
    return Frame(Header(*compiled.header), (compiled.rows, compiled.columns), compiled.blocks, compiled)


def _refuse(problem: int) -> None:
    """Raises NotTiled or BadImage for a problem of src/pack.h, unless it is 0."""
    if problem in _OTHERS:
        raise NotTiled(_OTHERS[problem])
    if problem:
        raise BadImage(_PROBLEMS[problem])
