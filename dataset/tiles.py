"""Restart-tiled JPEG: a lossless rewrite after which a window of the image can be decoded alone.

Entropy decoding is most of a JPEG's decoding cost and is sequential, unless restart markers cut the scan into intervals
that stand alone. `tile` rewrites the entropy-coded segment with a restart marker every few MCUs and with Huffman tables
made for the file: the coefficients, and so every decoded pixel, stay as they are, and any JPEG reader reads the result.
`window_jpeg` copies the intervals under a window behind the same headers: a small, ordinary JPEG.

MCU: the 8 x 8 to 16 x 16 pixels that a JPEG codes together. Segments are those of ITU-T T.81, annex B.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from dataset import huffman
from dataset.scratch import scratch

# What a restart marker costs against what it saves, by measurement: 1 % more bytes on photos. And the time of a block
# beside that of a byte of entropy-coded data.
_EXCHANGE, _BLOCK_BYTES = 8.5, 3.3

_SOF0, _SOF1, _DHT, _SOS, _DRI = 0xC0, 0xC1, 0xC4, 0xDA, 0xDD
_OTHER_FRAMES = {0xC2: "progressive", 0xC3: "lossless", 0xC9: "arithmetic coded", 0xCA: "arithmetic coded"}


class NotTiled(ValueError):
    """A JPEG that is kept as it is; says why."""


class WindowJpeg(NamedTuple):
    """The part of a tiled JPEG that holds a window."""

    data: np.ndarray  # uint8, a JPEG file
    top: int  # of the window in it, pixels
    lefts: np.ndarray  # int64, of the window in each strip of MCUs
    aligned: bool  # all lefts are the same; otherwise strips are 8 pixels high


@dataclass(frozen=True)
class Frame:
    """What the headers of a sequential Huffman JPEG with one scan say."""

    head: list[bytes]  # the segments before SOS, without DHT and DRI
    sos: bytes
    scan: int  # position of the entropy-coded bytes
    restart: int  # MCUs between restart markers, 0 for none
    tables: dict[int, bytes]  # class << 4 | id -> 16 counts by length, then the values
    blocks: np.ndarray  # int64 [blocks of an MCU, 3]: component, DC table, AC table
    mcu: tuple[int, int]  # height and width, pixels
    mcus: tuple[int, int]  # rows and columns


def tile(data: bytes) -> bytes:
    """``data`` with a restart marker every few MCUs; the decoded pixels are identical.

    Segments before the scan (EXIF, ICC profile, comments, quantization) are kept; what follows the end marker is not.

    Raises:
        NotTiled: progressive, arithmetic, several scans, or entropy-coded data that does not end where it should.
    """
    frame = read_frame(data)
    mcus = frame.mcus[0] * frame.mcus[1]
    interval = _interval(frame, (len(data) - frame.scan) / mcus)
    symbols, counts, end = huffman.read_symbols(
        data, frame.scan, frame.blocks, mcus, (frame.restart, interval), huffman.decoders(frame.tables)
    )
    if data[end : end + 16].lstrip(b"\xff")[:1] != b"\xd9":
        raise NotTiled("its scan does not end where its size says")
    codes = np.zeros((4, 256), np.uint32)
    tables = b""
    for table in np.flatnonzero(counts.any(axis=1)):
        lengths, values = huffman.optimal_code(counts[table], codes[table])
        tables += bytes([(table & 1) << 4 | table >> 1]) + lengths.tobytes() + values.tobytes()
    scan = huffman.write_symbols(symbols, codes)
    head = [b"\xff\xd8", *frame.head, _segment(_DHT, tables), _segment(_DRI, interval.to_bytes(2, "big")), frame.sos]
    return b"".join(head) + scan + b"\xff\xd9"


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

    ``margin`` is how many pixels around the window upsampling of chroma looks at: 2, twice that at half size. The bytes
    hold until the next call. None when ``data`` is not tiled, or not so that it makes a rectangle: decode it whole.
    """
    strips = window[2] // 8 + 4  # at most
    jpeg = scratch("jpeg", 2 * (len(data) + strips))  # an interval over the end of a row may be needed in both rows
    lefts = np.empty(strips, np.int64)
    length, top, aligned = _cut(data, *window, margin, jpeg, lefts)
    return WindowJpeg(jpeg[:length], top, lefts, aligned) if length else None


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
    if frame.mcu[0] == 8:
        return least
    return next(size for size in range(least, columns + 1) if columns % size == 0)


