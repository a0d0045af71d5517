"""Restart tiling: the packed file decodes to the same pixels, and so does every window of it alone."""

import io
from contextlib import suppress

import cv2
import numpy as np
import pytest
from dataset_helpers import damaged_in_midstream, examples, image_bytes, pixels, rotated_by_tag
from hypothesis import given
from hypothesis import strategies as st
from odd_jpeg import FACTORS, odd_jpeg
from PIL import Image

from dataset.jpeg.damage import find_damage
from dataset.jpeg.decode import decode, decode_window, window_intervals
from dataset.jpeg.header import BadImage, read_header
from dataset.jpeg.tiles import NotTiled, tile

SAMPLINGS = {
    name: [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}")]
    for name in ("444", "422", "420", "440", "411")
}


def jpeg(seed, height, width, sampling, quality=90, noise=0):
    image = pixels(seed, height, width)
    if noise:
        drawn = np.random.default_rng(seed).integers(-noise, noise + 1, image.shape)
        image = np.clip(image + drawn, 0, 255).astype(np.uint8)
    how = [cv2.IMWRITE_JPEG_QUALITY, quality, *SAMPLINGS.get(sampling, [])]
    return cv2.imencode(".jpg", image[:, :, 0] if sampling == "gray" else image, how)[1].tobytes()


def restarted(seed, height, width, sampling, **restarts):
    file = io.BytesIO()
    Image.fromarray(pixels(seed, height, width)).save(file, "JPEG", subsampling=sampling, **restarts)
    return file.getvalue()


def with_a_third_table(data):
    """All components take their AC codes from table 2, as extended sequential files may."""
    data = data.replace(b"\xff\xc0", b"\xff\xc1", 1).replace(b"\x10" + bytes(7), b"\x12" + bytes(7), 1)
    return data.replace(
        bytes([0xFF, 0xDA, 0, 12, 3, 1, 0, 2, 0, 3, 0]), bytes([0xFF, 0xDA, 0, 12, 3, 1, 2, 2, 2, 3, 2])
    )


def opencv(data, mode=cv2.IMREAD_COLOR_RGB):
    return cv2.imdecode(np.frombuffer(data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)


def pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


sources = st.builds(
    jpeg,
    st.integers(0, 99),
    st.integers(1, 140),
    st.integers(1, 400),
    st.sampled_from([*SAMPLINGS, "gray"]),
    st.sampled_from((30, 75, 90, 98)),
    st.sampled_from((0, 60)),
)


@st.composite
def windows(draw, height, width):
    top, left = (draw(st.integers(0, side - 1)) for side in (height, width))
    return top, left, draw(st.integers(1, height - top)), draw(st.integers(1, width - left))


@examples(150)
@given(sources)
def test_every_reader_sees_the_same_pixels(data):
    packed = tile(data)
    assert np.array_equal(opencv(packed), opencv(data))
    assert np.array_equal(pillow(packed), pillow(data))
    assert find_damage(packed) is None


@examples(300)
@given(sources, st.data())
def test_a_window_alone_is_the_window_of_the_whole(data, draw):
    packed, whole = tile(data), opencv(data)
    window = draw.draw(windows(*whole.shape[:2]))
    top, left, height, width = window
    assert np.array_equal(decode_window(packed, window), whole[top : top + height, left : left + width])


@examples(150)
@given(sources, st.data())
def test_a_window_at_half_size_is_the_window_of_the_whole_at_half_size(data, draw):
    packed, half = tile(data), opencv(data, cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB)
    window = draw.draw(windows(*half.shape[:2]))
    top, left, high, wide = window
    assert np.array_equal(decode_window(packed, window, halve=True), half[top : top + high, left : left + wide])


@pytest.mark.parametrize(
    ("width", "sampling"), [(47 * 8, "444"), (61 * 8 + 3, "gray"), (97 * 8, "444"), (47 * 16, "422"), (47 * 16, "420")]
)
def test_a_prime_number_of_mcus_in_a_row_does_not_cost_the_whole_row(width, sampling):
    packed = tile(jpeg(1, 160, width, sampling))
    intervals = window_intervals(packed, (40, 100, 60, 60))
    assert (intervals[:, 1] - intervals[:, 0]).sum() < 0.6 * len(packed)


@pytest.mark.parametrize("restarts", [{"restart_marker_blocks": 3}, {"restart_marker_rows": 1}, {"optimize": True}])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_files_that_have_restarts_or_their_own_tables(restarts, sampling):
    data = restarted(4, 90, 130, sampling, **restarts)
    packed = tile(data)
    assert np.array_equal(opencv(packed), opencv(data))
    window = (17, 33, 50, 61)
    assert np.array_equal(decode_window(packed, window), opencv(data)[17:67, 33:94])
    # As a user's own files are read: with restarts that nobody chose for windows, or none.
    assert np.array_equal(decode_window(data, window), opencv(data)[17:67, 33:94])


def test_metadata_is_kept_and_what_follows_the_image_is_not():
    profile = b"an ICC profile" * 9000  # two segments
    data = image_bytes(3, 40, 60, icc_profile=profile, comment=b"a comment")
    packed = tile(data + b"and more")
    with Image.open(io.BytesIO(packed)) as image:
        assert image.info["icc_profile"] == profile
        assert image.info["comment"] == b"a comment"
    assert packed.endswith(b"\xff\xd9")
    assert (
        Image.open(io.BytesIO(tile(rotated_by_tag(0)))).getexif() == Image.open(io.BytesIO(rotated_by_tag(0))).getexif()
    )


def test_rgb_files_keep_their_colours():
    data = image_bytes(3, 40, 60, keep_rgb=True)
    packed = tile(data)
    assert np.array_equal(opencv(packed), opencv(data))
    assert np.array_equal(decode_window(packed, (3, 5, 20, 30)), opencv(data)[3:23, 5:35])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (image_bytes(1, progressive=True), "progressive"),
        (odd_jpeg(1, 24, 32, scans=[[0], [1, 2]], interval=2), "not in one scan"),
        (odd_jpeg(1, 24, 32, scans=[[0], [1], [2]], interval=2), "not in one scan"),
        (odd_jpeg(1, 24, 32, scans=[[0, 1, 2], [0, 1, 2]]), "more than one scan"),
        (with_a_third_table(odd_jpeg(1, 24, 32, interval=2)), "more than two Huffman tables"),
    ],
)
def test_what_cannot_be_tiled_has_a_reason_and_is_read_whole(data, why):
    with pytest.raises(NotTiled, match=why):
        tile(data)
    assert np.array_equal(decode_window(data, (2, 3, 10, 20)), opencv(data)[2:12, 3:23])
    assert np.array_equal(decode_window(data, (2, 4, 5, 10), halve=True).shape, (5, 10, 3))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (damaged_in_midstream(image_bytes(1, 64, 64)), "end too early"),
        (image_bytes(1)[:-100], "damaged JPEG"),
        (image_bytes(1)[:-2], "end marker is missing"),
        (image_bytes(1)[:100], "before its first scan"),
        (b"\xff\xd8", "before its first scan"),
        (odd_jpeg(1, 24, 32, quantization=False), "quantization table is missing"),
        (odd_jpeg(1, 24, 32, frames=2), "two frame headers"),
        (odd_jpeg(1, 24, 32, frames=0), "no frame header"),
        (odd_jpeg(1, 0, 32), "makes no sense"),
        (odd_jpeg(1, 24, 32, interval=2, marker=lambda number: 0xD0), "out of order"),
        (odd_jpeg(1, 24, 32, interval=2, marker=lambda number: 0xD1 + number % 7), "out of order"),
        (odd_jpeg(1, 24, 32, interval=2, padding=b"\1\2\3"), "unread bytes"),
        (odd_jpeg(1, 24, 32, padding=b"\1\2\3"), "unread bytes"),
    ],
)
def test_damaged_files_are_not_tiled(data, why):
    with pytest.raises(BadImage, match=why):
        tile(data)


