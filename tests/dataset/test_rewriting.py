"""A JPEG taken apart into symbols and written again: the same coefficients, the same bytes as ever."""

import hashlib

import numpy as np
import pytest
from dataset_helpers import examples, image_bytes
from hypothesis import given
from hypothesis import strategies as st
from odd_jpeg import FACTORS, odd_jpeg
from slow_jpeg import slow_coefficients

from dataset.jpeg import damage, tiles
from dataset.jpeg.codec import library, writable
from dataset.jpeg.fit import Fitting, fit
from dataset.jpeg.header import BadImage, read_header
from dataset.jpeg.tiles import NotTiled, tile, tiled, walk

RESTART = 0xFFFFFFFF

files = st.builds(
    odd_jpeg,
    st.integers(0, 99),
    st.integers(1, 40),
    st.integers(1, 90),
    st.sampled_from(sorted(FACTORS.values())),
    interval=st.integers(0, 5),
    fill=st.integers(0, 2),
)


def coefficients(walked):
    """Of the blocks of a walk, from its symbols."""
    blocks, before, number = [], {}, 0
    kinds = walked.frame.header.factors.to_bytes(4, "little")[: walked.frame.header.components]
    counts = [(factor >> 4) * (factor & 15) for factor in kinds] if len(kinds) > 1 else [1]
    mcu = [component for component, count in enumerate(counts) for _ in range(count)]
    for value in walked.symbols.tolist():
        if value == RESTART:
            before = {}
            continue
        table, symbol, extra = value >> 24, value >> 16 & 255, value & 0xFFFF
        size = symbol & 15
        level = extra if not size or extra >> (size - 1) else extra - (1 << size) + 1
        if not table & 1:
            component = mcu[number % len(mcu)]
            before[component] = before.get(component, 0) + level
            blocks.append([before[component]])
            number += 1
        elif size:
            blocks[-1] += [0] * (symbol >> 4) + [level]
        elif symbol == 0xF0:
            blocks[-1] += [0] * 16
    return [block + [0] * (64 - len(block)) for block in blocks]


@examples(60)
@given(files)
def test_a_walk_reads_what_the_standard_says(data):
    right = slow_coefficients(data)
    walked = walk(data)
    assert coefficients(walked) == right
    assert slow_coefficients(tiled(walked)) == right


@pytest.mark.parametrize("save", [{"quality": 100, "optimize": True}, {"quality": 30, "restart_marker_blocks": 2}])
def test_files_of_an_encoder_are_read_as_the_standard_says(save):
    data = image_bytes(2, 40, 56, **save)
    assert coefficients(walk(data)) == slow_coefficients(data) == slow_coefficients(tile(data))


