"""Restart-tiled JPEG: a lossless rewrite after which a window of the image can be decoded alone.

Entropy decoding is most of a JPEG's decoding cost and is sequential, unless restart markers cut the scan into intervals
that stand alone. `tile` rewrites the entropy-coded segment with a restart marker every few MCUs and with Huffman tables
made for the file: the coefficients, and so every decoded pixel, stay as they are, and any JPEG reader reads the result.
`window_jpeg` copies the intervals under a window behind the same headers: a small, ordinary JPEG.

MCU: the 8 x 8 to 16 x 16 pixels that a JPEG codes together. Segments are those of ITU-T T.81, annex B.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit

from dataset.jpeg import huffman
from dataset.jpeg.header import (
    APP0,
    APP14,
    DHT,
    DQT,
    DRI,
    EOI,
    KINDS,
    SOI,
    BadImage,
    Header,
    can_be_cut,
    mcu_of,
    next_segment,
    parse,
    read_header,
    segments,
)
from dataset.jpeg.scratch import scratch

# What a restart marker costs against what it saves, by measurement: 1 % more bytes on photos. And the time of a block
# beside that of a byte of entropy-coded data.
_EXCHANGE, _BLOCK_BYTES = 8.5, 3.3
_FEWEST = 8  # pixels a side of a part: chroma two samples wide, of up to 4 pixels each, is not interpolated


class NotTiled(ValueError):
    """A JPEG that is kept as it is; with the reason."""


class WindowJpeg(NamedTuple):
    """The part of a tiled JPEG that holds a window."""

    data: np.ndarray  # uint8, a JPEG file
    top: int  # of the window in it, pixels
    lefts: np.ndarray  # int64, of the window in each strip of MCUs
    aligned: bool  # all lefts are the same; otherwise strips are 8 pixels high
    size: tuple[int, int]  # height and width that it decodes to, pixels


@dataclass(frozen=True)
class Frame:
    """What the headers of a sequential Huffman JPEG with one scan say."""

    header: Header
    head: list[bytes]  # the segments before SOS, without DHT and DRI
    tables: dict[int, bytes]  # class << 4 | id -> 16 counts by length, then the values
    blocks: np.ndarray  # int64 [blocks of an MCU, 3]: component, DC table, AC table
    quantization: np.ndarray  # int64 [components, 64]: steps in zigzag order

    @property
    def scan(self) -> int:
        """Position of the entropy-coded bytes."""
        return self.header.scan

    @property
    def mcus(self) -> tuple[int, int]:
        """Rows and columns of MCUs."""
        high, wide = mcu_of(self.header)
        return -(-self.header.height // high), -(-self.header.width // wide)


class _Walk(NamedTuple):
    """The entropy-coded data of a file, taken apart."""

    frame: Frame
    interval: int  # MCUs between the restart markers that it is written with
    symbols: np.ndarray
    counts: np.ndarray
    unread: int  # bytes


def tile(data: bytes) -> bytes:
    """``data`` with a restart marker every few MCUs; the decoded pixels are identical.

    Segments before the scan (EXIF, ICC profile, comments, quantization) are kept; what follows the end marker is not.

    Raises:
        NotTiled: progressive, arithmetic, several scans, CMYK, more than two Huffman tables of a class.
        BadImage: damaged.
    """
    frame, interval, symbols, counts, _ = _walk(data)
    header = frame.header
    if not can_be_cut(header):
        raise NotTiled("it is CMYK")
    codes = np.zeros((4, 256), np.uint32)
    tables = b""
    for table in np.flatnonzero(counts.any(axis=1)):
        lengths, values = huffman.optimal_code(counts[table], codes[table])
        tables += bytes([(table & 1) << 4 | table >> 1]) + lengths.tobytes() + values.tobytes()
    scan = huffman.write_symbols(symbols, codes)
    sos = data[header.sos : header.scan]
    head = [SOI, *frame.head, _segment(DHT, tables), _segment(DRI, interval.to_bytes(2, "big")), sos]
    return b"".join(head) + scan + EOI


def find_flaw(data: bytes) -> str | None:
    """A remark on a harmless flaw in the entropy-coded data of a JPEG with one sequential scan.

    Raises:
        NotTiled: of another kind.
        BadImage: damaged.
    """
    unread = _walk(data).unread
    return f"{unread} unread bytes in its entropy-coded data" if unread else None


@lru_cache(maxsize=1)
def _walk(data: bytes) -> _Walk:
    """Of a file that is searched for flaws and then tiled."""
    frame = read_frame(data)
    interval = _interval(frame, (len(data) - frame.scan) / (frame.mcus[0] * frame.mcus[1]))
    symbols, counts, end, unread = huffman.read_symbols(
        data,
        frame.scan,
        frame.blocks,
        frame.quantization,
        frame.mcus[0] * frame.mcus[1],
        (frame.header.restart, interval),
        huffman.decoders(frame.tables),
    )
    if end == len(data):
        raise BadImage("truncated JPEG: its end marker is missing")
    if data[end + 1] != EOI[1]:
        raise NotTiled("more than one scan follows its headers")
    return _Walk(frame, interval, symbols, counts, unread)


def align(pixels: np.ndarray, part: WindowJpeg, height: int, width: int, strip: int) -> np.ndarray:
    """The window, uint8 [height, width, 3], in the decoded ``part``, whose strips are ``strip`` pixels high."""
    if part.aligned:
        return pixels[part.top : part.top + height, part.lefts[0] : part.lefts[0] + width]
    out = scratch("aligned", height * width * 3).reshape(height, width * 3)
    _align(pixels.reshape(len(pixels), -1), part.top, 3 * part.lefts, strip, out)
    return out.reshape(height, width, 3)


@njit("void(uint8[:, ::1], int64, int64[::1], int64, uint8[:, ::1])", cache=True, nogil=True)
def _align(pixels: np.ndarray, top: int, lefts: np.ndarray, strip: int, out: np.ndarray) -> None:
    width = out.shape[1]
    for row in range(len(out)):
        left = lefts[(top + row) // strip]
        to, of = out[row], pixels[top + row, left : left + width]
        for x in range(width):
            to[x] = of[x]


def window_jpeg(data: np.ndarray, window: tuple[int, int, int, int], margin: int = 2) -> WindowJpeg | None:
    """The intervals of ``data``, uint8 [bytes], under ``window`` (top, left, height, width), as a JPEG.

    ``margin`` is how many pixels around the window upsampling of chroma reads: 2, twice that at half size. The bytes
    hold until the next call. None when ``data`` is not tiled, or not so that it makes a rectangle, or one too small:
    decode it whole.
    """
    strips = max(window[2], 0) // 8 + 4  # at most
    jpeg = scratch("jpeg", 2 * (len(data) + strips))  # an interval over the end of a row may be needed in both rows
    lefts = np.empty(strips, np.int64)
    length, top, aligned, high, wide = _cut(data, *window, margin, jpeg, lefts)
    if not length or min(high, wide) <= _FEWEST:
        return None
    strips = 1 if aligned else -(-high // 8)
    return WindowJpeg(jpeg[:length], top, lefts[:strips], bool(aligned), (high, wide))


def _interval(frame: Frame, mcu_bytes: float) -> int:
    """MCUs between restart markers, of ``mcu_bytes`` each; a divisor of the row where rows share chroma samples.

    A window's decoding takes in about one interval a row too many; the markers' number is inverse to the interval. The
    least of time plus weighted bytes lies at the square root. Where upsampling of chroma does not mix rows, the rows of
    a window may begin at different columns and are shifted into place after decoding (all but windows at the edge of an
    image, where upsampling ends). Elsewhere they may not, and a row of a prime number of MCUs is one interval.
    """
    columns = frame.mcus[1]
    best = _EXCHANGE * (columns / (_BLOCK_BYTES * len(frame.blocks) + mcu_bytes)) ** 0.5
    least = min(max(round(best), 1), columns)
    if mcu_of(frame.header)[0] == 8:
        return least
    return next(size for size in range(least, columns + 1) if columns % size == 0)


def read_frame(data: bytes) -> Frame:
    """The contents of the headers.

    Raises:
        NotTiled, BadImage: as `tile`.
    """
    header = read_header(data)
    if header is None:
        raise NotTiled("it is no JPEG")
    if header.sof in KINDS:
        raise NotTiled(f"it is {KINDS[header.sof]}")
    if not header.interleaved:
        raise NotTiled("its components are not in one scan of 8 bits")
    head: list[bytes] = []
    tables: dict[int, bytes] = {}
    steps: dict[int, np.ndarray] = {}
    for marker, segment in segments(data, header):
        if marker == DHT:
            _read_tables(segment[4:], tables)
        elif marker == DQT:
            _read_steps(segment[4:], steps)
        if marker not in (DHT, DRI):
            head.append(segment)
    scan, components = data[header.sos + 5 : header.scan], data[header.frame + 10 :]
    blocks, quantization = [], []
    for number in range(header.components):
        dc, ac = scan[2 * number + 1] >> 4, scan[2 * number + 1] & 15
        if scan[2 * number] != components[3 * number] or dc not in tables or 0x10 | ac not in tables:
            raise BadImage("damaged JPEG: its scan names another component or Huffman table than the file has")
        if components[3 * number + 2] not in steps:
            raise BadImage("damaged JPEG: a quantization table is missing")
        factor = components[3 * number + 1] if header.components > 1 else 0x11
        blocks += [(number, 2 * dc, 2 * ac + 1)] * ((factor >> 4) * (factor & 15))
        quantization.append(steps[components[3 * number + 2]])
    if len(blocks) > 10:  # the most that the standard allows
        raise BadImage("damaged JPEG: its sampling factors are not allowed")
    return Frame(header, head, tables, np.array(blocks, np.int64), np.array(quantization, np.int64))


def _read_steps(body: bytes, steps: dict[int, np.ndarray]) -> None:
    """T.81 B.2.4.1."""
    while body:
        size = 129 if body[0] >> 4 else 65
        if body[0] >> 4 > 1 or len(body) < size:
            raise BadImage("damaged JPEG: a quantization table of impossible length")
        table = np.frombuffer(body[1:size], ">u2" if body[0] >> 4 else np.uint8).astype(np.int64)
        if not table.all():
            raise BadImage("damaged JPEG: a quantization step of zero")
        steps[body[0] & 15] = table
        body = body[size:]


def _read_tables(body: bytes, tables: dict[int, bytes]) -> None:
    while len(body) >= 17:
        size = 17 + sum(body[1:17])
        if body[0] & 0xEC or size > min(len(body), 17 + 256):
            raise BadImage("damaged JPEG: a Huffman table makes no sense")
        if body[0] & 0x02:
            raise NotTiled("it has more than two Huffman tables of a class")
        tables[body[0]] = body[1:size]
        body = body[size:]


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (2 + len(body)).to_bytes(2, "big") + body


@njit("boolean(Array(uint8, 1, 'C', readonly=True), int64, int64, int64[::1])", cache=True, nogil=True)
def _find_ends(data: np.ndarray, position: int, intervals: int, ends: np.ndarray) -> bool:
    """Fill ``ends`` with those of the first of all ``intervals``: whether they are there, and their markers in turn.

    Markers are FF before neither 00 nor FF. Most blocks of 64 bytes hold no FF before anything but 00, which a vector
    loop tells. A marker out of turn would send a decoder of the whole image elsewhere.
    """
    found, block = 0, position
    while found < len(ends) and block + 1 < len(data):
        size = min(64, len(data) - 1 - block)
        here = data[block : block + size + 1]
        markers = 0
        for at in range(size):
            markers += np.uint8((here[at] == 0xFF) & (here[at + 1] != 0))
        if markers:
            for at in range(size):
                if here[at] == 0xFF and here[at + 1] != 0 and here[at + 1] != 0xFF and found < len(ends):
                    if found < intervals - 1 and here[at + 1] != 0xD0 | found & 7:
                        return False
                    ends[found] = block + at
                    found += 1
        block += size
    return found == len(ends)


@njit(
    "UniTuple(int64, 5)"
    "(Array(uint8, 1, 'C', readonly=True), int64, int64, int64, int64, int64, uint8[::1], int64[::1])",
    cache=True,
    nogil=True,
)
def _cut(
    data: np.ndarray, top: int, left: int, height: int, width: int, margin: int, out: np.ndarray, lefts: np.ndarray
) -> tuple[int, int, int, int, int]:
    """Fill ``out``, ``lefts``; the JPEG's length (0: impossible), the window's top in it, whether all lefts agree, its
    height and width.
    """
    header = parse(data)
    interval, image_high, image_wide = header.restart, header.height, header.width
    if header.problem or data[0] != 0xFF or data[1] != 0xD8 or not interval or not can_be_cut(header):
        return 0, 0, 0, 0, 0
    if min(top, left) < 0 or min(height, width) < 1 or top + height > image_high or left + width > image_wide:
        return 0, 0, 0, 0, 0

    # The headers, but for EXIF, profiles and comments. JFIF's and Adobe's segments say which colours components are.
    length, frame = 2, 0
    out[0], out[1] = 0xFF, 0xD8
    position = 2
    while position < header.scan:
        segment = next_segment(data, position)
        if segment.start == header.frame:
            frame = length
        if segment.marker <= APP0 or segment.marker == APP14:
            size = segment.end - segment.start
            out[length : length + size] = data[segment.start : segment.end]
            length += size
        position = segment.end

    # Which MCUs the window touches, and which intervals hold them.
    high, wide = mcu_of(header)
    rows, columns = -(-image_high // high), -(-image_wide // wide)
    intervals = -(-rows * columns // interval)
    aligned = columns % interval == 0
    at_edge = left < margin or left + width + margin > image_wide
    if not aligned and (high > 8 or (wide > 8 and at_edge)):
        return 0, 0, 0, 0, 0
    margin = margin if high > 8 or wide > 8 else 0
    first_row, end_row = max(0, top - margin) // high, -(-min(image_high, top + height + margin) // high)
    first, end_column = max(0, left - margin) // wide, -(-min(image_wide, left + width + margin) // wide)
    if aligned:
        across = -(-end_column // interval) - first // interval
        new_wide = min(image_wide, (first // interval + across) * interval * wide) - first // interval * interval * wide
    else:  # enough for any phase between the row's first column and the interval that holds it
        across = min(intervals, (end_column - first - 1 + interval - 1) // interval + 1)
        new_wide = across * interval * wide
    new_high = min(image_high, end_row * high) - first_row * high
    if new_wide > 65500:
        return 0, 0, 0, 0, 0
    out[frame + 5], out[frame + 6] = new_high >> 8, new_high & 255
    out[frame + 7], out[frame + 8] = new_wide >> 8, new_wide & 255

    needed = min(intervals, ((end_row - 1) * columns + first) // interval + across)
    if needed > len(data):
        return 0, 0, 0, 0, 0
    ends = np.empty(needed, np.int64)
    if not _find_ends(data, position, intervals, ends):
        return 0, 0, 0, 0, 0

    # The intervals of each row in one piece, restart markers renumbered.
    number = 0
    for row in range(first_row, end_row):
        start = min((row * columns + first) // interval, intervals - across)
        lefts[row - first_row] = left - (start * interval - row * columns) * wide
        begin = ends[start - 1] + 2 if start else position
        end = ends[start + across - 1]
        if length + end - begin + 4 > len(out):
            return 0, 0, 0, 0, 0
        if row > first_row:
            out[length], out[length + 1] = 0xFF, 0xD0 | (number - 1) & 7
            length += 2
        out[length : length + end - begin] = data[begin:end]
        for each in range(start, start + across - 1):
            out[length + ends[each] - begin + 1] = 0xD0 | number & 7
            number += 1
        number += 1
        length += end - begin
    out[length], out[length + 1] = 0xFF, 0xD9
    return length + 2, top - first_row * high, np.int64(aligned), new_high, new_wide
