"""Loaders of detectors side by side: `benchmarks/detection_loader.py`, on a few photos in its own process."""

import os
import time
from itertools import islice
from multiprocessing import Pipe
from pathlib import Path
from threading import Thread

import pytest
import torch

from benchmarks.detection_loader import LOADERS, prepare
from benchmarks.loader import serve

DATA = Path(os.environ.get("LIMBECK_DATA", "../shared/data")) / "voc2007_subset"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not DATA.exists():
        pytest.skip(f"no photos at {DATA}: set LIMBECK_DATA")
    return prepare(DATA, tmp_path_factory.mktemp("photos"), 1)


def test_all_show_the_same_photos_in_batches_of_the_same_kind(folder):
    numbers = {}
    for name, start in LOADERS.items():
        numbers[name] = []
        for batch in start(folder, 3, 0)(1):
            numbers[name].append(batch.numbers.tolist())
            high, wide = batch.images.shape[2:]
            assert batch.images.shape[:2] == (3, 3)
            assert high % 32 == wide % 32 == 0
            assert max(high, wide) <= 1344
            assert batch.images.dtype == (torch.uint8 if "uint8" in name else torch.float32)
            assert (batch.images != 0).any(dim=1).float().mean() > 0.5
            for boxes in batch.boxes:
                assert len(boxes)
                assert boxes.min() > -0.01  # torchvision mirrors in float32
                assert (boxes <= torch.tensor([wide, high, wide, high]) + 0.001).all()
                assert (boxes[:, 2:] > boxes[:, :2]).all()
    (first, *others) = numbers.values()
    assert len(first) == 57 // 3
    assert all(other == first for other in others), numbers


def test_normalised_batches_are_those_of_bytes_with_zeros_around_images(folder):
    mean, std = (255 * torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    normalised, plain = (LOADERS[name](folder, 3, 0)(0) for name in ("Limbeck", "Limbeck, uint8"))
    zeros = 0
    for one, other in islice(zip(normalised, plain, strict=True), 5):
        known = (one.images != 0).any(dim=1, keepdim=True)  # [B, 1, H, W]
        assert torch.allclose(one.images, (other.images - mean) / std * known, atol=1e-5)
        assert not (other.images * ~known).any()
        zeros += (~known).sum()
    assert zeros


@pytest.fixture
def served():
    """What `serve` sends for a function that starts a loader, and for two epochs of it."""

    def call(make):
        ours, theirs = Pipe()
        thread = Thread(target=serve, args=(theirs, make))
        thread.start()
        sent = [ours.recv()]
        if sent == [None]:
            for number in range(2):
                ours.send(number)
                sent.append(ours.recv())
        ours.close()
        thread.join()
        return sent

    return call


def test_an_epoch_is_timed_in_seconds_and_in_those_of_the_cores(served):
    def busy(_epoch):
        end = time.process_time() + 0.3
        while time.process_time() < end:
            yield None

    ready, *epochs = served(lambda: busy)
    assert ready is None
    assert all(0.25 < one.worked < one.seconds + 0.1 for one in epochs)


def test_a_loader_that_is_not_installed_says_so(served):
    def missing():
        raise ImportError("no such package")

    assert served(missing) == ["no such package"]