@examples(200)
@given(
    st.integers(0, 99),
    st.integers(1, 90),
    st.integers(1, 120),
    st.sampled_from(sorted(FACTORS)),
    st.integers(0, 30),
    st.integers(0, 2),
    st.booleans(),
    st.data(),
)
def test_windows_of_every_lawful_file_are_those_of_the_whole(seed, height, width, name, interval, fill, split, draw):
    """Any sampling factors, interval, fill bytes and scans, as foreign files have them and as they are tiled."""
    factors = FACTORS[name]
    scans = [[number] for number in range(len(factors))] if split else None
    data = odd_jpeg(seed, height, width, factors, scans=scans, interval=interval, fill=fill)
    whole, files = opencv(data), [data]
    if len(scans or [0]) == 1:
        files.append(tile(data))
        assert np.array_equal(opencv(files[1]), whole)
    window = draw.draw(windows(height, width))
    top, left, high, wide = window
    for file in files:
        assert np.array_equal(decode_window(file, window), whole[top : top + high, left : left + wide])


@pytest.mark.parametrize("name", sorted(FACTORS))
@pytest.mark.parametrize("number", [lambda k: 0xD0, lambda k: 0xD0 | (k + 1) & 7, lambda k: 0xD0 | k & 3])
def test_restart_markers_out_of_turn_are_left_to_the_whole_decoder(name, number):
    data = odd_jpeg(3, 75, 93, FACTORS[name], interval=2, marker=number)
    assert np.array_equal(decode_window(data, (40, 20, 30, 50)), opencv(data)[40:70, 20:70])


@pytest.mark.parametrize("window", [(0, 0, 25, 32), (0, 0, 24, 33), (20, 0, 8, 8), (0, 40, 8, 8), (-1, 0, 8, 8)])
def test_a_window_beyond_the_image_is_refused(window):
    for data in (tile(image_bytes(1)), image_bytes(1), image_bytes(1, kind="PNG")):
        with pytest.raises(BadImage, match="lies beyond"):
            decode_window(data, window)


@examples(400)
@given(sources, st.data())
def test_damaged_files_are_refused_or_read_never_worse(data, draw):
    """Compiled loops check no bounds: whatever the bytes say must stay inside the arrays."""
    for source in (data, tile(data)):
        damaged = bytearray(source)
        for _ in range(draw.draw(st.integers(1, 4))):
            damaged[draw.draw(st.integers(2, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
        damaged = bytes(damaged[: draw.draw(st.integers(4, len(damaged)))])
        try:
            packed = tile(damaged)
        except (NotTiled, BadImage):
            pass
        else:
            header = read_header(packed)
            assert header is not None
            if header.height * header.width < 1 << 20:
                pixels = None
                with suppress(BadImage):  # some are damaged beyond what the decoder reads
                    pixels = decode(damaged)
                assert pixels is None or np.array_equal(decode(packed), pixels)
        with suppress(BadImage):
            decode_window(damaged, (0, 0, read_header(data).height, read_header(data).width))


def test_a_part_of_few_pixels_is_that_of_the_whole():
    data = odd_jpeg(1, 1, 19, FACTORS["unequal chroma"])
    for file in (data, tile(data)):
        assert np.array_equal(decode_window(file, (0, 18, 1, 1)), opencv(data)[:, 18:])
