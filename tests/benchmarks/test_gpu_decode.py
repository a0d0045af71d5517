"""nvJPEG beside the loader; without a GPU the same decoder on the CPU."""

import json

import numpy as np
import pytest
import torch

from benchmarks import gpu_decode
from dataset.feed.crops import random_resized_crop, uniform
from dataset.jpeg.decode import decode
from dataset.loader import DataConfig, open_split

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")


def test_both_give_whole_batches(digits, monkeypatch, command):
    monkeypatch.setattr(gpu_decode, "prepare", lambda options: setattr(options, "work", digits))
    monkeypatch.setattr(gpu_decode, "SIDE", 16)
    code, out, _ = command(gpu_decode.main, "--data", digits / "images/train", "--rounds", 1, "--batch", 50)
    loader, nvjpeg = map(json.loads, out.splitlines())
    assert (code, loader["decoder"], loader["ratio"], nvjpeg["decoder"]) == (0, "loader", 1, "nvjpeg")
    assert nvjpeg["images_per_second"] > 0


def test_windows_are_decoded_to_the_crops(digits):
    samples = open_split(DataConfig(str(digits / "lmdb"), num_workers=0), "train", "lmdb")
    batches = gpu_decode.windows_of(samples, 50)
    assert [len(batch) for batch in batches] == [50, 50]
    crops = random_resized_crop(uniform(0, 0, np.arange(100), 40), samples.sizes[:100], (0.08, 1.0), (3 / 4, 4 / 3))
    pixels = [one for batch in batches for one in gpu_decode.decoded(batch, torch.device("cpu"))]
    for number, ((top, left, height, width), shown) in enumerate(zip(crops.tolist(), pixels, strict=True)):
        expected = decode(bytes(samples.read(number).image))[top : top + height, left : left + width]
        assert shown.shape == (3, height, width)
        assert np.abs(expected.mean((0, 1)) - shown.numpy().mean((1, 2))).max() < 8  # coded once more
