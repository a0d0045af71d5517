"""Headers, wholeness and pixels of image files."""

import io

import numpy as np
import pytest
from dataset_helpers import damaged_in_midstream, examples, image_bytes, pixels, rotated_by_tag
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from dataset.feed.crops import center_axes
from dataset.jpeg import rgb
from dataset.jpeg.damage import find_damage
from dataset.jpeg.decode import decode
from dataset.jpeg.header import BadImage, read_header
from dataset.jpeg.images import as_jpeg, encode
from dataset.jpeg.views import show_exact

JPEG = image_bytes(0, 40, 60)


def shape(header):
    return header and (header.height, header.width, header.components, header.precision)


def packable_jpeg(data):
    """What packing without tiles does."""
    data, header, remark = as_jpeg(data)
    return data, header, find_damage(data) or remark


def on_white(data):
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")).astype(int)


def levels_apart(one, two):
    return np.abs(one.astype(int) - two).max()


def evaluation_view(image, side, crop):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    (axes,), (place,) = center_axes(np.array([image.shape[:2]]), side, crop)
    out = np.zeros((crop, crop, 3), np.uint8)
    show_exact(file.getvalue(), axes, place, out, np.zeros(2, np.int64), how="antialias", halve=False)
    return out


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (JPEG, (40, 60, 3, 8)),
        (image_bytes(0, 1, 1), (1, 1, 3, 8)),
        (image_bytes(0, 7, 9, mode="L"), (7, 9, 1, 8)),
        (image_bytes(0, 7, 9, mode="CMYK"), (7, 9, 4, 8)),
        (image_bytes(0, 7, 9, progressive=True), (7, 9, 3, 8)),
        (rotated_by_tag(0), (24, 32, 3, 8)),
        (b"\xff\xd8\xff\xff\xff" + JPEG[3:], (40, 60, 3, 8)),  # fill bytes before a marker
        (image_bytes(0, kind="PNG"), None),
        (b"", None),
        (b"text", None),
    ],
)
def test_headers(data, header):
    assert shape(read_header(data)) == header


@pytest.mark.parametrize("length", [2, 3, 4, 20, 100])
def test_a_jpeg_that_ends_before_its_scan(length):
    with pytest.raises(BadImage, match="ends before its first scan"):
        read_header(JPEG[:length])


def test_a_header_without_pixels_is_refused():
    frame = JPEG.index(b"\xff\xc0")
    with pytest.raises(BadImage, match="makes no sense"):
        as_jpeg(JPEG[: frame + 5] + b"\x00\x00\x00\x10" + JPEG[frame + 9 :])


@pytest.mark.parametrize(
    "data",
    [
        JPEG,
        image_bytes(1, mode="L"),
        image_bytes(1, progressive=True),
        image_bytes(1, quality=30, subsampling=2, restart_marker_blocks=2),
        rotated_by_tag(1),
    ],
    ids=["colour", "gray", "progressive", "restart", "rotated"],
)
def test_a_sound_jpeg_is_kept_byte_for_byte(data):
    stored, header, remark = packable_jpeg(data)
    assert stored is data
    assert remark is None
    assert header == read_header(data)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "1"), ("JPEG", "CMYK"), ("GIF", "P")],
)
def test_another_kind_is_converted_once_and_reported(kind, mode):
    data = image_bytes(2, 33, 21, kind=kind, mode=mode)
    stored, header, remark = packable_jpeg(data)
    assert remark == f"{mode} {kind} converted to RGB JPEG, quality 100"
    assert shape(header) == (33, 21, 3, 8) == shape(read_header(stored))
    original = on_white(data)
    difference = np.abs(decode(stored).astype(int) - original)
    assert difference.max() <= 4
    assert packable_jpeg(stored)[0] is stored


BAD = {
    "empty": b"",
    "text": b"this is not an image",
    "text behind a JPEG's first bytes": b"\xff\xd8" + b"text" * 100,
    "truncated": JPEG[: len(JPEG) // 2],
    "without its last bytes": JPEG[:-40],
    "damaged in mid-stream": damaged_in_midstream(JPEG),
    "truncated progressive": image_bytes(0, 40, 60, progressive=True)[:-60],
    "truncated PNG": image_bytes(0, 40, 60, kind="PNG")[:-300],
    "truncated CMYK": image_bytes(0, 40, 60, mode="CMYK")[:-300],
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_cannot_be_read_whole_is_refused(data):
    with pytest.raises(BadImage):
        packable_jpeg(data)


@examples(150)
@given(
    st.sampled_from(
        [JPEG, *(image_bytes(3, kind=kind) for kind in ("PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "DDS"))]
    ),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of oddities before it gives up
def test_damage_of_any_kind_gives_bad_image_or_pixels(data, changes, share):
    damaged = bytearray(data[: round(len(data) * share)] if share < 0.8 else data)
    for place, value in changes:
        if damaged:
            damaged[int(place * len(damaged))] = value
    for read in (packable_jpeg, decode):
        try:
            read(bytes(damaged))
        except BadImage:
            continue


@pytest.mark.parametrize("data", [b"", b"text", JPEG[:100], BAD["text behind a JPEG's first bytes"]])
def test_decode_refuses_what_is_no_image(data):
    with pytest.raises(BadImage):
        decode(data)


def test_decode_gives_the_stored_pixels_in_rgb():
    red = np.zeros((8, 12, 3), np.uint8)
    red[..., 0] = 255
    assert np.abs(decode(encode(red, quality=100)).astype(int) - red).max() <= 2
    assert decode(rotated_by_tag(0)).shape == (24, 32, 3)  # the orientation tag is not followed
    gray = decode(image_bytes(0, mode="L"))
    assert (gray[..., 0] == gray[..., 2]).all()
    assert decode(image_bytes(0, kind="PNG")).tolist() == pixels(0).tolist()


def test_a_picture_too_large_to_be_one_is_refused(monkeypatch):
    monkeypatch.setattr(rgb, "MAX_PIXELS", 100)
    with pytest.raises(BadImage, match="32 x 24 pixels, the limit is 100"):
        packable_jpeg(image_bytes(0, kind="PNG"))


def test_a_picture_longer_than_a_jpeg_may_be_is_refused():
    with pytest.raises(BadImage, match="65501 x 1 pixels"):
        packable_jpeg(image_bytes(0, 1, 65501, kind="PNG"))


def test_no_plugin_of_pillow_may_raise_an_error_of_its_own():
    data = image_bytes(0, kind="DDS")
    with pytest.raises(BadImage):
        packable_jpeg(data[:80] + b"\x18" + data[81:])  # NotImplementedError: unknown pixel format


@examples(60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 64), st.integers(1, 64))
def test_evaluation_pixels_are_torchvisions(height, width, side, crop):
    image = pixels(height * 91 + width, height, width)
    torchvision = v2.Compose([v2.Resize(side), v2.CenterCrop(crop)])(Image.fromarray(image))
    assert levels_apart(evaluation_view(image, side, crop), np.asarray(torchvision)) <= 1


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (3, 400), (301, 403), (224, 224), (256, 256), (255, 511)])
def test_evaluation_pixels_are_torchvisions_at_full_size(size):
    image = pixels(5, *size)
    torchvision = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])(Image.fromarray(image))
    assert levels_apart(evaluation_view(image, 256, 224), np.asarray(torchvision)) <= 1
