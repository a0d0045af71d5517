"""The headers of a JPEG file, read in one place for the packer, the cutter of windows and the decoders.

What stands before the entropy-coded bytes of the first scan, as libjpeg reads it: fill bytes and stray bytes between
segments are passed over, two frame headers or a segment of impossible length are errors. Segments and markers are those
of ITU-T T.81, annex B; the reading itself is compiled (src/header.c).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dataset.jpeg.codec import library, readable, writable
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
    """The contents of the headers, as src/codec.h has them."""

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
        factors = self.factors.to_bytes(4, "little")[: self.components] if self.components > 1 else b"\x11"
        return 8 * max(factor & 15 for factor in factors), 8 * max(factor >> 4 for factor in factors)

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
        return self.sof in (0xC0, 0xC1) and self.precision == 8 and self.in_scan == self.components

    @property
    def can_be_cut(self) -> bool:
        """Whether windows can be cut out between restart markers: `interleaved`, gray or three components."""
        return self.interleaved and self.components in (1, 3)


def read_header(data: bytes | np.ndarray) -> Header | None:
    """The headers of a JPEG, None for a file of another kind.

    Raises:
        BadImage: ``data`` begins as a JPEG, but no decoder would get as far as its first scan.
    """
    if bytes(data[:2]) != SOI:
        return None
    numbers = np.empty(len(Header._fields), np.int64)
    library.parse_header(readable(data), len(data), writable(numbers))
    header = Header(*numbers.tolist())
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
    position = 2
    while True:
        segment = _segment_from(data, position)
        if segment.start >= header.sos:
            return
        yield segment.marker, data[segment.start : segment.end]
        position = segment.end


def without_stray_bytes(data: bytes, header: Header) -> bytes:
    """A JPEG without the bytes between its header segments that belong to none."""
    return SOI + b"".join(segment for _, segment in segments(data, header)) + data[header.sos :]


def scan_headers(data: bytes, header: Header) -> list[bytes]:
    """The headers of all scans before the end marker; what follows that, such as a film, is none of the image."""
    position, scans = header.scan, [data[header.sos : header.scan]]
    while (segment := _segment_from(data, position)).marker not in (0, EOI[1]):
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


def _segment_from(data: bytes, position: int) -> Segment:
    """The first segment from ``position`` on."""
    numbers = np.empty(len(Segment._fields), np.int64)
    library.next_segment(readable(data), len(data), position, writable(numbers))
    return Segment(*numbers.tolist())
