"""CIFAR's files, raw records and the padded crop."""

import os
import pickle

import cv2
import numpy as np
import pytest
import torch
from conftest import call
from dataset_helpers import flip_bit, image_bytes, shard_bytes, write_tree
from PIL import Image

from dataset import DataConfig, EvalLoader, TrainLoader, open_split
from dataset.feed.crops import padded_crop, uniform
from dataset.jpeg.decode import decode
from dataset.jpeg.images import image_size
from dataset.jpeg.raw import encode_raw, padded_window, raw_pixels
from dataset.sources.cifar import find_cifar
from dataset.store.reader import ShardReader
from utils.errors import DataError, UsageError

CLASSES = ["cat", "dog", "yak"]


def made(split, count):
    generator = np.random.default_rng(len(split))
    return generator.integers(0, 256, (count, 32, 32, 3), np.uint8), generator.integers(0, 3, count).tolist()


def rows(pixels):
    """[N, 32, 32, 3] -> [N, 3072], one channel after the other."""
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol=2))


def write_pickles(folder, hundred):
    splits = {"train": made("train", 20), "val": made("val", 6)}
    if hundred:
        dump(folder / "meta", {b"fine_label_names": [b"cat", b"dog", b"yak"], b"coarse_label_names": [b"pet", b"wild"]})
        parts = {name: splits[split] for split, name in (("train", "train"), ("val", "test"))}
    else:
        dump(folder / "batches.meta", {b"label_names": [b"cat", b"dog", b"yak"]})
        pixels, labels = splits["train"]
        parts = {f"data_batch_{n + 1}": (pixels[4 * n : 4 * n + 4], labels[4 * n : 4 * n + 4]) for n in range(5)}
        parts["test_batch"] = splits["val"]
    for name, (pixels, labels) in parts.items():
        names = [f"{name}_{number}.png".encode() for number in range(len(pixels))]
        batch = {b"data": rows(pixels), b"filenames": names}
        key = {b"fine_labels": labels, b"coarse_labels": [int(label == 2) for label in labels]}
        dump(folder / name, batch | (key if hundred else {b"labels": labels}))
    return splits


def write_binary(folder, hundred):
    folder.mkdir(parents=True)
    splits = {"train": made("train", 20), "val": made("val", 6)}

    def write(name, pixels, labels):
        columns = [np.array(labels, np.uint8)[:, None], rows(pixels)]
        coarse = [(np.array(labels) == 2).astype(np.uint8)[:, None]] if hundred else []
        (folder / name).write_bytes(np.concatenate(coarse + columns, axis=1).tobytes())

    if hundred:
        (folder / "fine_label_names.txt").write_text("cat\ndog\nyak\n")
        (folder / "coarse_label_names.txt").write_text("pet\nwild\n")
        write("train.bin", *splits["train"])
        write("test.bin", *splits["val"])
    else:
        (folder / "batches.meta.txt").write_text("cat\ndog\nyak\n\n")
        pixels, labels = splits["train"]
        for n in range(5):
            write(f"data_batch_{n + 1}.bin", pixels[4 * n : 4 * n + 4], labels[4 * n : 4 * n + 4])
        write("test_batch.bin", *splits["val"])
    return splits


