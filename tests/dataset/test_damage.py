"""What is packed is sound, and decodes to the pixels of the original."""

import io
from contextlib import suppress
from threading import Thread

import numpy as np
import pytest
from dataset_helpers import image_bytes, pixels
from odd_jpeg import EOI, FACTORS, odd_jpeg, segment
from PIL import Image

from dataset.jpeg import damage, fit, rgb
from dataset.jpeg.decode import decode, decode_window
from dataset.jpeg.header import BadImage, read_header, scan_headers
from dataset.jpeg.images import as_jpeg, read_image
from dataset.jpeg.raw import raw_pixels
from dataset.jpeg.tiles import compare, tile, tiled, walk
from dataset.sources.cifar import find_cifar
from dataset.store.storage import AsPixels
from utils.console import progress

TILED = fit.Fitting()
WAYS = {
    "tiled": TILED,
    "untiled": fit.Fitting(tiles=False),
    "shrunk": fit.Fitting(image_size=16),
}


def photo(seed=0, **save):
    """Noisy enough that every block has many coefficients."""
    noise = np.random.default_rng(seed).integers(-40, 41, (96, 128, 3))
    file = io.BytesIO()
    image = np.clip(pixels(seed, 96, 128).astype(int) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(image).convert(save.pop("mode", "RGB")).save(file, "JPEG", **{"quality": 90, **save})
    return file.getvalue()


def overwritten(data, block, at=0.4):
    start = read_header(data).scan
    place = start + int((len(data) - start) * at)
    return data[:place] + block + data[place + len(block) :]


FILES = {
    "baseline": photo(),
    "gray": photo(mode="L"),
    "restarts": photo(restart_marker_blocks=5),
    "progressive": photo(progressive=True),
    "CMYK": photo(mode="CMYK"),
    "odd sampling": odd_jpeg(1, 96, 128, FACTORS["unequal chroma"]),
    "three scans": odd_jpeg(1, 96, 128, scans=[[0], [1], [2]], interval=7),
}
SMALL = image_bytes(0, 24, 32, comment=b"a comment")
DAMAGE = {
    "zeros": lambda data: overwritten(data, bytes(300)),
    "noise": lambda data: overwritten(data, np.random.default_rng(0).integers(0, 255, 300).astype(np.uint8).tobytes()),
    "ones": lambda data: overwritten(data, b"\xff" * 300),
    "its own bytes": lambda data: overwritten(data, data[read_header(data).scan :][:300]),
    "a block lost": lambda data: data[: len(data) // 2] + data[len(data) // 2 + 300 :],
    "line ends": lambda data: data.replace(b"\n", b"\r\n"),
    "cut, with an end marker": lambda data: data[: len(data) // 2] + EOI,
    "cut": lambda data: data[: len(data) * 3 // 4],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FILES)
def test_a_sound_file_is_packed_with_its_pixels(name, way):
    data = FILES[name]
    stored, height, width, _ = fit.fit(data, WAYS[way])
    assert (height, width) == ((16, 21) if way == "shrunk" else (96, 128))
    if name != "CMYK" and way != "shrunk":
        assert np.array_equal(decode(stored), decode(data))
        for left, right in ((0, 60), (60, 128)):
            window = (0, left, 96, right - left)
            assert np.array_equal(decode_window(stored, window), decode(data)[:, left:right])
    assert damage.find_damage(stored) is None


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_however_it_is_packed(name, kind):
    data = DAMAGE[kind](FILES[name])
    for way in WAYS.values():
        with pytest.raises(BadImage):
            fit.fit(data, way)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (odd_jpeg(1, 24, 32, last=0), "Invalid SOS parameters"),
        (odd_jpeg(1, 24, 32, padding=b"\0\0"), "2 unread bytes"),
        (odd_jpeg(1, 24, 32, stray=b"\0\0\0"), "3 stray bytes"),
        (odd_jpeg(1, 24, 32, stray=b"\xff\0"), "2 stray bytes"),
        (photo(progressive=True).replace(b"\xff\xdb", b"\0\0\xff\xdb", 1), "2 stray bytes"),
        (photo(progressive=True)[:-2] + b"\0" + EOI, "extraneous bytes before marker 0xd9"),
    ],
)
def test_a_harmless_flaw_is_kept_and_reported(data, why):
    for way in ("tiled", "untiled"):
        stored, *_, remark = fit.fit(data, WAYS[way])
        assert why in remark
        assert np.array_equal(decode(stored), decode(data))


@pytest.mark.parametrize("name", ["progressive", "three scans"])
def test_scans_that_are_missing_are_damage_though_no_decoder_warns(name):
    data = FILES[name]
    places = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    assert len(places) > 2
    for place in places[1:]:
        with pytest.raises(BadImage, match="last scans are missing"):
            fit.fit(data[:place] + EOI, TILED)


def test_a_harmless_flaw_hides_no_damage():
    for flaw in ({"last": 0}, {"padding": b"\0\0"}, {"stray": b"\0"}):
        with pytest.raises(BadImage):
            fit.fit(overwritten(odd_jpeg(1, 96, 128, **flaw), bytes(300)), TILED)


def test_every_flipped_bit_of_a_png_is_harmless_or_named():
    data = image_bytes(0, 24, 32, kind="PNG")
    right = rgb.rgb_pixels(data)[1]
    for position in range(8, len(data)):
        bad = bytearray(data)
        bad[position] ^= 1 << position % 8
        with suppress(BadImage):
            assert np.array_equal(rgb.rgb_pixels(bytes(bad))[1], right), position


def test_what_follows_the_end_marker_is_no_scan(monkeypatch):
    film = b"\xff\xda\0\2" * 99
    for data, scans in ((photo(), 1), (photo(progressive=True), 10)):
        assert len(scan_headers(data + film, read_header(data))) == scans
    monkeypatch.setattr(damage, "_MAX_WORK", 20_000)
    assert damage.find_damage(photo() + film) is None


def test_coefficients_that_no_pixels_have_are_damage():
    """Nothing but the values tells that a scan of the right length went astray."""
    astray = segment(0xDB, b"\0" + bytes([255] * 64))
    data = odd_jpeg(1, 96, 128)
    place = data.index(b"\xff\xdb")
    with pytest.raises(BadImage, match="coefficients that no pixels have"):
        fit.fit(data[:place] + astray + data[place + len(astray) :], TILED)


def test_a_progress_bar_is_no_warning_of_the_decoder(monkeypatch):
    decode_it = damage.opencv_pixels

    def with_a_bar(data, *, reduce):
        drawing = Thread(target=bar.refresh)  # as tqdm's monitor does
        drawing.start()
        drawing.join(0.2)
        return decode_it(data, reduce=reduce)

    monkeypatch.setattr(damage, "opencv_pixels", with_a_bar)
    with open(2, "w", closefd=False) as file, progress(total=3, desc="checking", file=file) as bar:
        assert damage.find_damage(photo(progressive=True)) is None


def test_what_decodes_to_other_pixels_is_refused(monkeypatch):
    other = tile(photo(1))
    monkeypatch.setattr(fit, "tiled", lambda walked: other)
    with pytest.raises(BadImage, match="other pixels"):
        fit.fit(photo(), TILED)


def test_no_flipped_bit_of_what_is_stored_is_passed_over():
    """Nor one in a comment or in padding: it is the file that was walked, or is refused."""
    walked = walk(SMALL)
    stored = tiled(walked)
    compare(stored, walked)
    for position in range(8 * len(stored)):
        flipped = bytearray(stored)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(BadImage, match="other pixels"):
            compare(bytes(flipped), walked)
    for length in range(len(stored)):
        with pytest.raises(BadImage, match="other pixels"):
            compare(stored[:length], walked)


def gray(kind, values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


RAMP = np.linspace(0, 1, 24 * 32).reshape(24, 32)
EIGHT_BITS = np.floor(RAMP * 255.999)


@pytest.mark.parametrize(
    "data",
    [
        gray("PNG", (RAMP * 65535).astype(np.uint16)),
        gray("TIFF", (RAMP * 65535).astype(np.uint16)),
        gray("TIFF", (RAMP * 65535).astype(np.int32)),
        gray("TIFF", RAMP.astype(np.float32)),
        gray("PNG", EIGHT_BITS.astype(np.uint8)),
        gray("PPM", (RAMP * 65535).astype(np.int32)),
    ],
)
def test_gray_of_any_depth_becomes_what_a_viewer_shows(data):
    _, shown = rgb.rgb_pixels(data)
    assert np.abs(shown - EIGHT_BITS[..., None]).max() <= 1
    stored, _, remark = as_jpeg(data)
    assert "converted to RGB JPEG" in remark
    assert np.abs(decode(stored).astype(int) - EIGHT_BITS[..., None]).max() <= 4


def test_transparency_shows_white_and_palettes_their_colours():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 4, 8))
    opaque = clear.convert("RGB").quantize(4)
    for image, right in ((clear, 255), (opaque, 0)):
        for kind in ("PNG", "TIFF", "GIF", "WEBP"):
            file = io.BytesIO()
            image.save(file, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
            shown = rgb.rgb_pixels(file.getvalue())[1]
            assert shown[0, 0].tolist() == [0, 0, 255]
            assert shown[0, 7].tolist() == [255, right, right]


def test_white_may_be_zero():
    file = io.BytesIO()
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(file, "TIFF", tiffinfo={262: 0})
    shown = rgb.rgb_pixels(file.getvalue())[1]
    assert np.abs(shown - (255.0 - EIGHT_BITS[..., None])).max() <= 1


@pytest.mark.parametrize(
    "values",
    [
        np.full((8, 8), -3.0, np.float32),
        np.full((8, 8), np.nan, np.float32),
        np.full((8, 8), 200, np.int32),  # which may be of 8 bits
        np.full((8, 8), 200, np.uint16),
        np.full((8, 8), 1 << 20, np.int32),
    ],
)
def test_values_without_a_meaning_are_refused(values):
    with pytest.raises(BadImage, match="black and white"):
        rgb.rgb_pixels(gray("TIFF", values))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"\n<HTML>", "HTML"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (bytes(1000), "1,000 bytes of zero"),
        (b"", "an empty file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"PK\x03\x04rest", "zip"),
        (b"some words", "some words"),
    ],
)
def test_what_is_no_image_is_called_by_its_kind(data, what):
    messages = set()
    for _ in range(2):
        with pytest.raises(BadImage, match=what) as refusal:
            fit.fit(data, TILED)
        messages.add(str(refusal.value))
    assert len(messages) == 1
    assert "0x7f" not in messages.pop()


def test_an_image_above_the_limits_is_refused_and_shrunk_where_that_helps(monkeypatch, tmp_path):
    monkeypatch.setattr(rgb, "MAX_PIXELS", 5000)
    monkeypatch.setattr(fit, "MAX_PIXELS", 5000)
    with monkeypatch.context() as without:
        without.delattr(damage, "opencv_pixels")  # before any memory is taken for them
        with pytest.raises(BadImage, match=r"128 x 96 pixels, the limit is 5,000: .*--image_size"):
            fit.fit(photo(), TILED)
    shrunk, height, width, _ = fit.fit(photo(), WAYS["shrunk"])
    whole = np.asarray(Image.open(io.BytesIO(photo())).convert("RGB").resize((width, height), Image.Resampling.BOX))
    assert np.abs(decode(shrunk).astype(int) - whole).mean() < 8
    with pytest.raises(BadImage, match="the limit is 5,000"):
        fit.fit(image_bytes(0, 96, 128, kind="PNG"), WAYS["shrunk"])
    monkeypatch.setattr(damage, "_MAX_WORK", 20_000)
    with pytest.raises(BadImage, match="scans of 128 x 96 pixels take too long"):
        damage.find_damage(photo(progressive=True))
    monkeypatch.setattr(fit, "MAX_STORED", 1000)
    monkeypatch.setattr(rgb, "MAX_PIXELS", 1 << 20)
    with pytest.raises(BadImage, match="bytes to store, the limit is 1,000"):
        fit.fit(photo(), TILED)
    file = tmp_path / "photo.JPEG"
    file.write_bytes(photo())
    monkeypatch.setattr("dataset.jpeg.images.MAX_BYTES", 1000)
    with pytest.raises(BadImage, match="the limit is 1,000"):
        read_image(file)


def test_small_images_from_folders_are_checked_too(tmp_path):
    for name, data in (("train/a/1.jpg", photo()), ("train/a/2.jpg", DAMAGE["zeros"](photo()))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    images = find_cifar(tmp_path, "train")
    stored = AsPixels().store(images.record(0))
    assert (stored.height, stored.width) == raw_pixels(stored.record.image).shape[:2] == (96, 128)
    with pytest.raises(BadImage, match="damaged JPEG"):
        AsPixels().store(images.record(1))
