"""Every loader keeps one law: what comes after a checkpoint equals what would have come without it."""

import numpy as np
import pytest
import torch
from dataset_helpers import image_bytes, image_tree, make_lists, pack_images
from laws import resumes_exactly
from splits import write_split, write_wsld

from dataset.config import DataConfig
from dataset.jpeg.raw import encode_raw
from dataset.loader import TrainLoader, open_split
from dataset.store.record import Record

CPU = torch.device("cpu")
AUGMENTATIONS = {
    "plain": {},
    "colours": {"color_jitter": 0.4},
    "random scale": {"type_of_data_aug": "rand_scale", "rand_scale": (16, 30)},
    "padded": {"type_of_data_aug": "pad_crop"},
    "centre": {"type_of_data_aug": "none"},
    "squashed": {"type_of_data_aug": "squash", "cutout": 0.5, "randaugment": True},
    "strong view": {"strong_view": True},
    "mixed": {"mixup": 0.8, "cutmix": 1.0},
    "randaugment": {"auto_augment": "ra", "random_erase": 0.5, "erase_mode": "pixel"},
    "timm": {"auto_augment": "ra_timm", "random_erase": 0.5, "erase_mode": "rand", "mixup": 0.8},
    "repeated": {"repeats": 2, "auto_augment": "ta_wide", "color_jitter": 0.4},
    "repeated blocks": {"repeats": 4, "order": "blocks", "open_shards": 2, "num_workers": 2, "random_erase": 0.5},
    "blocks": {"order": "blocks", "open_shards": 2},
    "processes": {"num_workers": 2, "color_jitter": 0.4},
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """40 training images in every kind of store."""
    root = tmp_path_factory.mktemp("stores")
    image_tree(root / "images", classes=2, images=20)
    make_lists(root)
    pack_images(root, "--shard_mb", "0", split="train")
    files = {f"n{number % 2}/{number}.JPEG": (image_bytes(number), number % 2) for number in range(40)}
    write_wsld(root / "wsld/train", files)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 14, 14, 3), np.uint8)
    raw = [Record(str(number), encode_raw(one), number % 3) for number, one in enumerate(pixels)]
    write_split(root / "raw/train", raw[:25], raw[25:], size=(14, 14))
    return root


def make(path, kind, **more):
    """How a loader of a store is made."""
    config = DataConfig(path, **{"batch_size": 8, "num_workers": 0, "input_size": 14, **more})

    def loader(rank, world):
        return TrainLoader(open_split(config, "train", kind), config, 3, rank, world, CPU)

    return loader


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_with_every_augmentation_and_order(stores, augmentation):
    resumes_exactly(make(str(stores / "lmdb"), "lmdb", **AUGMENTATIONS[augmentation]))


@pytest.mark.parametrize("store", ["images", "wsld", "raw", "url"])
def test_of_every_store(stores, tmp_path, store):
    if store == "images":
        resumes_exactly(make(str(stores / "images"), "img"))
    elif store == "url":
        resumes_exactly(make(f"file://{stores / 'lmdb'}", "lmdb", cache_path=str(tmp_path), order="blocks"))
    else:
        resumes_exactly(make(str(stores / store), "lmdb"))
