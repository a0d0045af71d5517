"""The decoder of windows: a stock decoder's pixels bit for bit, what it leaves to that, and `data.decode=exact`."""

import hashlib
import io

import numpy as np
import pytest
import torch
from dataset_helpers import damaged_in_midstream, examples, image_bytes
from hypothesis import given
from hypothesis import strategies as st
from odd_jpeg import FACTORS, odd_jpeg
from PIL import Image
from view_helpers import PHOTOS, decoded, opencv, shown, smooth_jpeg, whole, window_of

from dataset.feed.batches import BatchMaker
from dataset.feed.crops import window_axes
from dataset.feed.targets import Labels
from dataset.jpeg.decode import window_intervals
from dataset.jpeg.header import read_header
from dataset.jpeg.tiles import tile
from dataset.loader import DataConfig, EvalLoader, TrainLoader
from dataset.store.record import Record
from dataset.store.samples import Samples
from utils.errors import DataError

CPU = torch.device("cpu")
DONE, OTHER, DAMAGED = range(3)  # of src/decode.h
SIDES = st.integers(1, 9) | st.integers(1, 70)
ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"


def check_windows(data, windows):
    """The codec's pixels of the whole and of windows are OpenCV's."""
    expected = opencv(data)
    for top, left, high, wide in (whole(data), *windows):
        status, pixels = decoded(data, (top, left, high, wide))
        assert status == DONE
        assert np.array_equal(pixels, expected[top : top + high, left : left + wide])


def coloured(data, kind):
    """A JPEG of three components by other colours: `adobe N`, `names`, each with JFIF's segment or without."""
    header, changed = read_header(data), bytearray(data)
    if "names" in kind and header.components == 3:
        changed[header.frame + 10 : header.frame + 19 : 3] = changed[header.sos + 5 : header.sos + 11 : 2] = b"RGB"
    jfif, rest = bytes(changed[2:20]), bytes(changed[20:])
    before = ADOBE + bytes([int(kind.split("adobe ")[1][0])]) if "adobe" in kind else b""
    return b"\xff\xd8" + (jfif if "jfif" in kind else b"") + before + rest


@examples(150)
@given(
    st.integers(0, 10**6),
    SIDES,
    SIDES,
    st.sampled_from(sorted(FACTORS)),
    st.integers(0, 30),
    st.integers(0, 2),
    st.sampled_from(["jfif", "none", "adobe 0", "adobe 1", "adobe 0 jfif", "names", "names jfif", "names adobe 1"]),
    st.data(),
)
def test_windows_are_opencvs_for_every_sampling_interval_and_colour(
    seed, height, width, name, interval, fill, kind, draw
):
    data = coloured(odd_jpeg(seed, height, width, FACTORS[name], interval=interval, fill=fill), kind)
    check_windows(data, [window_of(draw.draw, height, width) for _ in range(4)])


def encoded(pixels, quantization, **save):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", qtables=[quantization.tolist()], **save)
    return file.getvalue()


@examples(60)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 20, 255]))
def test_the_inverse_transform_is_opencvs_up_to_the_largest_coefficients(seed, coarse):
    """Blocks of noise, of black and white, and along the DCT's own patterns, which have the largest there are."""
    random = np.random.default_rng(seed)
    places = np.arange(8)
    cosines = np.cos((2 * places + 1) * places[:, None] * np.pi / 16)  # [frequency, place]
    patterns = np.sign(np.einsum("uy,vx->uvyx", cosines, cosines) + 1e-9) * random.choice([-1, 1], (8, 8, 1, 1))
    noise, black_and_white = random.integers(0, 256, (64, 8, 8)), random.integers(0, 2, (64, 8, 8)) * 255
    faint = random.integers(0, 256, (64, 1, 1)) + random.integers(-9, 10, (64, 8, 8))
    blocks = np.concatenate([patterns.reshape(64, 8, 8) * 127.5 + 127.5, noise, black_and_white, faint])
    pixels = blocks.clip(0, 255).astype(np.uint8).reshape(16, 16, 8, 8).swapaxes(1, 2).reshape(128, 128)
    check_windows(encoded(pixels, random.integers(1, coarse + 1, 64)), [])


