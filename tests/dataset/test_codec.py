"""The compiled codec: the right library, or a line that says what to type; headers and windows; no read beyond them."""

import ctypes
import mmap
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from dataset_helpers import examples, image_bytes
from hypothesis import given
from hypothesis import strategies as st
from odd_jpeg import FACTORS, odd_jpeg

from dataset.jpeg import codec, sources
from dataset.jpeg.header import _PROBLEMS, BadImage, Header, read_header, scan_headers, segments
from dataset.jpeg.raw import padded_window
from utils.errors import UsageError

PAGE = mmap.PAGESIZE
FILES = [
    image_bytes(1),
    image_bytes(2, mode="L"),
    image_bytes(3, mode="CMYK"),
    image_bytes(4, progressive=True, icc_profile=b"a profile" * 40, comment=b"a comment"),
    image_bytes(5, restart_marker_blocks=2, subsampling="4:2:0"),
    odd_jpeg(6, 40, 30, FACTORS["unequal chroma"]),
    odd_jpeg(7, 40, 30, scans=[[0], [1], [2]], interval=3),
]


@pytest.fixture
def end_of_memory():
    """Bytes as a memoryview behind which a read ends the process."""
    memory = mmap.mmap(-1, 3 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True)["mprotect"]
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(address + 2 * PAGE, PAGE, 0) == 0

    def placed(data):
        assert len(data) <= 2 * PAGE
        memory[2 * PAGE - len(data) : 2 * PAGE] = data
        return memoryview(memory)[2 * PAGE - len(data) : 2 * PAGE].toreadonly()

    return placed


@pytest.fixture
def checkout(tmp_path):
    """Where the library of another checkout would be."""
    (tmp_path / "dataset/jpeg").mkdir(parents=True)
    return tmp_path / "dataset/jpeg/_codec.so"


def test_a_missing_library_is_named_with_the_command_that_builds_it(checkout, tmp_path):
    with pytest.raises(UsageError, match=rf"{checkout}: .* missing; build it in {tmp_path}: type `make setup`"):
        codec.load(checkout)


def test_a_library_of_another_machine_is_named(checkout):
    checkout.write_bytes(b"\x7fELF of another machine")
    with pytest.raises(UsageError, match=rf"{checkout}: .* cannot be loaded on this machine .* --no-deps --editable"):
        codec.load(checkout)


def test_a_library_of_other_sources_is_named(monkeypatch):
    monkeypatch.setattr(codec, "digest", lambda: 64 * "0")
    with pytest.raises(UsageError, match=r"_codec\.so: .* is not that of the sources in .*src; build it"):
        codec.load(sources.LIBRARY)


def test_every_byte_and_name_of_the_sources_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "SOURCES", tmp_path)
    seen = {sources.digest()}
    for name, text in (("a.c", ""), ("a.c", "x"), ("b.h", ""), ("b.h", "x"), ("a.c", "y")):
        (tmp_path / name).write_text(text)
        seen.add(sources.digest())
    (tmp_path / "a.c").rename(tmp_path / "c.c")
    seen.add(sources.digest())
    assert len(seen) == 7
    (tmp_path / "notes").touch()
    assert sources.digest() in seen


@pytest.mark.parametrize(
    ("compiler", "said"), [("false", "cannot be compiled"), ("/no/cc -x", "/no/cc -x .*: No such")]
)
def test_a_build_that_fails_says_why_and_leaves_the_library(compiler, said):
    before = sources.LIBRARY.stat()
    done = subprocess.run(
        [sys.executable, "setup.py", "codec"],
        cwd=ROOT,
        env={**os.environ, "CC": compiler},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    assert re.search(said, done.stderr), done.stderr
    assert sources.LIBRARY.stat() == before


@pytest.mark.parametrize("data", [b"contiguous", memoryview(b"contiguous"), np.zeros((3, 4, 3), np.uint8)])
def test_a_pointer_leads_to_the_memory_itself(data):
    there = ctypes.cast(codec.readable(data), ctypes.c_void_p).value
    assert there == np.frombuffer(data, np.uint8).ctypes.data


def test_only_contiguous_memory_has_a_pointer_and_only_what_may_be_written_one_to_write():
    pixels = np.zeros((3, 4, 3), np.uint8)
    assert codec.writable(pixels) == pixels.ctypes.data
    for part in (pixels[:, 1:], pixels[:, ::-1]):
        for pointer in (codec.readable, codec.writable):
            with pytest.raises((BufferError, ValueError), match="contiguous"):
                pointer(part)
    pixels.flags.writeable = False
    assert codec.readable(pixels) == pixels.ctypes.data
    with pytest.raises((BufferError, ValueError), match="read-only"):
        codec.writable(pixels)


def slow_segments(data, position):
    """(marker, start, end, stray bytes before it) of each segment from ``position`` on (T.81 B.1.1)."""
    stray = 0
    while (start := data.find(b"\xff", position)) >= 0:
        stray += start - position
        while data[start + 1 : start + 2] == b"\xff":
            start += 1
        if start + 4 > len(data):
            break
        marker = data[start + 1]
        if marker in (0x00, 0x01, *range(0xD0, 0xD8)):
            stray, position = stray + 2, start + 2
            continue
        position = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        yield marker, start, position, stray
        stray = 0


def slow_header(data):
    """The fields of a Header, or the key of the first problem."""
    frame, restart, total = None, 0, 0
    for marker, start, end, stray in slow_segments(data, 2):
        body, total = data[start + 4 : end], total + stray
        if end > len(data):
            return 1
        if marker < 0xC0 or marker in (0xD8, 0xD9) or end < start + 4:
            return 2
        if marker in set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}:
            if frame:
                return 3
            if len(body) < 6 or len(body) != 6 + 3 * body[5]:
                return 4
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            factors = body[7::3]
            if not (height and width and 1 <= body[5] <= 4):
                return 4
            if not all(1 <= side <= 4 for factor in factors for side in divmod(factor, 16)):
                return 4
            frame = marker, start, body[0], height, width, body[5], int.from_bytes(factors, "little")
        elif marker == 0xDD:
            if len(body) != 2:
                return 2
            restart = int.from_bytes(body, "big")
        elif marker == 0xDA:
            if not frame:
                return 6
            if not body or not 1 <= body[0] <= frame[5] or len(body) != 4 + 2 * body[0]:
                return 5
            return (0, *frame, start, end, body[0], restart, total)
    return 1