def read_frame(data: bytes) -> Frame:
    """What the headers say.

    Raises:
        NotTiled: progressive, arithmetic, several scans, or damaged.
    """
    head: list[bytes] = []
    tables: dict[int, bytes] = {}
    sampling = b""
    restart = scan = 0
    for marker, segment, end in _segments(data):
        body = segment[4:]
        if marker == _DHT:
            _read_tables(body, tables)
        elif marker == _DRI:
            restart = int.from_bytes(body[:2], "big")
        elif marker == _SOS:
            scan = end
            break
        else:
            if marker in _OTHER_FRAMES:
                raise NotTiled(f"it is {_OTHER_FRAMES[marker]}")
            if marker in (_SOF0, _SOF1):
                sampling = body
            head.append(segment)
    count = sampling[5] if len(sampling) > 5 else 0
    if count not in (1, 3, 4) or sampling[0] != 8 or len(sampling) != 6 + 3 * count or len(body) != 4 + 2 * count:
        raise NotTiled("its components are not in one scan of 8 bits")
    factors = [(sampling[7 + 3 * number] >> 4, sampling[7 + 3 * number] & 15) for number in range(count)]
    if count == 1:
        factors = [(1, 1)]  # a scan of one component counts in single blocks
    widest, highest = (max(factor[axis] for factor in factors) for axis in (0, 1))
    blocks = []
    for number, (wide, high) in enumerate(factors):
        dc, ac = body[2 + 2 * number] >> 4, body[2 + 2 * number] & 15
        if body[1 + 2 * number] != sampling[6 + 3 * number] or dc not in tables or 0x10 | ac not in tables:
            raise NotTiled("its scan header names another component or Huffman table than the file has")
        blocks += [(number, 2 * dc, 2 * ac + 1)] * (wide * high)
    if not 1 <= len(blocks) <= 10:  # the most that the standard allows
        raise NotTiled("its sampling factors are not allowed")
    height, width = int.from_bytes(sampling[1:3], "big"), int.from_bytes(sampling[3:5], "big")
    mcu = (8 * highest, 8 * widest)
    mcus = (-(-height // mcu[0]), -(-width // mcu[1]))
    return Frame(head, segment, scan, restart, tables, np.array(blocks, np.int64), mcu, mcus)


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, bytes and end of each segment up to the first scan's header."""
    position = 2
    while True:
        while data[position : position + 2] == b"\xff\xff":  # fill bytes
            position += 1
        marker = data[position + 1] if position + 4 <= len(data) and data[position] == 0xFF else 0
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9 or end > len(data):
            raise NotTiled("its headers are damaged")
        yield marker, data[position:end], end
        position = end


def _read_tables(body: bytes, tables: dict[int, bytes]) -> None:
    while len(body) >= 17:
        size = 17 + sum(body[1:17])
        if body[0] & 0xEE or size > min(len(body), 17 + 256):
            raise NotTiled("it has a damaged Huffman table, or more than two of a class")
        tables[body[0]] = body[1:size]
        body = body[size:]


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (2 + len(body)).to_bytes(2, "big") + body


@njit(
    "Tuple((int64, int64, boolean))"
    "(Array(uint8, 1, 'C', readonly=True), int64, int64, int64, int64, int64, uint8[::1], int64[::1])",
    cache=True,
    nogil=True,
)
def _cut(
    data: np.ndarray, top: int, left: int, height: int, width: int, margin: int, out: np.ndarray, lefts: np.ndarray
) -> tuple[int, int, bool]:
    """Fill ``out``, ``lefts``; the JPEG's length (0: impossible), the window's top in it, whether all lefts agree."""
    # The headers, but for EXIF, profiles and comments. JFIF's and Adobe's segments say which colours components are.
    position, length, interval, frame = 2, 2, 0, 0
    out[0], out[1] = 0xFF, 0xD8
    marker = 0
    while marker != 0xDA:
        if position + 4 > len(data) or data[position] != 0xFF:
            return 0, 0, False
        marker = data[position + 1]
        end = position + 2 + (np.int64(data[position + 2]) << 8 | data[position + 3])
        if end > len(data) or end < position + 4 or (0xC2 <= marker <= 0xCF and marker != 0xC4):
            return 0, 0, False
        if marker == 0xDD:
            interval = np.int64(data[position + 4]) << 8 | data[position + 5]
        if marker == 0xC0 or marker == 0xC1:
            frame = length
            if end - position < 10 or end - position < 10 + 3 * np.int64(data[position + 9]):
                return 0, 0, False
        if marker <= 0xE0 or marker == 0xEE:
            out[length : length + end - position] = data[position:end]
            length += end - position
        position = end
    if not interval or not frame:
        return 0, 0, False

    # Which MCUs the window touches, and which intervals hold them.
    image_high = np.int64(out[frame + 5]) << 8 | out[frame + 6]
    image_wide = np.int64(out[frame + 7]) << 8 | out[frame + 8]
    high, wide = np.int64(8), np.int64(8)
    for component in range(np.int64(out[frame + 9]) if out[frame + 9] > 1 else 0):
        factors = np.int64(out[frame + 11 + 3 * component])
        high, wide = max(high, 8 * (factors & 15)), max(wide, 8 * (factors >> 4))
    rows, columns = -(-image_high // high), -(-image_wide // wide)
    intervals = -(-rows * columns // interval)
    aligned = columns % interval == 0
    at_edge = left < margin or left + width + margin > image_wide
    if not aligned and (high > 8 or (wide > 8 and at_edge)):
        return 0, 0, False
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
        return 0, 0, False
    out[frame + 5], out[frame + 6] = new_high >> 8, new_high & 255
    out[frame + 7], out[frame + 8] = new_wide >> 8, new_wide & 255

    # Where intervals end: markers are FF and not 00. Most blocks of 64 bytes hold none, which a vector loop tells.
    needed = min(intervals, ((end_row - 1) * columns + first) // interval + across)
    if needed > len(data):
        return 0, 0, False
    ends = np.empty(needed + 64, np.int64)
    found, block = 0, position
    while found < needed and block + 1 < len(data):
        size = min(64, len(data) - 1 - block)
        here = data[block : block + size + 1]
        markers = 0
        for at in range(size):
            markers += np.uint8((here[at] == 0xFF) & (here[at + 1] != 0))
        if markers:
            for at in range(size):
                if here[at] == 0xFF and here[at + 1] != 0:
                    ends[found] = block + at
                    found += 1
        block += size
    if found < needed:
        return 0, 0, False

    # The intervals of each row in one piece, restart markers renumbered.
    number = 0
    for row in range(first_row, end_row):
        start = min((row * columns + first) // interval, intervals - across)
        lefts[row - first_row] = left - (start * interval - row * columns) * wide
        begin = ends[start - 1] + 2 if start else position
        end = ends[start + across - 1]
        if length + end - begin + 4 > len(out):
            return 0, 0, False
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
    return length + 2, top - first_row * high, aligned