FORMS = {
    "cifar-10-batches-py": lambda folder: write_pickles(folder, False),
    "cifar-100-python": lambda folder: write_pickles(folder, True),
    "cifar-10-batches-bin": lambda folder: write_binary(folder, False),
    "cifar-100-binary": lambda folder: write_binary(folder, True),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_official_files_are_packed_pixel_for_pixel(form, tmp_path):
    splits = FORMS[form](tmp_path / form)
    call("dataset/cifar2lmdb.py", "--image_path", str(tmp_path), "--output_path", str(tmp_path / "lmdb"))
    config = DataConfig(str(tmp_path / "lmdb"))
    for split, (pixels, labels) in splits.items():
        samples = open_split(config, split, "lmdb")
        assert samples.classes == tuple(CLASSES)
        assert samples.labels.tolist() == labels
        for number in range(len(samples)):
            record = samples.read(number)
            assert np.array_equal(decode(record.image), pixels[number])
            assert record.key.startswith(f"{CLASSES[labels[number]]}/")
        samples.close()


def test_it_has_every_packers_abilities(tmp_path):
    write_pickles(tmp_path / "cifar-10-batches-py", False)
    paths = ("dataset/cifar2lmdb.py", "--image_path", str(tmp_path), "--num_workers", "1", "--output_path")
    whole, parts = (str(tmp_path / name) for name in ("whole", "parts"))
    words = ("--shard_mb", "0", "--shuffle")
    call(*paths, whole, *words)
    for part in ("1/2", "2/2"):
        printed = call(*paths, parts, *words, "--part", part).stdout
        assert "10 of 20 shards; run the command without --part to join them" in printed
    finished = (tmp_path / "parts/train/00003.lmdb").stat().st_mtime_ns
    call(*paths, parts, *words)
    assert (tmp_path / "parts/train/00003.lmdb").stat().st_mtime_ns == finished
    for split in ("train", "val"):
        assert shard_bytes(tmp_path / "parts" / split) == shard_bytes(tmp_path / "whole" / split)
        reader, source = ShardReader(tmp_path / "whole" / split), find_cifar(tmp_path, split)
        assert reader.index.packing == {"pixels": "raw", "shuffle": True}
        assert reader.keys() != source.keys
        packed = {key: reader.read(number).image for number, key in enumerate(reader.keys())}
        assert packed == {key: source.image(number) for number, key in enumerate(source.keys)}
    assert "begun with another list_sha256, shuffle" in call(*paths, parts, "--shard_mb", "0", code=2).stderr
    flip_bit(tmp_path / "parts/val/00002.lmdb", 5000)
    assert "val/00002.lmdb is not what was packed" in call(*paths, parts, *words, code=3).stderr


def test_damaged_images_are_all_named_or_left_out(tmp_path):
    files = {f"train/cat/{number}.png": image_bytes(number, kind="PNG") for number in range(4)}
    files |= {"train/cat/1.png": b"", "train/cat/2.png": b"hello", "val/cat/0.png": image_bytes(9, kind="PNG")}
    write_tree(tmp_path / "images", files)
    words = ("dataset/cifar2lmdb.py", "--image_path", str(tmp_path / "images"), "--output_path", str(tmp_path / "lmdb"))
    error = call(*words, code=3).stderr
    assert all(f"images/train/cat/{number}.png: " in error for number in (1, 2))
    assert "2 images cannot be packed" in error
    for _ in range(2):  # the second time, what was left out is counted by what the first wrote down
        call(*words, "--skip_bad")
        reader = ShardReader(tmp_path / "lmdb/train")
        assert reader.keys() == ["cat/0.png", "cat/3.png"]
        assert reader.index.packing == {"pixels": "raw", "skip_bad": True}
    assert (tmp_path / "lmdb/train/report.txt").read_text().count("png: left out, ") == 2


def test_splits_from_before_plans_are_verified(tmp_path):
    write_binary(tmp_path / "cifar-10-batches-bin", False)
    words = ("dataset/cifar2lmdb.py", "--image_path", str(tmp_path), "--output_path", str(tmp_path / "lmdb"))
    call(*words)
    for split in ("train", "val"):
        for name in ("plan.json", "report.txt", "00000.remarks.json"):
            (tmp_path / "lmdb" / split / name).unlink()
    before = shard_bytes(tmp_path / "lmdb/val")
    assert call(*words).stdout.count("packed before, verified") == 2
    assert shard_bytes(tmp_path / "lmdb/val") == before
    flip_bit(tmp_path / "lmdb/val/00000.lmdb", 5000)
    assert "val/00000.lmdb is not what the index describes" in call(*words, code=3).stderr
    (tmp_path / "lmdb/val/index.json").unlink()  # killed before it was written
    call(*words)
    after = shard_bytes(tmp_path / "lmdb/val")
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("form", ["cifar-100-python", "cifar-100-binary"])
def test_superclasses(form, tmp_path):
    splits = FORMS[form](tmp_path / form)
    images = find_cifar(tmp_path / form, "train", coarse=True)
    assert images.classes == ("pet", "wild")
    assert images.targets == [int(label == 2) for label in splits["train"][1]]


def test_class_folders_are_packed_as_they_decode(tmp_path):
    pixels, labels = made("folders", 9)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        path = tmp_path / ("train" if number < 6 else "test") / CLASSES[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    for name in CLASSES:
        (tmp_path / "train" / name).mkdir(exist_ok=True)
    call("dataset/cifar2lmdb.py", "--image_path", str(tmp_path), "--output_path", str(tmp_path / "lmdb"))
    samples = open_split(DataConfig(str(tmp_path / "lmdb")), "val", "lmdb")
    by_key = {f"{CLASSES[label]}/{number}.png": image for number, (image, label) in enumerate(zip(pixels, labels))}
    assert len(samples) == 3
    for number in range(3):
        record = samples.read(number)
        assert np.array_equal(raw_pixels(record.image), by_key[record.key])


@pytest.mark.parametrize("form", ["cifar-10-batches-py", "cifar-10-batches-bin", "class folders"])
def test_superclasses_that_are_not_there_are_refused(form, tmp_path):
    if form in FORMS:
        FORMS[form](tmp_path / form)
    else:
        write_tree(tmp_path, {f"{split}/cat/0.png": image_bytes(0, kind="PNG") for split in ("train", "val")})
    with pytest.raises(UsageError, match=r"--coarse: .* CIFAR-100"):
        find_cifar(tmp_path, "train", coarse=True)


def test_a_missing_validation_split_is_reported_before_anything_is_written(tmp_path):
    write_tree(tmp_path, {"train/cat/0.png": image_bytes(0, kind="PNG")})
    words = ("--image_path", str(tmp_path), "--output_path", str(tmp_path / "lmdb"))
    assert "has train/, but neither val/ nor test/" in call("dataset/cifar2lmdb.py", *words, code=2).stderr
    assert not (tmp_path / "lmdb").exists()


def test_a_file_as_the_output_folder_is_refused(tmp_path):
    write_binary(tmp_path / "cifar-10-batches-bin", False)
    (tmp_path / "file").touch()
    words = ("--image_path", str(tmp_path), "--output_path", str(tmp_path / "file"))
    assert "UsageError: --output_path: " in call("dataset/cifar2lmdb.py", *words, code=2).stderr


def test_damaged_and_dangerous_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match="holds none of cifar-10-batches-py"):
        find_cifar(tmp_path, "train")
    folder = tmp_path / "cifar-100-python"
    write_pickles(folder, True)
    whole = (folder / "train").read_bytes()
    (folder / "train").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"cifar-100-python/train: .*; fetch it again"):
        find_cifar(tmp_path, "train")
    (folder / "train").unlink()
    with pytest.raises(UsageError, match="train is missing"):
        find_cifar(tmp_path, "train")
    dump(folder / "train", {b"data": print})
    with pytest.raises(DataError, match="it asks for"):
        find_cifar(tmp_path, "train")
    dump(folder / "train", {b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [0, 3], b"filenames": [b"a", b"b"]})
    with pytest.raises(DataError, match=r"labels \[3\] of 3 classes"):
        find_cifar(tmp_path, "train")
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [0, 1], b"filenames": [b"a", b"b"]}
    for other in ({b"fine_labels": [0, [1]]}, {b"fine_labels": 3}, {b"filenames": [b"a", 1]}, {b"data": [1, 2]}):
        dump(folder / "train", batch | other)
        with pytest.raises(DataError, match=r"cifar-100-python/train: not a CIFAR batch"):
            find_cifar(tmp_path, "train")
    dump(folder / "meta", {b"fine_labels": [b"cat"]})
    with pytest.raises(DataError, match=r"cifar-100-python/meta: .* its fine_label_names"):
        find_cifar(tmp_path, "train")
    binary = tmp_path / "other" / "cifar-10-batches-bin"
    write_binary(binary, False)
    (binary / "data_batch_2.bin").write_bytes(b"\0" * 3072)
    with pytest.raises(DataError, match=r"data_batch_2.bin: truncated at 3072 bytes"):
        find_cifar(tmp_path / "other", "train")


