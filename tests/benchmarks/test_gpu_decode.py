"""nvJPEG beside the loader; without a GPU the same decoder on the CPU."""

import json

import numpy as np
import pytest
import torch

from benchmarks import gpu_decode
from dataset.jpeg.resize import resize
from dataset.loader import DataConfig, open_split

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")


def test_both_give_whole_batches(digits, monkeypatch, command):
    monkeypatch.setattr(gpu_decode, "prepare", lambda options: setattr(options, "work", digits))
    monkeypatch.setattr(gpu_decode, "SIDE", 16)
    code, out, _ = command(gpu_decode.main, "--data", digits / "images/train", "--rounds", 1, "--batch", 50)
    loader, nvjpeg = map(json.loads, out.splitlines())
    assert (code, loader["decoder"], loader["ratio"], nvjpeg["decoder"]) == (0, "loader", 1, "nvjpeg")
    assert nvjpeg["ratio"] > 0


def test_windows_are_decoded_to_the_crops(digits, monkeypatch):
    monkeypatch.setattr(gpu_decode, "SIDE", 8)
    samples = open_split(DataConfig(str(digits / "lmdb"), num_workers=0), "train", "lmdb")
    batches = gpu_decode.windows_of(samples, 50)
    assert [len(batch) for batch in batches] == [50, 50]
    pixels = gpu_decode.decoded(batches[0], torch.device("cpu"))
    assert pixels.shape == (50, 3, 8, 8)
    for file, shown in zip(batches[0], pixels):
        whole = gpu_decode.vision_io.decode_jpeg(file).expand(3, -1, -1)
        expected = resize(np.ascontiguousarray(whole.permute(1, 2, 0).numpy()), 8, 8)
        assert np.abs(expected.astype(int) - shown.permute(1, 2, 0).numpy()).max() <= 2