# SHA-256 of what the first packer wrote at an interval of 5, of odd_jpeg(7, 61, 203, factors).
WRITTEN = {
    "gray": "82c84b6fb18df77f183a7663f8177008498a6006aadd105176443edbb2ee69a4",
    "4:4:4": "fc31943185636e934f7c8eafd13ca5c371162ecdcd4be90981af1ad22394393d",
    "4:2:0": "68aba26e42d2ee92c2177c42a38760bb1232497b448487e8e9b52368251cf204",
    "4:2:2": "a9a468098b327c3fa1967324a648873f88ae1e43d22f0e44d39b99a09f2f566e",
    "unequal chroma": "2a927d8cb7fb7a37328eb212a47b05ecbf481008987627b93808eafabc656edc",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_bytes_are_those_that_were_always_written(name, monkeypatch):
    monkeypatch.setattr(tiles, "_interval", lambda frame, mcu_bytes: 5)
    assert hashlib.sha256(tile(odd_jpeg(7, 61, 203, FACTORS[name]))).hexdigest() == WRITTEN[name]


def test_a_run_of_zeros_beyond_its_block_is_damage():
    """libjpeg ends the block there, and a decoder that reads on would show other pixels."""
    data = image_bytes(1, 8, 8, mode="L")  # with the tables of T.81 annex K
    bits = "00" + 4 * "11111111001" + "11"  # a DC difference of 0, four times 16 zeros, padding
    scan = int(bits, 2).to_bytes(6, "big").replace(b"\xff", b"\xff\0")
    with pytest.raises(BadImage, match="more than 64 coefficients"):
        tile(data[: read_header(data).scan] + scan + b"\xff\xd9")


def optimal_code(counts):
    """Numbers of codes by length, and the symbols in the order of their codes."""
    padded, lengths, values = np.zeros(256, np.int64), np.zeros(16, np.uint8), np.zeros(256, np.uint8)
    padded[: len(counts)] = counts
    number = library.optimal_code(writable(padded), writable(lengths), writable(values))
    return lengths.tolist(), values[:number].tolist()


def slow_optimal_code(counts):
    """K.2: the two rarest trees are joined until there is one; of equally rare ones the last is taken first."""
    trees = [(count, [symbol]) for symbol, count in enumerate(counts) if count] + [(1, [256])]
    sizes = dict.fromkeys((symbol for _, (symbol,) in trees), 0)
    while len(trees) > 1:
        least, second = sorted(range(len(trees)), key=lambda at: (trees[at][0], -at))[:2]
        trees[least] = trees[least][0] + trees[second][0], trees[least][1] + trees[second][1]
        for symbol in trees[least][1]:
            sizes[symbol] += 1
        trees[second] = trees[-1]
        trees.pop()
    lengths = [0] * 300
    for size in sizes.values():
        lengths[size] += 1
    for length in range(299, 16, -1):  # figure K.3
        while lengths[length]:
            shorter = max(size for size in range(1, length - 1) if lengths[size])
            lengths[length] -= 2
            lengths[length - 1] += 1
            lengths[shorter + 1] += 2
            lengths[shorter] -= 1
    lengths[max(size for size in range(1, 17) if lengths[size])] -= 1
    del sizes[256]
    return lengths[1:17], sorted(sizes, key=lambda symbol: (sizes[symbol], symbol))


FIBONACCI = [1, 1]
while len(FIBONACCI) < 40:
    FIBONACCI.append(FIBONACCI[-1] + FIBONACCI[-2])


@examples(60)
@given(st.lists(st.integers(0, 9) | st.integers(0, 1 << 30), min_size=1, max_size=256).filter(any))
def test_a_code_is_that_of_the_standard(counts):
    assert optimal_code(counts) == slow_optimal_code(counts)


@pytest.mark.parametrize("counts", [[5], [1] * 256, FIBONACCI, [10**9, *[1] * 200]])
def test_codes_are_complete_and_at_most_16_bits(counts):
    lengths, values = optimal_code(counts)
    assert (lengths, values) == slow_optimal_code(counts)
    assert sorted(values) == list(range(len(counts)))
    free = (1 << 16) - sum(number << 16 - length for length, number in enumerate(lengths, start=1))
    assert free > 0  # the code of ones alone


@examples(300)
@given(files, st.data())
def test_a_mutated_file_is_refused_or_keeps_its_coefficients(data, draw):
    mutated = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        mutated[draw.draw(st.integers(2, len(mutated) - 1))] = draw.draw(st.integers(0, 255))
    mutated = bytes(mutated[: draw.draw(st.integers(len(mutated) // 2, len(mutated)))])
    try:
        walked = walk(mutated)
        packed = tiled(walked)
    except (NotTiled, BadImage):
        return
    blocks = coefficients(walked)
    if len(blocks) < 2000:
        assert slow_coefficients(packed) == blocks


@examples(200)
@given(files, st.data())
def test_a_stock_decoder_finds_no_more_in_headers_than_is_said_of_them(data, draw):
    """So a file that is read bit by bit need not be decoded as well."""
    mutated = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 2))):
        mutated[draw.draw(st.integers(2, read_header(data).scan - 1))] = draw.draw(st.integers(0, 255))
    try:
        walked = walk(bytes(mutated))
    except (NotTiled, BadImage):
        return
    frame = walked.frame
    if frame.is_usual and not frame.header.stray and not walked.unread:  # which is a flaw of its own
        assert damage._decoded_with_warning(bytes(mutated), 1)[1] == frame.warning


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ((b"JFIF\0\1\1", b"JFIF\0\2\5"), "unknown JFIF revision number 2.05"),
        ((b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0", b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\7"), "transform code 7"),
        ((b"\0\x3f\0", b"\0\x3f\1"), "Invalid SOS parameters"),
    ],
)
def test_header_fields_that_change_no_pixel_are_reported(change, warning):
    data = odd_jpeg(1, 24, 32)
    assert change[0] in data
    changed = data.replace(*change, 1)
    assert warning in damage._decoded_with_warning(changed, 1)[1]
    assert warning in fit(changed, Fitting())[3]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (image_bytes(1, progressive=True), "kept untiled: it is progressive"),
        (odd_jpeg(1, 24, 32).replace(b"\xff\xc0", b"\xff\xc9", 1), "kept untiled: it is arithmetic coded"),
        (odd_jpeg(1, 24, 32, scans=[[0], [1, 2]]), "kept untiled: its components are not in one scan of 8 bits"),
        (image_bytes(1, mode="CMYK"), "CMYK JPEG converted to RGB JPEG, quality 100"),
    ],
)
def test_the_report_says_why_a_file_is_not_tiled(data, why):
    assert fit(data, Fitting(check=False))[3] == why


def test_factors_that_no_decoder_reads_are_refused():
    factors = ((3, 1), (2, 1), (1, 1))
    data = odd_jpeg(1, 24, 32, factors)
    assert not walk(data).frame.is_usual
    with pytest.raises(BadImage, match="OpenCV cannot decode"):
        fit(data, Fitting())
