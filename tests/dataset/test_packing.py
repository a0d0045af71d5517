"""Packing through the command line: what is kept, what is refused, and what survives a kill or a full disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import synchronize
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from dataset_helpers import (
    damaged_in_midstream,
    flip_bit,
    image_bytes,
    image_tree,
    make_lists,
    pack_images,
    packing_command,
    rotated_by_tag,
    shard_bytes,
    write_tree,
)

from dataset import img2lmdb
from dataset.jpeg.decode import decode
from dataset.jpeg.header import read_header
from dataset.jpeg.images import encode
from dataset.jpeg.resize import resize
from dataset.jpeg.tiles import NotTiled, tile
from dataset.store.reader import ShardReader
from utils.files import lock
from utils.text import counted

ODD = {
    "a/gray.JPEG": image_bytes(1, mode="L"),
    "a/progressive.JPEG": image_bytes(2, progressive=True),
    "a/rotated by tag.JPEG": rotated_by_tag(3),
    "a/small.JPEG": image_bytes(4, 1, 1),
    "b/cmyk.JPEG": image_bytes(6, mode="CMYK"),
    "b/png.JPEG": image_bytes(5, kind="PNG"),
}
BAD = {
    "a/cut.JPEG": image_bytes(7)[:-100],
    "a/damaged.JPEG": damaged_in_midstream(image_bytes(8)),
    "b/empty.JPEG": b"",
    "b/text.JPEG": b"hello",
}


def packed(root, output="lmdb", split="train"):
    """Key: record of a packed split, and its reader."""
    reader = ShardReader(root / output / split)
    return {key: reader.read(number) for number, key in enumerate(reader.keys())}, reader


def tiled(data):
    """What packing makes of a JPEG file."""
    try:
        return tile(data)
    except NotTiled:
        return data


@pytest.fixture
def plain(tmp_path):
    """Six JPEG files with their lists."""
    image_tree(tmp_path / "images")
    make_lists(tmp_path)
    return tmp_path


def test_jpeg_bytes_labels_and_sizes_are_kept(plain):
    files = image_tree(plain / "images", split="val", images=2)
    make_lists(plain)
    for split, workers, shards in (("train", "2", 6), ("val", "1", 1)):
        shard_mb = ("--shard_mb", "0") if shards > 1 else ()
        output = pack_images(plain, "--num_workers", workers, *shard_mb, split=split).stdout
        records, reader = packed(plain, split=split)
        assert f"{len(records)} images, 2 classes, {counted(shards, 'shard')}" in output
        assert reader.classes == ("class0", "class1")
        assert list(records) == sorted(records)
        for key, row, label in zip(records, reader.sizes, reader.labels, strict=True):
            data = (plain / "images" / split / key).read_bytes()
            assert records[key].image == tiled(data)
            assert records[key].target == label == int(key[5])
            assert tuple(row) == decode(data).shape[:2]
    assert records.keys() == files.keys()


def test_without_tiles_bytes_are_kept(plain):
    pack_images(plain, "--no_tiles")
    records, _ = packed(plain)
    for key, record in records.items():
        assert record.image == (plain / "images/train" / key).read_bytes()
    pack_images(plain, code=2)  # another way of packing needs another folder
    (plain / "images/train/class0/000.JPEG").write_bytes(damaged_in_midstream(image_bytes(8)))
    pack_images(plain, "--no_tiles", output="checked", code=3)
    pack_images(plain, "--no_tiles", "--no_check", output="unchecked")


def test_odd_files_are_kept_or_converted_and_reported(tmp_path):
    write_tree(tmp_path / "images/train", ODD)
    make_lists(tmp_path)
    pack_images(tmp_path)
    records, reader = packed(tmp_path)
    for key, data in ODD.items():
        if key.startswith("a/"):
            assert records[key].image == tiled(data)
            assert np.array_equal(decode(records[key].image), decode(data))
        else:
            header = read_header(records[key].image)
            assert (header.height, header.width, header.components) == (24, 32, 3)
            assert np.abs(decode(records[key].image).astype(int) - decode(data)).max() <= 4
    assert reader.sizes[reader.keys().index("a/rotated by tag.JPEG")].tolist() == [24, 32]
    report = (tmp_path / "lmdb/train/report.txt").read_text().splitlines()
    assert [line.split("/images/")[1] for line in report] == [
        "train/a/progressive.JPEG: kept untiled: it is progressive",
        "train/b/cmyk.JPEG: CMYK JPEG converted to RGB JPEG, quality 100",
        "train/b/png.JPEG: RGB PNG converted to RGB JPEG, quality 100",
    ]


def test_bad_files_are_all_named_and_nothing_is_lost(plain):
    write_tree(plain / "images/train", BAD)
    make_lists(plain)
    error = pack_images(plain, "--shard_mb", "0", code=3).stderr
    assert all(f"train/{name}: " in error for name in BAD)
    assert "4 images cannot be packed" in error
    assert "Traceback" not in error
    assert not (plain / "lmdb/train/index.json").exists()

    pack_images(plain, "--shard_mb", "0", "--skip_bad")
    records, reader = packed(plain)
    assert len(reader) == len(records) == 6  # also where a shard was left without a record
    for key, record in records.items():
        assert record.image == tiled((plain / "images/train" / key).read_bytes())
        assert record.target == reader.classes.index(key.split("/")[0])
    report = (plain / "lmdb/train/report.txt").read_text()
    assert all(f"train/{name}: left out, " in report for name in BAD)
    assert report.count("\n") == 4
    pack_images(plain, "--shard_mb", "0")
    assert packed(plain)[1].index.packing["skip_bad"]  # by the command before


def test_mended_files_go_where_the_bad_ones_were(plain):
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    write_tree(plain / "images/train", {"class0/000.JPEG": b"", "class1/002.JPEG": encode(noise, quality=100)})
    pack_images(plain, "--shard_mb", "1", code=3)
    finished = (plain / "lmdb/train/00001.lmdb").stat()
    write_tree(plain / "images/train", {"class0/000.JPEG": encode(noise, quality=100)})  # now a shard by itself
    pack_images(plain, "--shard_mb", "1")
    records, _ = packed(plain)
    files = sorted(path.relative_to(plain / "images/train") for path in (plain / "images/train").glob("*/*"))
    assert list(records) == [str(path) for path in files]
    assert (plain / "lmdb/train/00001.lmdb").stat().st_mtime_ns == finished.st_mtime_ns


def test_a_missing_file_is_named_before_any_work(plain):
    (plain / "images/train/class1/001.JPEG").unlink()
    for number, make in ((0, os.mkfifo), (2, os.mkdir)):  # a pipe would be read for ever
        (plain / f"images/train/class0/00{number}.JPEG").unlink()
        make(plain / f"images/train/class0/00{number}.JPEG")
    error = pack_images(plain, code=2).stderr
    assert "3 files of the list are missing or cannot be read" in error
    assert "train/class1/001.JPEG': No such file" in error
    assert error.count("JPEG': not a file") == 2
    assert not list((plain / "lmdb/train").glob("*.lmdb"))


@pytest.mark.parametrize(
    "words",
    [
        ["--image_size", "0"],
        ["--image_size", "-8"],
        ["--quality", "0"],
        ["--shard_mb", "-1"],
        ["--part", "3/2"],
        ["--part", "x"],
    ],
)
def test_wrong_arguments_are_refused(plain, words):
    assert words[0] in pack_images(plain, *words, code=2).stderr
    assert not (plain / "lmdb").exists()


def test_a_file_as_the_output_folder_is_refused(plain):
    (plain / "file").touch()
    assert "UsageError: --output_path: " in pack_images(plain, output="file", code=2).stderr


def test_image_size_shrinks_and_never_enlarges(tmp_path):
    shapes = {"wide": (40, 90), "high": (70, 50), "small": (20, 30), "line": (1, 90)}
    files = {f"a/{name}.JPEG": image_bytes(1, *shape) for name, shape in shapes.items()}
    write_tree(tmp_path / "images/train", files)
    make_lists(tmp_path)
    expected = {
        (): {"wide": (32, 72), "high": (44, 32), "small": (20, 30), "line": (1, 90)},
        ("--longest_side",): {"wide": (14, 32), "high": (32, 22), "small": (20, 30), "line": (1, 32)},
    }
    for number, (words, sizes) in enumerate(expected.items()):
        pack_images(tmp_path, "--image_size", "32", *words, output=f"lmdb{number}")
        records, reader = packed(tmp_path, f"lmdb{number}", "train_32")
        for key, row in zip(records, reader.sizes, strict=True):
            size = sizes[key[2:-5]]
            assert tuple(row) == size == decode(records[key].image).shape[:2]
            if size == shapes[key[2:-5]]:
                assert records[key].image == tiled(files[key])
            else:
                assert records[key].image == tile(encode(resize(decode(files[key]), *size), quality=95))


def test_parts_joined_are_the_undivided_packing(plain):
    pack_images(plain, "--shard_mb", "0", output="whole")
    parts = [
        subprocess.Popen(
            [sys.executable, *packing_command(plain, "--shard_mb", "0", "--part", part)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in ("1/2", "2/2")
    ]
    for part in parts:
        output, _ = part.communicate()
        assert part.returncode == 0
        assert "3 of 6 shards; run the command without --part to join them" in output
    assert not (plain / "lmdb/train/index.json").exists()
    pack_images(plain, "--shard_mb", "0")
    assert shard_bytes(plain / "lmdb/train") == shard_bytes(plain / "whole/train")


def test_a_kill_loses_only_the_shard_in_hand(tmp_path):
    image_tree(tmp_path / "images", classes=4, images=30)
    make_lists(tmp_path)
    pack_images(tmp_path, "--shard_mb", "0", output="whole")
    command = [sys.executable, *packing_command(tmp_path, "--shard_mb", "0", "--num_workers", "2")]
    packer = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    folder = tmp_path / "lmdb/train"
    deadline = time.monotonic() + 240
    while len(list(folder.glob("*.remarks.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(packer.pid, signal.SIGKILL)
    assert packer.wait() == -signal.SIGKILL
    assert not (folder / "index.json").exists()
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("*.remarks.json")}
    shards = {path.with_suffix("").with_suffix(".lmdb"): None for path in finished}
    shards = {path: path.stat().st_mtime_ns for path in shards}
    assert 3 <= len(shards) < 120

    pack_images(tmp_path, "--shard_mb", "0")
    assert shard_bytes(folder) == shard_bytes(tmp_path / "whole/train")
    for path, written in (finished | shards).items():
        assert path.stat().st_mtime_ns == written
    assert not list(folder.glob("*.partial*"))


def test_packing_makes_no_semaphore(plain, monkeypatch):
    """Which would stay in /dev/shm when all its processes are killed together."""

    def semaphore(*_, **__):
        raise AssertionError("a semaphore")

    monkeypatch.setattr(synchronize.SemLock, "__init__", semaphore)
    monkeypatch.setattr(sys, "argv", packing_command(plain, "--shard_mb", "0", "--num_workers", "2"))
    img2lmdb.main.__wrapped__()
    assert len(packed(plain)[0]) == 6


def test_shards_that_do_not_hold_the_whole_list_are_not_joined(plain):
    words = ("--shard_mb", "0")
    pack_images(plain, *words)
    folder = plain / "lmdb/train"
    for path in [folder / "index.json", *folder.glob("0000[1-5].*")]:
        path.unlink()
    plan = json.loads((folder / "plan.json").read_bytes())
    (folder / "plan.json").write_text(json.dumps({**plan, "ends": plan["ends"][1:]}))
    assert "5 of 6 images are in its shards, so plan.json is damaged" in pack_images(plain, *words, code=3).stderr
    assert not (folder / "index.json").exists()


def test_a_second_packer_is_refused(plain):
    (plain / "lmdb/train").mkdir(parents=True)
    with lock(plain / "lmdb/train/.lock", "held"):
        for words in ([], ["--part", "1/2"]):
            assert "another packer is writing" in pack_images(plain, *words, code=2).stderr
    with lock(plain / "lmdb/train/.lock", "held", shared=True):  # another part at work
        assert "another packer is writing" in pack_images(plain, code=2).stderr
        pack_images(plain, "--part", "1/2")
    pack_images(plain)


def test_two_machines_with_the_same_part_refuse_each_other(plain):
    (plain / "lmdb/train").mkdir(parents=True)
    with lock(plain / "lmdb/train/00000.lock", "held"):
        assert "another packer is writing" in pack_images(plain, "--part", "1/1", code=2).stderr


def test_other_settings_on_a_begun_folder_are_refused(plain):
    pack_images(plain, "--shard_mb", "0", "--part", "1/2")
    assert "begun with another shard_mb" in pack_images(plain, code=2).stderr
    assert "begun with another quality" in pack_images(plain, "--shard_mb", "0", "--quality", "90", code=2).stderr
    lines = plain / "lists/train_list.txt"
    lines.write_text(lines.read_text().partition("\n")[2])
    assert "begun with another list_sha256" in pack_images(plain, "--shard_mb", "0", code=2).stderr


@pytest.mark.parametrize("file", ["00003.lmdb", "00003.columns.npz", "00003.remarks.json", "plan.json"])
def test_running_again_verifies_and_finds_damage(plain, file):
    folder = plain / "lmdb/train"
    pack_images(plain, "--shard_mb", "0")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("0*")}
    pack_images(plain, "--shard_mb", "0")
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("0*")}
    size = (folder / file).stat().st_size
    for position in (0, size - 6):
        flip_bit(folder / file, position, 7)
        error = pack_images(plain, "--shard_mb", "0", code=3).stderr
        assert file.split(".")[0] in error
        assert "delete it and run the same command again" in error
        assert "Traceback" not in error
        flip_bit(folder / file, position, 7)
    (folder / file).unlink()
    pack_images(plain, "--shard_mb", "0")
    packed(plain)


def test_too_little_space_is_reported_before_any_work(plain, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", packing_command(plain))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 20))
    with pytest.raises(SystemExit) as stopped:
        img2lmdb.main()
    assert stopped.value.code == 3
    assert "packing needs about" in capsys.readouterr().err
    assert not list((plain / "lmdb/train").glob("*.lmdb*"))


FULL = """
mount -t tmpfs -o size=$1 none "$0" || exit 77
shift
finished() { cd "$0/train_350" && stat -c '%n %i' 0*.remarks.json; }
"$@"; first=$?
kept=$(finished)
mount -o remount,size=99m "$0" && "$@" || exit 1
case $(finished) in "$kept"*) exit $first;; *) exit 1;; esac
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare command, and so no small disk to fill")
@pytest.mark.parametrize("size", ["36k", "100k"])
def test_a_full_disk_keeps_the_finished_shards(tmp_path, size):
    write_tree(tmp_path / "images/train", {f"a/{number}.JPEG": image_bytes(number, 60, 80) for number in range(6)})
    make_lists(tmp_path)
    (tmp_path / "lmdb").mkdir()
    # With --image_size the space needed is not known beforehand.
    command = [sys.executable, *packing_command(tmp_path, "--shard_mb", "0", "--image_size", "350")]
    script = ["unshare", "-rm", "sh", "-c", FULL, str(tmp_path / "lmdb"), size, *command]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("this system lets no user mount a small disk to fill")
    assert done.returncode == 3, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert "6 images, 1 class, 6 shards" in done.stdout