def test_names_that_are_not_utf8_are_spelled_in_the_index(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_tree(tmp_path, {f"{split}/{name}/0.png": image_bytes(0, 8, 8, kind="PNG") for split in ("train", "val")})
    call("dataset/cifar2lmdb.py", "--image_path", str(tmp_path), "--output_path", str(tmp_path / "lmdb"))
    assert open_split(DataConfig(str(tmp_path / "lmdb")), "train", "lmdb").classes == (r"caf\xe9",)
    write_binary(tmp_path / "cifar-10-batches-bin", False)
    (tmp_path / "cifar-10-batches-bin/batches.meta.txt").write_bytes(b"caf\xe9\ndog\nyak\n")
    assert os.fsencode(find_cifar(tmp_path, "train").classes[0]) == b"caf\xe9"


def test_large_images_are_not_stored_raw(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.fromarray(np.zeros((300, 40, 3), np.uint8)).save(tmp_path / split / "cat" / "a.png")
    packed = call("dataset/cifar2lmdb.py", "--image_path", str(tmp_path), "--output_path", str(tmp_path / "l"), code=2)
    assert "40 x 300 pixels are too many to store raw; img2lmdb.py packs such" in packed.stderr


def test_raw_pixels_are_a_ppm_that_others_read():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    data = encode_raw(pixels)
    assert image_size(data) == (5, 7)
    assert np.array_equal(raw_pixels(data), pixels)
    opened = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(opened, pixels)
    assert raw_pixels(data[:-1]) is None
    assert raw_pixels(b"P6\n7 5\n65535\n" + pixels.tobytes()) is None


@pytest.mark.parametrize("mirror", [False, True])
def test_a_padded_window_is_that_of_the_image_in_a_black_frame(mirror):
    pixels = np.random.default_rng(1).integers(1, 256, (9, 8, 3), np.uint8)
    framed = np.pad(pixels, ((12, 12), (12, 12), (0, 0)))
    for top in range(-9, 10):
        for left in range(-9, 10):
            out = np.empty((7, 7, 3), np.uint8)
            padded_window(pixels, top, left, mirror, out)
            expected = framed[12 + top : 19 + top, 12 + left : 19 + left]
            assert np.array_equal(out, expected[:, ::-1] if mirror else expected)


def test_padded_crops_are_uniform_over_every_place():
    corners = padded_crop(uniform(0, 0, np.arange(20000), 2), np.full((20000, 2), 32), 4, 32)
    for axis in (0, 1):
        values, counts = np.unique(corners[:, axis], return_counts=True)
        assert values.tolist() == list(range(-4, 5))
        assert np.abs(counts / 20000 - 1 / 9).max() < 0.01
    assert padded_crop(np.array([[0.99, 0.0]]), np.array([[10, 40]]), 2, 32).tolist() == [[-11, -2]]


def test_batches_of_raw_records(tmp_path):
    splits = write_pickles(tmp_path / "cifar-10-batches-py", False)
    call("dataset/cifar2lmdb.py", "--image_path", str(tmp_path), "--output_path", str(tmp_path / "lmdb"))
    settings = {"batch_size": 4, "num_workers": 0, "input_size": 32, "val_resize": 32, "type_of_data_aug": "pad_crop"}
    config = DataConfig(str(tmp_path / "lmdb"), **settings)
    train, val = (open_split(config, split, "lmdb") for split in ("train", "val"))
    evaluation = EvalLoader(val, config, 0, 1, torch.device("cpu"))
    shown = torch.cat([batch["images"].clone() for batch in evaluation])
    assert np.array_equal(shown.permute(0, 2, 3, 1).numpy(), splits["val"][0])
    loader = TrainLoader(train, config, 0, 0, 1, torch.device("cpu"))
    seen = []
    for batch in loader.epoch(0):
        for image, label, index in zip(batch["images"], batch["labels"], batch["index"], strict=True):
            assert int(label) == splits["train"][1][int(index)]
            framed = np.pad(splits["train"][0][int(index)], ((4, 4), (4, 4), (0, 0)))
            windows = [framed[t : t + 32, s : s + 32] for t in range(9) for s in range(9)]
            windows += [window[:, ::-1] for window in windows]
            assert any(np.array_equal(image.permute(1, 2, 0).numpy(), window) for window in windows)
            seen.append(int(index))
    assert sorted(seen) == list(range(20))