def check(data, placed):
    """The compiled reading of ``placed``, the bytes of ``data``, is the slow one; returns what it is."""
    expected = slow_header(data)
    if isinstance(expected, int):
        with pytest.raises(BadImage, match=f"^{_PROBLEMS[expected]}$"):
            read_header(placed)
        return expected
    header = read_header(placed)
    assert header == Header(*expected)
    before = [(marker, data[start:end]) for marker, start, end, _ in slow_segments(data[: header.scan], 2)]
    assert list(segments(data, header)) == before[:-1]
    scans = [data[header.sos : header.scan]]
    for marker, start, end, _ in slow_segments(data, header.scan):
        if marker == 0xD9:
            break
        if marker == 0xDA:
            scans.append(data[start:end])
    assert scan_headers(placed, header) == scans
    return expected


@pytest.mark.parametrize("number", range(len(FILES)))
def test_every_prefix_of_a_file_is_read_as_slowly(number, end_of_memory):
    data = FILES[number][: 2 * PAGE]
    for size in range(2, min(len(data), read_header(data).scan + 40)):
        check(data[:size], end_of_memory(data[:size]))


def test_every_value_of_every_byte_of_frame_and_scan_header():
    header = read_header(FILES[0])
    for place in (*range(header.frame, header.frame + 19), *range(header.sos, header.scan)):
        for value in range(256):
            data = bytearray(FILES[0])
            data[place] = value
            check(bytes(data), bytes(data))


@examples(400)
@given(st.data())
def test_changed_headers_are_read_as_slowly(draw):
    data = bytearray(draw.draw(st.sampled_from(FILES)))
    scan = read_header(bytes(data)).scan
    places = st.integers(2, scan - 1)
    for _ in range(draw.draw(st.integers(1, 3))):
        place = draw.draw(places)
        new = draw.draw(
            st.binary(max_size=6) | st.sampled_from([b"\xff", b"\xff\xff", b"\xff\xda", b"\xff\xd0", b"\xff\xdd\0\4"])
        )
        data[place : place + draw.draw(st.sampled_from([0, len(new)]))] = new
    check(bytes(data), bytes(data))


@examples(300)
@given(st.data())
def test_a_padded_window_is_that_of_numpy(draw):
    sides = st.integers(1, 20)
    pixels = np.random.default_rng(draw.draw(sides)).integers(0, 256, (draw.draw(sides), draw.draw(sides), 3), np.uint8)
    side, mirror = draw.draw(sides), draw.draw(st.booleans())
    top, left = draw.draw(st.tuples(*2 * [st.integers(-25, 25)]))
    framed = np.pad(pixels, ((25, 45), (25, 45), (0, 0)))[25 + top :, 25 + left :][:side, :side]
    around = np.full((3, side, side, 3), 77, np.uint8)
    padded_window(pixels, top, left, mirror, around[1])
    assert np.array_equal(around[1], framed[:, ::-1] if mirror else framed)
    assert (around[::2] == 77).all()


@pytest.mark.parametrize("mirror", [False, True])
def test_a_padded_window_reads_nothing_beyond_the_image(end_of_memory, mirror):
    memory = end_of_memory(bytes(range(48)))
    out = np.empty((4, 4, 3), np.uint8)
    for top in range(-5, 6):
        for left in range(-5, 6):
            padded_window(np.frombuffer(memory, np.uint8).reshape(4, 4, 3), top, left, mirror, out)


def test_what_the_header_says_of_mcus_and_cutting():
    said = {name: read_header(odd_jpeg(1, 40, 30, factors)) for name, factors in FACTORS.items()}
    assert {name: header.mcu for name, header in said.items()} == {
        name: (8, 8) if len(factors) == 1 else tuple(8 * max(sides) for sides in list(zip(*factors))[::-1])
        for name, factors in FACTORS.items()
    }
    assert all(header.can_be_cut for header in said.values())
    progressive, scans, cmyk = read_header(FILES[3]), read_header(FILES[6]), read_header(FILES[2])
    assert [header.interleaved for header in (progressive, scans, cmyk)] == [False, False, True]
    assert not any(header.can_be_cut for header in (progressive, scans, cmyk))
