"""JPEG files of every kind that the standard, or some program, allows: made from drawn coefficients."""

from collections.abc import Callable, Sequence

import numpy as np

DC_SIZES = range(12)
AC_SYMBOLS = [0x00, 0xF0, *(run << 4 | size for run in range(15) for size in range(1, 11))]
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
FACTORS = {
    "gray": ((1, 1),),
    "4:4:4": ((1, 1), (1, 1), (1, 1)),
    "4:2:2": ((2, 1), (1, 1), (1, 1)),
    "4:2:0": ((2, 2), (1, 1), (1, 1)),
    "4:4:0": ((1, 2), (1, 1), (1, 1)),
    "4:1:1": ((4, 1), (1, 1), (1, 1)),
    "3x1": ((3, 1), (1, 1), (1, 1)),
    "1x3": ((1, 3), (1, 1), (1, 1)),
    "4x2": ((4, 2), (1, 1), (1, 1)),
    "wide chroma": ((1, 1), (2, 1), (2, 1)),
    "unequal chroma": ((2, 2), (2, 1), (1, 2)),
    "4:4:4 in blocks of two": ((2, 1), (2, 1), (2, 1)),
    "gray in blocks of four": ((2, 2),),
}


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def odd_jpeg(
    seed: int,
    height: int,
    width: int,
    factors: Sequence[tuple[int, int]] = FACTORS["4:4:4"],
    *,
    scans: Sequence[Sequence[int]] | None = None,
    interval: int = 0,
    marker: Callable[[int], int] = lambda number: 0xD0 | number & 7,
    fill: int = 0,
    stray: bytes = b"",
    quantization: bool = True,
    last: int = 63,
    padding: bytes = b"",
    frames: int = 1,
    behind: bytes = EOI,
) -> bytes:
    """A baseline JPEG.

    Args:
        seed: of the coefficients.
        height: pixels.
        width: pixels.
        factors: sampling, horizontal and vertical, of each component.
        scans: components of each scan; one of all when not given.
        interval: MCUs between restart markers.
        marker: second byte of restart marker ``number``.
        fill: FF bytes before each restart marker.
        stray: bytes before the frame header.
        quantization: whether there is a table.
        last: what the scan header calls the last coefficient.
        padding: bytes at the end of each interval.
        frames: frame headers.
        behind: what follows the last scan.
    """
    random = np.random.default_rng(seed)
    frame = b"".join(bytes([number + 1, wide << 4 | high, 0]) for number, (wide, high) in enumerate(factors))
    frame = b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([len(factors)]) + frame
    tables = b"\0" + bytes([0, 0, 0, 12, *[0] * 12, *DC_SIZES])
    tables += b"\x10" + bytes([*[0] * 7, len(AC_SYMBOLS), *[0] * 8, *AC_SYMBOLS])
    parts = [SOI, JFIF, segment(0xDB, b"\0" + bytes([6] * 64)) if quantization else b"", stray]
    parts += [segment(0xC0, frame)] * frames + [segment(0xC4, tables)]
    if interval:
        parts.append(segment(0xDD, interval.to_bytes(2, "big")))
    for scan in scans or [range(len(factors))]:
        ids = b"".join(bytes([number + 1, 0]) for number in scan)
        parts.append(segment(0xDA, bytes([len(scan)]) + ids + bytes([0, last, 0])))
        units = _units(height, width, factors, scan)
        step = interval or max(1, len(units))
        for start in range(0, len(units), step):
            if start:
                parts.append(b"\xff" * fill + bytes([0xFF, marker(start // step - 1)]))
            bits, before = "", dict.fromkeys(scan, 0)
            for number in (number for unit in units[start : start + step] for number in unit):
                value = int(random.integers(-60, 61))
                bits += _block(value - before[number], random)
                before[number] = value
            bits += "1" * (-len(bits) % 8)
            parts.append(int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0") + padding)
    return b"".join(parts) + behind


def _units(height: int, width: int, factors: Sequence[tuple[int, int]], scan: Sequence[int]) -> list[list[int]]:
    """The components of the blocks of each MCU of a scan."""
    widest, highest = (max(factor[axis] for factor in factors) for axis in (0, 1))
    if len(scan) > 1:
        mcu = [number for number in scan for _ in range(factors[number][0] * factors[number][1])]
        return [mcu] * (-(-height // (8 * highest)) * -(-width // (8 * widest)))
    wide, high = factors[scan[0]]  # a scan of one component counts in single blocks
    rows, columns = -(-height * high // highest), -(-width * wide // widest)
    return [[scan[0]]] * (-(-rows // 8) * -(-columns // 8))


def _block(difference: int, random: np.random.Generator) -> str:
    size = abs(difference).bit_length()
    bits = f"{size:04b}" + _bits(difference, size)
    for run in random.integers(0, 6, int(random.integers(0, 4))):
        value = int(random.integers(1, 40)) * int(random.choice([-1, 1]))
        size = abs(value).bit_length()
        bits += f"{AC_SYMBOLS.index(int(run) << 4 | size):08b}" + _bits(value, size)
    return bits + f"{0:08b}"


def _bits(value: int, size: int) -> str:
    """T.81 F.1.2.1: negative values are stored less one."""
    return f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if size else ""
