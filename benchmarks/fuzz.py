"""Hostile image files for everything that reads bytes from disk: none may end the process or give other than pixels.

    python -m benchmarks.fuzz --files 100000

Each file is a sound one (JPEGs of every sampling, with restart markers or without, tiled, progressive, CMYK; raw
pixels) with headers made anew, bytes changed, pieces cut out, doubled or put elsewhere. Every function that reads bytes
from disk gets it: it may refuse it, by BadImage or NotTiled, or give pixels of the promised shape. The work is done in
processes; signals that ended one and exceptions of another kind are counted, and their files kept below --work.
`benchmarks.fuzz_codec` does the same to the codec alone, with every access to memory checked.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataset.feed.crops import center_axes, random_scale_crop, window_axes
from dataset.jpeg.damage import sound_pixels
from dataset.jpeg.decode import decode, decode_window, window_intervals
from dataset.jpeg.header import BadImage, read_header
from dataset.jpeg.images import image_size
from dataset.jpeg.raw import encode_raw, padded_window
from dataset.jpeg.tiles import NotTiled, tile
from dataset.jpeg.views import MIRROR, show_exact, show_planes
from utils.console import exit_with_its_code, progress
from utils.errors import DataError

_PIECE = 2000  # files a process
_DECODED = 1 << 20  # pixels of the largest image that is decoded whole
_MARKERS = (0xC0, 0xC1, 0xC2, 0xC4, 0xD0, 0xD5, 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xE0, 0xEE, 0xFF)


@exit_with_its_code
def main() -> None:
    """Start the processes, and count how they end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/fuzz"), help="folder for files that did harm")
    parser.add_argument("--piece", type=int, nargs=2, metavar=("FIRST", "END"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.piece:
        run_piece(options.seed, range(*options.piece), options.work)
        return
    faults: list[str] = []
    for start in progress(iterable=range(0, options.files, _PIECE), desc=f"pieces of {_PIECE} files"):
        piece = (start, min(start + _PIECE, options.files))
        words = ["--seed", options.seed, "--work", options.work, "--piece", *piece]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.fuzz", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if done.returncode:
            last = options.work / f"{start}.txt"
            where = f"at file {last.read_text()}" if last.exists() else "before the first file"
            faults.append(f"exit code {done.returncode} {where}")
        faults += done.stdout.splitlines()
    print(f"{options.files} files: {len(faults)} faults")
    if faults:
        raise DataError("\n  ".join(["reading is not safe:", *faults]))


def run_piece(seed: int, numbers: range, work: Path) -> None:
    """Read the files of these ``numbers``; a line for each exception that is none of ours."""
    last = work / f"{numbers.start}.txt"
    seeds = sources()
    for number in numbers:
        data = mutated(np.random.default_rng([seed, number]), seeds)
        last.write_text(str(number))
        for function in (_read_whole, _read_windows, _show, _rewrite):
            try:
                function(data, np.random.default_rng([seed, number, 1]))
            except (BadImage, NotTiled):
                pass
            except Exception as error:
                (work / f"{number}.bin").write_bytes(data)
                print(f"file {number}, {function.__name__}: {type(error).__name__}: {error}", flush=True)
    last.unlink()


def sources() -> list[bytes]:
    """Sound files."""
    random = np.random.default_rng(0)
    files = []
    for height, width in ((40, 56), (17, 130), (96, 33)):
        pixels = cv2.resize(random.integers(0, 256, (7, 9, 3)).astype(np.uint8), (width, height))
        files.append(encode_raw(pixels))
        for mode in ("RGB", "L", "CMYK"):
            for save in ({}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}, {"progressive": True}):
                for subsampling in ("4:4:4", "4:2:2", "4:2:0") if mode == "RGB" else ("4:4:4",):
                    files.append(_saved(pixels, mode, subsampling=subsampling, **save))
                    if not save and mode != "CMYK":
                        files.append(tile(files[-1]))
        files.append(_saved(pixels, "RGB", keep_rgb=True))
    for factors in ((0x12, 0x11, 0x11), (0x41, 0x11, 0x11), (0x22, 0x21, 0x12), (0x11, 0x22, 0x11), (0x42, 0x11, 0x11)):
        for interval in (0, 2, 5):
            files.append(_with_factors(factors, interval))
            files.append(tile(files[-1]))
    return files


def _saved(pixels: np.ndarray, mode: str, **save: str | int | bool) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **save)
    return file.getvalue()


