"""The headers of a JPEG file, read in one place for the packer, the cutter of windows and the decoders.

What stands before the entropy-coded bytes of the first scan, as libjpeg reads it: fill bytes and stray bytes between
segments are passed over, two frame headers or a segment of impossible length are errors. Segments and markers are those
of ITU-T T.81, annex B; compiled, for a window of a record is cut out at every read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import njit, types

from utils.errors import DataError

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
DHT, SOS, DQT, DRI, APP0, APP14 = 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xEE

# Ways of decoding: sequential Huffman, and those that are never tiled.
KINDS = {0xC2: "progressive", 0xC3: "lossless", 0xC9: "arithmetic coded", 0xCA: "arithmetic coded"}
_PROBLEMS = {
    1: "truncated JPEG: it ends before its first scan",
    2: "damaged JPEG: a header segment of impossible length",
    3: "damaged JPEG: two frame headers",
    4: "damaged JPEG: its frame header makes no sense",
    5: "damaged JPEG: its scan header makes no sense",
    6: "damaged JPEG: no frame header before the first scan",
}


class BadImage(DataError):
    """An image that cannot be read whole; with the reason, to which the caller adds its name."""


class Segment(NamedTuple):
    """A piece of the headers: the bytes from its marker, FF, to its end."""

    marker: int  # 0 where there is none
    start: int
    end: int
    stray: int  # bytes before it that belong to no segment


class Header(NamedTuple):
    """The contents of the headers; numbers alone, for compiled loops."""

    problem: int  # 0, or a key of _PROBLEMS; the rest holds only without one
    sof: int  # marker of the frame header
    frame: int  # its position
    precision: int  # bits a sample
    height: int  # pixels
    width: int
    components: int  # 1 gray, 3 colour, 4 CMYK
    factors: int  # sampling factors, horizontal << 4 | vertical, a byte a component, the first one lowest
    sos: int  # position of the first scan's header
    scan: int  # of the first entropy-coded byte
    in_scan: int  # components of the first scan
    restart: int  # MCUs between restart markers, 0 for none
    stray: int  # bytes that belong to no segment

    @property
    def mcu(self) -> tuple[int, int]:
        """Height and width of an MCU, pixels; the components of the frame are in one scan."""
        return mcu_of(self)

    @property
    def chroma(self) -> str:
        """Sampling in the usual notation: 4:2:0, gray, or the factors themselves."""
        if self.components == 1:
            return "gray"
        factors = [(one >> 4, one & 15) for one in self.factors.to_bytes(4, "little")[: self.components]]
        known = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
        if factors[0] in known and set(factors[1:]) == {(1, 1)}:
            return known[factors[0]]
        return ", ".join(f"{wide}x{high}" for wide, high in factors)

    @property
    def interleaved(self) -> bool:
        """Whether the first scan is the whole image, of 8 bits, sequential and Huffman coded."""
        return is_interleaved(self)


_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_SEGMENT = types.NamedUniTuple(types.int64, len(Segment._fields), Segment)
_HEADER = types.NamedUniTuple(types.int64, len(Header._fields), Header)


def read_header(data: bytes | np.ndarray) -> Header | None:
    """The headers of a JPEG, None for a file of another kind.

    Raises:
        BadImage: ``data`` begins as a JPEG, but no decoder would get as far as its first scan.
    """
    if bytes(data[:2]) != SOI:
        return None
    header = parse(np.frombuffer(data, np.uint8))
    if header.problem:
        raise BadImage(_PROBLEMS[header.problem])
    return header


def jpeg_header(data: bytes) -> Header:
    """As `read_header`, of bytes that are a JPEG."""
    header = read_header(data)
    assert header is not None
    return header


def segments(data: bytes, header: Header) -> Iterator[tuple[int, bytes]]:
    """Marker and bytes of each segment before the first scan's header."""
    array, position = np.frombuffer(data, np.uint8), 2
    while True:
        segment = next_segment(array, position)
        if segment.start >= header.sos:
            return
        yield segment.marker, data[segment.start : segment.end]
        position = segment.end


def without_stray_bytes(data: bytes, header: Header) -> bytes:
    """A JPEG without the bytes between its header segments that belong to none."""
    return SOI + b"".join(segment for _, segment in segments(data, header)) + data[header.sos :]


def scan_headers(data: bytes, header: Header) -> list[bytes]:
    """The headers of all scans before the end marker; what follows that, such as a film, is none of the image."""
    array, position, scans = np.frombuffer(data, np.uint8), header.scan, [data[header.sos : header.scan]]
    while (segment := next_segment(array, position)).marker not in (0, EOI[1]):
        if segment.marker == SOS:
            scans.append(data[segment.start : segment.end])
        position = segment.end
    return scans


