"""What inspect_lmdb.py says of a split, the damage it finds, and its contact sheet."""

import sys

import numpy as np
import pytest
from conftest import call
from dataset_helpers import (
    damaged_in_midstream,
    flip_bit,
    image_bytes,
    make_lists,
    pack_images,
    pixels,
    write_tree,
)
from PIL import Image
from splits import write_patched, write_wsld

from dataset import inspect_lmdb
from dataset.config import DataConfig
from dataset.feed.batches import BatchMaker
from dataset.feed.targets import Labels
from dataset.inspection import report, sheet
from dataset.jpeg.header import read_header
from dataset.jpeg.raw import encode_raw
from dataset.jpeg.tiles import tile
from dataset.store.index import Index, describe
from dataset.store.reader import ShardReader
from dataset.store.record import Boxes, Record
from dataset.store.writer import ShardWriter

FILES = {
    "many/0.JPEG": image_bytes(0, 40, 64, subsampling="4:4:4"),
    "many/1.JPEG": image_bytes(1, 24, 200, subsampling="4:2:0"),
    "many/2.JPEG": image_bytes(2, 32, 48, subsampling="4:2:0"),
    "one/3.JPEG": image_bytes(3, progressive=True, subsampling="4:2:0"),
    "two/4.JPEG": image_bytes(4, mode="L"),
    "two/5.JPEG": image_bytes(5, kind="PNG"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six images of three classes and of every kind as train, two as val; a fourth class is empty."""
    root = tmp_path_factory.mktemp("inspect")
    write_tree(root / "images/train", FILES)
    (root / "images/train/empty").mkdir()
    write_tree(root / "images/val", {name: FILES[name] for name in ("many/0.JPEG", "two/4.JPEG")})
    make_lists(root)
    for split in ("train", "val"):
        pack_images(root, "--shard_mb", "0", split=split)
    return root / "lmdb"


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run the tool in an empty folder; returns its lines by their first words, and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["inspect_lmdb.py", *map(str, words)])
        try:
            inspect_lmdb.main()
            ended = 0
        except SystemExit as stopped:
            ended = stopped.code
        out, error = capsys.readouterr()
        assert ended == code, error
        return {line[:16].strip(): line[16:].strip() for line in out.splitlines()}, error

    return run


def copied(folder, to):
    to.mkdir(parents=True)
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def damage(folder, shard):
    """Flip a bit of the image in a shard of one record."""
    data = (folder / shard).read_bytes()
    flip_bit(folder / shard, data.index(b"\xff\xda") + 20)


def test_facts_of_a_split(root, command, tmp_path):
    printed, _ = command(root / "train", "--verify")
    assert printed["images"] == "6"
    assert printed["shards"].startswith("6, ")
    assert printed["checksums"] == "all shards are as they were packed"
    assert "tiles=True" in printed["packed with"]
    assert printed["remarks"] == "2 in report.txt"
    assert printed["classes"].startswith("4;")
    assert printed["targets"] == "a class an image"
    assert printed["smallest"].split() == ["0", "empty"]
    assert printed["median"].split() == ["2", "two"]
    assert printed["largest"].split() == ["3", "many"]
    assert printed["empty"] == "1: empty"
    assert printed["height"].split() == ["24", "24", "24", "36", "40"]
    assert printed["most pixels"] == "200 wide, 24 high"
    assert printed["JPEG"] == "of all 6 images"
    assert printed["chroma"] == "50.0 % 4:2:0, 33.3 % 4:4:4, 16.7 % gray"
    assert printed["tiled"] == "83.3 % in restart intervals, 16.7 % whole (it is progressive)"
    assert printed["intervals"] == "60.0 % 8 pixels high, 40.0 % 16 pixels high"
    assert int(printed["width"].split()[0]) % 8 == 0  # the least of the intervals
    assert 10 < float(printed["windows"].split()[1]) < 100
    assert printed["sheet"] == "contact_sheet.png"
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert min(sheet.size) >= 1000


def test_every_split_below_a_folder_and_damage_in_one(root, command, tmp_path):
    copied(root / "val", tmp_path / "lmdb/val")
    train = copied(root / "train", tmp_path / "lmdb/train")
    copied(root / "val", tmp_path / "lmdb/unfinished")
    (tmp_path / "lmdb/unfinished/index.json").unlink()
    damage(train, "00001.lmdb")
    damage(train, "00004.lmdb")
    for words, reports in ((), 3), (("--verify",), 5):
        printed, error = command(tmp_path / "lmdb", *words, code=3)
        assert printed["images"] == "2"  # of val, the last
        assert "damaged: many/1.JPEG: " in error
        assert "damaged: two/4.JPEG: " in error
        assert "unfinished: " in error
        assert "lmdb/unfinished holds no index.json" in error
        assert error.count("damaged: ") == reports - 1
        assert f"DataError: {reports} records, files or splits are damaged or unfinished" in error
    assert "damaged: 00004.lmdb: not what index.json describes" in error
    assert {path.name for path in tmp_path.glob("*.png")} == {"contact_sheet_train.png", "contact_sheet_val.png"}


def test_verifying_names_every_damaged_record(root, command, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_SAMPLE", 1)
    monkeypatch.setattr(report, "draw_sheet", lambda *_: None)
    folder = copied(root / "train", tmp_path / "train")
    damage(folder, "00002.lmdb")
    command(folder)
    printed, error = command(folder, "--verify", code=3)
    assert printed["checksums"] == "1 shard differs"
    assert "damaged: many/2.JPEG: " in error


@pytest.mark.parametrize("write", [write_wsld, write_patched])
def test_wsld_folders(command, tmp_path, write, monkeypatch):
    files = {f"n{label}/{number}.JPEG": (image_bytes(label), label) for label in (0, 2) for number in (1, 2)}
    for split in ("train", "val"):
        write(tmp_path / "lmdb" / split, files)
    for path in (tmp_path / "lmdb", tmp_path / "lmdb/val"):
        printed, _ = command(path)
        assert printed["images"] == "4"
        assert printed["format"].startswith("WSLD's, without checksums")
        assert printed["largest"].split() == ["2", "n2"]
        assert printed["empty"] == "1: 1"
        assert printed["width"].split() == ["32"] * 5
        assert printed["tiled"] == "100.0 % whole (no restart markers)"
        assert printed["windows"] == "read 100.0 % of the bytes"
    monkeypatch.setattr(report, "_SAMPLE", 2)
    monkeypatch.setattr(report, "draw_sheet", lambda *_: None)
    bad = damaged_in_midstream(image_bytes(1, 90, 90))
    write(tmp_path / "other/val", {**files, "n0/3.JPEG": (bad, 0)})
    command(tmp_path / "other")
    assert "damaged: n0/3.JPEG: " in command(tmp_path / "other", "--verify", code=3)[1]


def test_the_sheet_calls_classes_as_people_do(command, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sheet, "_draw", lambda axis, record, index, classes: drawn.append(classes[0]))
    write_wsld(tmp_path / "val", {"n01440764/1.JPEG": (image_bytes(1), 0)})
    command(tmp_path / "val")
    assert drawn == ["tench"]


def test_a_large_split_is_sampled(root, command, monkeypatch):
    monkeypatch.setattr(report, "_SAMPLE", 2)
    printed, _ = command(root / "train", "--sheet", "other.png")
    assert printed["JPEG"] == "of a sample, spread evenly, 2 images"
    assert printed["size"] == "of all 6 images"
    assert printed["sheet"] == "other.png"


def test_detection_targets_are_counted_and_drawn(command, tmp_path):
    sheets = []
    for number, corner in enumerate((20.0, 30.0)):
        boxes = Boxes(((1.0, 2.0, corner, 20.0), (3.0, 4.0, 9.0, 9.0)), (2, 2), (False, False), (False, False))
        nothing = Boxes((), (), (), ())
        folder = tmp_path / f"train{number}"
        folder.mkdir()
        with ShardWriter(folder / "00000.lmdb", 1 << 20) as writer:
            for key, target in (("a.jpg", boxes), ("b.jpg", nothing), ("$x$ c.jpg", boxes)):
                writer.add(Record(key, tile(image_bytes(1)), target), 24, 32)
            writer.finish()
        shard = describe(folder / "00000.lmdb", 3)
        Index("train", "detection", ("a", "b", "c $x$"), 3, (shard,)).write(folder)
        printed, _ = command(folder)
        assert printed["largest"].split() == ["2", "c", "$x$"]  # images, not boxes
        assert printed["empty"] == "2: a, b"
        sheets.append((tmp_path / "contact_sheet.png").read_bytes())
    assert sheets[0] != sheets[1]


def test_raw_pixels(command, tmp_path):
    for split, count in (("train", 6), ("val", 2)):
        names = [f"{split}/{'cat' if number % 2 else 'dog'}/{number}.png" for number in range(count)]
        write_tree(tmp_path / "images", {name: image_bytes(number, kind="PNG") for number, name in enumerate(names)})
    call("dataset/cifar2lmdb.py", "--image_path", str(tmp_path / "images"), "--output_path", str(tmp_path / "lmdb"))
    printed, error = command(tmp_path / "lmdb/train", "--verify")
    assert "damaged" not in error
    assert printed["packed with"] == "pixels=raw"
    assert printed["largest"].split() == ["3", "dog"]
    assert printed["most pixels"] == "32 wide, 24 high"
    assert printed["raw pixels"] == "of all 6 images"
    assert printed["bytes"] == "2,317 an image"  # 32 x 24 x 3 and the header
    assert not printed.keys() & {"JPEG", "chroma", "tiled"}
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert min(sheet.size) >= 1000

    shard = tmp_path / "lmdb/train/00000.lmdb"
    flip_bit(shard, shard.read_bytes().index(pixels(2)[4:8].tobytes()))
    for words, reports in ((), 1), (("--verify",), 2):
        error = command(tmp_path / "lmdb/train", *words, code=3)[1]
        assert "damaged: dog/2.png: " in error
        assert error.count("damaged: ") == reports
    assert "damaged: 00000.lmdb: not what index.json describes" in error


def test_images_that_are_not_whole_though_their_checksums_agree(command, tmp_path):
    raw = encode_raw(pixels(0))
    images = {"whole": raw, "cut": raw[:-1], "empty": b"", "jpeg": image_bytes(1), "text": b"hello"}
    with ShardWriter(tmp_path / "00000.lmdb", 1 << 20) as writer:
        for key, image in images.items():
            writer.add(Record(key, image, 0), 24, 32)
        writer.finish()
    shard = describe(tmp_path / "00000.lmdb", len(images))
    Index("train", "single", ("a",), len(images), (shard,)).write(tmp_path)
    printed, error = command(tmp_path, code=3)
    assert all(f"damaged: {key}: " in error for key in ("cut", "empty", "text"))
    assert error.count("damaged: ") == 3
    assert printed["chroma"] == "50.0 % raw pixels, 50.0 % 4:2:0"


def test_wrong_arguments_are_refused_before_any_work(root, command, tmp_path):
    assert "is not a folder" in command(tmp_path / "absent", code=2)[1]
    assert "--sheet: absent is not a folder" in command(root, "--sheet", "absent/sheet.png", code=2)[1]
    assert f"--sheet: {tmp_path} is a folder" in command(root, "--sheet", str(tmp_path), code=2)[1]
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/00000.lmdb").touch()
    assert f"UsageError: {tmp_path} holds no split" in command(tmp_path, code=2)[1]


def test_the_sheet_shows_classes_evenly():
    labels = np.repeat([0, 1, 3], [100, 2, 7])
    shown = sheet._over_classes(labels, 4, 9)
    assert shown == [0, 49, 99, 100, 101, 102, 105, 108]  # class 1 has two only
    assert sheet._over_classes(np.arange(1000), 1000, 24)[::23] == [0, 958]
    several = np.array([[True, True], [True, False], [False, True], [False, False]])
    assert sheet._over_classes(several, 2, 4) == [0, 1, 2]
    assert sheet._over_classes(several[3:], 2, 4) == []


def test_the_windows_shown_are_those_of_training(root):
    samples = ShardReader(root / "train")
    maker, index = BatchMaker(samples, DataConfig(""), Labels(4), seed=0), np.array([1])
    shown = [maker.draw(index, epoch, samples.sizes[index]).windows[0] for epoch in range(3)]
    assert sheet.training_windows(1, tuple(samples.sizes[1]), 3) == shown


@pytest.mark.parametrize(("width", "subsampling", "mcu"), [(330, "4:2:0", 16), (47 * 8, "4:4:4", 8)])
def test_what_a_window_reads_is_shown(width, subsampling, mcu):
    """Whole MCUs, in each row from the start of an interval to the end of the window."""
    window, size = (40, 100, 30, 50), (121, width)
    plain = image_bytes(1, *size, subsampling=subsampling)
    assert sheet._is_read(plain, window, size).all()
    data = tile(plain)
    read = sheet._is_read(data, window, size)
    assert read.shape == size
    columns, interval = -(-width // mcu), read_header(data).restart
    assert 1 < interval < columns
    expected = np.zeros(size, bool)
    for row in range((40 - mcu // 16) // mcu, (69 + mcu // 16) // mcu + 1):
        first, end = row * columns + (100 - mcu // 16) // mcu, row * columns + (149 + mcu // 16) // mcu + 1
        for number in range(first // interval * interval, end):
            y, x = mcu * (number // columns), mcu * (number % columns)
            expected[y : y + mcu, x : x + mcu] = True
    assert np.array_equal(read, expected)