@pytest.mark.skipif(not PHOTOS, reason="no real photos: set LIMBECK_DATA")
def test_windows_of_real_photos_are_opencvs():
    random = np.random.default_rng(0)
    for path in PHOTOS[::4]:
        for data in (path.read_bytes(), tile(path.read_bytes())):
            high, wide = whole(data)[2:]
            top, left = random.integers(high), random.integers(wide)
            check_windows(data, [(top, left, random.integers(1, high - top + 1), random.integers(1, wide - left + 1))])


@examples(80)
@given(
    st.integers(0, 999),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(sorted(FACTORS)),
    st.integers(1, 20),
    st.data(),
)
def test_the_intervals_of_a_window_decode_exactly_it(seed, height, width, name, interval, draw):
    """What lies in others may be anything, and the MCUs that are decoded cover the window."""
    data = odd_jpeg(seed, height, width, FACTORS[name], interval=interval)
    top, left, high, wide = window = window_of(draw.draw, height, width)
    intervals, header = window_intervals(data, window), read_header(data)
    others = np.ones(len(data), bool)
    others[: header.scan] = False
    for start, end, _, _ in intervals:
        others[start:end] = False
    spoiled = np.frombuffer(data, np.uint8).copy()
    markers = (spoiled[:-1] == 0xFF) & (spoiled[1:] != 0)
    others[:-1] &= ~markers
    others[1:] &= ~markers
    spoiled[others] = 0x55
    assert np.array_equal(decoded(spoiled.tobytes(), window)[1], decoded(data, window)[1])
    (mcu_high, mcu_wide), columns = header.mcu, -(-width // header.mcu[1])
    read = np.zeros((-(-height // mcu_high), columns), bool)
    for _, _, first, end in intervals:
        assert first % interval == 0
        read.flat[first:end] = True
    assert read[
        top // mcu_high : (top + high - 1) // mcu_high + 1, left // mcu_wide : (left + wide - 1) // mcu_wide + 1
    ].all()


class Several(Samples):
    classes = ("a",)

    def __init__(self, files):
        self._files, self.labels = files, np.zeros(len(files), np.int64)

    def __len__(self):
        return len(self._files)

    def read(self, index):
        return Record(f"a/{index}", self._files[index], 0)


SOUND = {
    "progressive": image_bytes(1, 60, 50, progressive=True),
    "CMYK": image_bytes(2, 60, 50, mode="CMYK"),
    "PNG": image_bytes(3, 60, 50, kind="PNG"),
    "two scans": odd_jpeg(4, 60, 50, scans=[[0], [1, 2]], interval=2),
    "a scan twice": odd_jpeg(7, 60, 50, scans=[[0, 1, 2], [0, 1, 2]]),
    "markers out of turn": odd_jpeg(5, 60, 50, interval=2, marker=lambda number: 0xD0 | (number + 1) & 7),
    "reduced 70 times": smooth_jpeg(6, 700, 90, "420"),
    "reduced 40 times across": smooth_jpeg(6, 90, 400, "420"),
}
FRAME = b"\xff\xc0\0\x11\x08"
GIANTS = [
    odd_jpeg(1, 24, 32).replace(FRAME + b"\0\x18\0\x20", FRAME + 2 * side.to_bytes(2, "big"), 1)
    for side in (65535, 11000)
]
DAMAGED_FILES = {
    "arithmetic": odd_jpeg(1, 24, 32).replace(b"\xff\xc0", b"\xff\xc9", 1),
    "12 bits": odd_jpeg(1, 24, 32).replace(FRAME, b"\xff\xc1\0\x11\x0c", 1),
    "truncated": image_bytes(1, 60, 50)[:900],
    "ends in the middle": damaged_in_midstream(image_bytes(1, 64, 64)),
    "no steps": odd_jpeg(1, 24, 32, quantization=False),
    "65535 x 65535": GIANTS[0],
    "11000 x 11000": GIANTS[1],
    "text": b"text",
    "empty": b"",
}


def batch_of(file, decode, on_fault):
    config = DataConfig("", input_size=10, val_crop="squash", decode=decode, on_fault=on_fault)
    maker = BatchMaker(Several([file]), config, Labels(1), seed=None)
    batch = {name: np.zeros(shape, kind) for name, (kind, shape) in maker.layout(1).items()}
    batch["canvas"][:] = maker.canvas(np.arange(1), 0)
    remarks = maker.fill(batch, range(1), 0, np.zeros(2, np.int64), np.zeros(3, np.int64))
    return batch["images"].tobytes(), batch["index"].tolist(), remarks


@pytest.mark.parametrize("kind", SOUND)
def test_what_is_not_for_the_codec_is_shown_by_the_stock_decoder(kind):
    axes, _ = window_axes(np.array([(0, 0, 60, 50) if kind == "PNG" else whole(SOUND[kind])]), 10)
    assert shown(SOUND[kind], axes, 10)[1].all()
    assert batch_of(SOUND[kind], "planes", "stop") == batch_of(SOUND[kind], "exact", "stop")


@pytest.mark.parametrize("kind", DAMAGED_FILES)
def test_what_is_damaged_is_refused_as_by_the_stock_decoder(kind):
    data = DAMAGED_FILES[kind]
    if data.startswith(b"\xff\xd8"):
        axes, _ = window_axes(np.array([whole(data)]), 10)
        assert shown(data, axes, 10, fill=77)[0].tobytes() == bytes([77]) * 300
        assert decoded(data, (0, 0, 4, 4) if data in GIANTS else whole(data))[0] in (OTHER, DAMAGED)
    seen = [batch_of(data, decode, "skip") for decode in ("planes", "exact")]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("kind", [*SOUND, *DAMAGED_FILES])
def test_a_file_that_lies_in_a_shard_is_shown_or_refused_as_any_other(kind):
    data = {**SOUND, **DAMAGED_FILES}[kind]
    for decode in ("planes", "exact"):
        assert batch_of(memoryview(data), decode, "skip") == batch_of(data, decode, "skip")


# SHA-256 of the images of an epoch, by the version before the codec.
TRAINING = {
    (): "32fe8271226a7c213384d119baa76eb5088744c960b5da5af6d994b818b93dce",
    (("resize", "linear"),): "d758fcd1d7f49f18cd755c30a4a95a18217d8e84335a510c6c84c8da20f1d7cb",
    (("resize", "area"),): "b1297803b8e2c842c3d7954570fdd0bfc50347f4c29ae34944f503d04885e3a9",
    (("type_of_data_aug", "rand_scale"), ("rand_scale", (30, 60))): (
        "b86c61140196a3d73f4361903b90daa322614b056a3a1d68a8ca74363ef55c93"
    ),
    (("type_of_data_aug", "pad_crop"),): "e813a29310bfa54b3d08318a1c600f5e7ee60443fabbf32a346b4160862ad53a",
}
EVALUATION = {
    (): "3542ba581483aebc685907c8ef7a7ccde186786deebcb7ba14cde8952fd0c9db",
    (("val_resize", 20),): "78f4d83ec2c4719411bd65974cc589f4ed024cd365f1acfb4a23869b7e7389c8",
    (("val_crop", "squash"),): "c1456f9e5f2ef50d89509a2b27f893f7c7f27f7a76ea46173f0387cf42a162bc",
}


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("more", [*TRAINING, *((*more, "eval") for more in EVALUATION)])
def test_exact_pixels_are_those_that_they_always_were(more, tiled):
    names = ("gray", "4:4:4", "4:2:0", "4:2:2", "4:4:0", "unequal chroma")
    files = [odd_jpeg(number, 50 + 30 * number, 190 - 25 * number, FACTORS[name]) for number, name in enumerate(names)]
    samples = Several([tile(file) for file in files] if tiled else files)
    evaluates, more = more[-1:] == ("eval",), tuple(pair for pair in more if pair != "eval")
    sizes = {"batch_size": 6, "val_batch_size": 6, "input_size": 24, "val_resize": 28, "num_workers": 0}
    config = DataConfig("", **{**sizes, **dict(more)}, decode="exact")
    if evaluates:
        loader = EvalLoader(samples, config, rank=0, world=1, device=CPU)
        (batch,) = loader
    else:
        loader = TrainLoader(samples, config, seed=3, rank=0, world=1, device=CPU)
        (batch,) = loader.epoch(0)
    images = batch.named["images"].permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    loader.close()
    assert hashlib.sha256(images).hexdigest() == (EVALUATION if evaluates else TRAINING)[more]


def test_a_record_that_cannot_be_read_is_named():
    with pytest.raises(DataError, match="a/0: truncated JPEG"):
        batch_of(DAMAGED_FILES["truncated"][:100], "planes", "stop")