def is_complete(data: bytes, header: Header, scans: list[bytes]) -> bool:
    """Whether the scans bring every coefficient of every component to its last bit (T.81 G.1.1)."""
    start = header.frame + 10
    missing = {data[start + 3 * number]: set(range(64)) for number in range(header.components)}
    for scan in scans:
        first, last, precision = scan[-3:] if header.sof in (0xC2, 0xCA) else (0, 63, 0)
        for component in scan[5:-3:2]:
            if precision & 15 == 0 and component in missing:
                missing[component] -= set(range(first, last + 1))
    return not any(missing.values())


@njit(_SEGMENT(_BYTES, types.int64), cache=True, nogil=True)
def next_segment(data: np.ndarray, position: int) -> Segment:
    """The first segment from ``position`` on."""
    stray, size = 0, len(data)
    while True:
        while position < size and data[position] != 0xFF:
            stray += 1
            position += 1
        while position + 1 < size and data[position + 1] == 0xFF:  # fill bytes
            position += 1
        if position + 4 > size:
            return Segment(0, size, size, stray)
        marker = np.int64(data[position + 1])
        if marker == 0 or marker == 1 or 0xD0 <= marker <= 0xD7:  # no marker, or one without a segment
            stray += 2
            position += 2
            continue
        end = position + 2 + (np.int64(data[position + 2]) << 8 | np.int64(data[position + 3]))
        return Segment(marker, position, end, stray)


@njit(_HEADER(_BYTES), cache=True, nogil=True)
def parse(data: np.ndarray) -> Header:
    """The headers of ``data``, uint8 [bytes], which begins as a JPEG."""
    position, stray, restart = 2, 0, 0
    sof, frame, height, width, precision, components, factors = 0, 0, 0, 0, 0, 0, 0
    problem = 0
    while True:
        segment = next_segment(data, position)
        stray += segment.stray
        marker, start, end = segment.marker, segment.start, segment.end
        if marker == 0 or end > len(data):
            problem = 1
        elif marker < 0xC0 or marker == 0xD8 or marker == 0xD9 or end < start + 4:
            problem = 2
        elif 0xC0 <= marker <= 0xCF and marker != 0xC4 and marker != 0xC8 and marker != 0xCC:
            size = end - start - 4
            if sof:
                problem = 3
            elif size < 6 or size != 6 + 3 * np.int64(data[start + 9]):
                problem = 4
            else:
                sof, frame, precision = marker, start, np.int64(data[start + 4])
                height = np.int64(data[start + 5]) << 8 | np.int64(data[start + 6])
                width = np.int64(data[start + 7]) << 8 | np.int64(data[start + 8])
                components = np.int64(data[start + 9])
                if height == 0 or width == 0 or not 1 <= components <= 4:
                    problem = 4
                else:
                    for component in range(components):
                        factor = np.int64(data[start + 11 + 3 * component])
                        if not (1 <= factor >> 4 <= 4 and 1 <= factor & 15 <= 4):
                            problem = 4
                        factors |= factor << 8 * component
        elif marker == 0xDD:
            if end - start != 6:
                problem = 2
            else:
                restart = np.int64(data[start + 4]) << 8 | np.int64(data[start + 5])
        elif marker == 0xDA:
            in_scan = np.int64(data[start + 4]) if end > start + 4 else np.int64(0)
            if not sof:
                problem = 6
            elif not 1 <= in_scan <= components or end - start != 8 + 2 * in_scan:
                problem = 5
            else:
                return Header(
                    0, sof, frame, precision, height, width, components, factors, start, end, in_scan, restart, stray
                )
        if problem:
            return Header(problem, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        position = end


@njit(types.UniTuple(types.int64, 2)(_HEADER), cache=True, nogil=True)
def mcu_of(header: Header) -> tuple[int, int]:
    """Height and width of an MCU, pixels; a scan of one component counts in single blocks."""
    high, wide = np.int64(1), np.int64(1)
    for component in range(header.components if header.components > 1 else 0):
        factor = header.factors >> 8 * component & 255
        high, wide = max(high, factor & 15), max(wide, factor >> 4)
    return 8 * high, 8 * wide


@njit(types.boolean(_HEADER), cache=True, nogil=True)
def is_interleaved(header: Header) -> bool:
    """`Header.interleaved`, for compiled loops."""
    sequential = header.sof == 0xC0 or header.sof == 0xC1
    return sequential and header.precision == 8 and header.in_scan == header.components


@njit(types.boolean(_HEADER), cache=True, nogil=True)
def can_be_cut(header: Header) -> bool:
    """Whether windows can be cut out between restart markers: one sequential Huffman scan, gray or three components."""
    return is_interleaved(header) and (header.components == 1 or header.components == 3)