def _with_factors(factors: tuple[int, int, int], interval: int) -> bytes:
    """The 240 blocks of a gray picture as those of three components with these sampling factors, in two rows."""
    blocks = sum((factor >> 4) * (factor & 15) for factor in factors)
    picture = np.random.default_rng(0).integers(0, 256, (64, 240, 3)).astype(np.uint8)
    gray = _saved(cv2.GaussianBlur(picture, (9, 9), 3), "L", restart_marker_blocks=interval * blocks)
    high, wide = 8 * max(factor & 15 for factor in factors), 8 * max(factor >> 4 for factor in factors)
    frame = (2 * high - 3).to_bytes(2, "big") + (240 // blocks // 2 * wide - 5).to_bytes(2, "big") + b"\x03"
    frame += b"".join(bytes([number + 1, factor, 0]) for number, factor in enumerate(factors))
    gray = gray.replace(b"\xff\xc0\0\x0b\x08\0\x40\0\xf0\1\1\x11\0", b"\xff\xc0\0\x11\x08" + frame)
    gray = gray.replace(b"\xff\xda\0\x08\1\1\0", b"\xff\xda\0\x0c\3\1\0\2\0\3\0")
    return gray.replace(b"\xff\xdd\0\4\0" + bytes([interval * blocks]), b"\xff\xdd\0\4\0" + bytes([interval]))


def mutated(random: np.random.Generator, seeds: list[bytes]) -> bytes:
    """One of ``seeds`` after one to three changes."""
    data = bytearray(seeds[random.integers(len(seeds))])
    for _ in range(random.integers(1, 4)):
        size = len(data)
        place, length = int(random.integers(2, size)), int(random.integers(1, 40))
        match random.integers(8):
            case 0:
                data[place] = random.integers(256)
            case 1:
                data[place : place + length] = random.integers(0, 256, length).astype(np.uint8).tobytes()
            case 2:
                del data[place : place + length]
            case 3:
                at = int(random.integers(2, size))
                data[at:at] = data[place : place + length]
            case 4:
                data[place:place] = bytes([0xFF, random.choice(_MARKERS)])
            case 5:
                del data[place:]
            case _:
                _change_header(data, random)
        if len(data) < 8:
            break
    return bytes(data)


def _change_header(data: bytearray, random: np.random.Generator) -> None:
    """Write another number into a header segment, or the segment a second time."""
    segments = list(_segments(data))
    if not segments:
        return
    start, end = segments[random.integers(len(segments))]
    match random.integers(4):
        case 0:  # a size, a number of components, sampling factors, an interval, counts of codes
            data[random.integers(start, end)] = random.integers(256)
        case 1:
            at = int(random.integers(start + 2, end))
            data[at : at + 2] = int(random.choice([0, 1, 7, 255, 5000, 65535])).to_bytes(2, "big")
        case 2:
            data[start:start] = data[start:end]
        case 3:
            data[start + 1] = random.choice(_MARKERS)


def _segments(data: bytearray) -> Iterator[tuple[int, int]]:
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if not place + 4 < end <= len(data):
            return
        yield place, end
        place = end


def _read_whole(data: bytes, random: np.random.Generator) -> None:
    _size(data)
    pixels = decode(data)
    assert pixels.shape[2] == 3
    out = np.empty((32, 32, 3), np.uint8)
    padded_window(np.ascontiguousarray(pixels), int(random.integers(-9, 9)), int(random.integers(-9, 9)), True, out)
    sound_pixels(data)


def _read_windows(data: bytes, random: np.random.Generator) -> None:
    """Windows of the image, and of one of another size: an index may not be of these bytes."""
    for _ in range(6):
        high, wide = _size(data) if random.integers(2) else random.integers(1, 300, 2)
        top, left = int(random.integers(0, high)), int(random.integers(0, wide))
        window = (top, left, int(random.integers(1, high - top + 1)), int(random.integers(1, wide - left + 1)))
        with suppress(BadImage):
            assert decode_window(data, window).shape == (*window[2:], 3)
            intervals = window_intervals(data, window)
            assert intervals is None or (intervals >= 0).all()
        with suppress(BadImage):
            assert decode_window(data, window, halve=True).shape == (*window[2:], 3)


def _show(data: bytes, random: np.random.Generator) -> None:
    """The evaluation view and training views, by either way, of the image or of one of another size."""
    size = _size(data) if random.integers(2) else tuple(random.integers(1, 300, 2).tolist())
    axes, places = center_axes(np.array([size]), 36, 32)
    windows = random_scale_crop(random.random((3, 3)), np.array([size] * 3), (16, 60), 32)
    crops, corners = window_axes(windows, 32)
    axes, places = np.concatenate([axes, crops]), np.concatenate([places, corners])
    axes[:, 1, MIRROR] = random.integers(2, size=4)
    out, watch, spent = np.empty((4, 32, 32, 3), np.uint8), np.zeros(2, np.int64), np.zeros(2, np.int64)
    others = show_planes([data] * 4, axes, places, out, 0, watch, spent)
    for number in np.flatnonzero(others):
        how, halve = ("antialias", "linear")[number % 2], bool(random.integers(2))
        with suppress(BadImage):
            show_exact(data, axes[number], places[number], out[number], spent, how=how, halve=halve)


def _rewrite(data: bytes, _random: np.random.Generator) -> None:
    _size(data)
    packed = tile(data)
    try:
        pixels = decode(data)
    except BadImage:
        return  # which packing sees
    assert np.array_equal(decode(packed), pixels)


def _size(data: bytes) -> tuple[int, int]:
    header = read_header(data)
    if header is not None and header.height * header.width > _DECODED:
        raise BadImage("large")
    return image_size(data)


if __name__ == "__main__":
    main()
