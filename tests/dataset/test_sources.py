"""A data set of its own: a source in this file, packed with all that the packing engine can do."""

import json
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import image_bytes, shard_bytes, write_tree

from dataset.jpeg.decode import decode
from dataset.jpeg.fit import Fitting
from dataset.jpeg.raw import raw_pixels
from dataset.sources.files import ImageFiles
from dataset.sources.source import Source
from dataset.store.options import Options
from dataset.store.packing import pack
from dataset.store.reader import ShardReader
from dataset.store.record import Boxes, resized
from dataset.store.storage import AsJpeg, AsPixels
from utils.errors import DataError, UsageError

TAGS = [(), (0,), (1, 2), (0, 1, 2), (2,), (0, 2), (1,)]
SHARD_AN_IMAGE = Options(num_workers=2, shard_mb=0)


@dataclass(frozen=True)
class Tagged(Source):
    """Images of several tags each, drawn from their seeds; ``bomb`` ends the process that comes to image 4."""

    seeds: list[int]
    bomb: Path | None = None

    def sizes(self) -> list[int]:
        return [1000] * len(self)

    def image(self, number: int) -> bytes:
        if self.seeds[number] == 4 and self.bomb and self.bomb.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return image_bytes(self.seeds[number], kind="PNG")

    def take(self, numbers: Iterable[int]) -> Source:
        numbers = list(numbers)
        return replace(super().take(numbers), seeds=[self.seeds[number] for number in numbers])


def tagged(bomb=None):
    keys = [f"{number}.png" for number in range(len(TAGS))]
    return Tagged("train", "multi", ("red", "green", "blue"), keys, TAGS, list(range(len(TAGS))), bomb)


def check(folder):
    """Every image of the source is in the split with its tags and pixels, and nothing else."""
    reader = ShardReader(folder)
    assert sorted(reader.keys()) == [f"{number}.png" for number in range(len(TAGS))]
    for number, (key, present) in enumerate(zip(reader.keys(), reader.labels, strict=True)):
        record, image = reader.read(number), int(key[0])
        assert (record.key, record.target) == (key, TAGS[image])
        assert np.flatnonzero(present).tolist() == list(TAGS[image])
        assert np.array_equal(raw_pixels(record.image), decode(image_bytes(image, kind="PNG")))
    reader.close()


def test_several_labels_an_image_are_packed_and_read_back(tmp_path):
    pack(tagged(), AsPixels(), tmp_path, Options())
    check(tmp_path)
    reader = ShardReader(tmp_path)
    assert (reader.index.target, reader.classes) == ("multi", ("red", "green", "blue"))
    assert reader.keys() == [f"{number}.png" for number in range(len(TAGS))]
    assert reader.labels.sum(axis=0).tolist() == [3, 3, 4]


def test_parts_and_a_kill_give_the_same_split(tmp_path, capsys):
    whole, parts, killed = (tmp_path / name for name in ("whole", "parts", "killed"))
    pack(tagged(), AsPixels(), whole, SHARD_AN_IMAGE)
    for part in ((1, 2), (2, 2), None):
        pack(tagged(), AsPixels(), parts, replace(SHARD_AN_IMAGE, part=part))
    assert shard_bytes(parts) == shard_bytes(whole)
    assert f"{parts}: 4 of 7 shards; run the command without --part to join them" in capsys.readouterr().out

    bomb = tmp_path / "bomb"
    bomb.touch()
    with pytest.raises(DataError, match=r"a packing process was killed at train/4\.png, .*run the same command again"):
        pack(tagged(bomb), AsPixels(), killed, replace(SHARD_AN_IMAGE, num_workers=1))
    finished = {path: path.stat().st_mtime_ns for path in killed.glob("0*.remarks.json")}
    assert len(finished) == 4
    assert not (killed / "index.json").exists()
    bomb.unlink()
    pack(tagged(), AsPixels(), killed, SHARD_AN_IMAGE)
    assert shard_bytes(killed) == shard_bytes(whole)
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())
    check(killed)


def test_a_shuffled_split_is_the_same_every_time(tmp_path):
    folders = tmp_path / "one", tmp_path / "two"
    for folder, workers in zip(folders, (1, 2)):
        pack(tagged(), AsPixels(), folder, replace(SHARD_AN_IMAGE, num_workers=workers, shuffle=True))
        check(folder)
    assert shard_bytes(folders[0]) == shard_bytes(folders[1])
    assert ShardReader(folders[0]).keys() != list(tagged().keys)
    with pytest.raises(UsageError, match="begun with another list_sha256, shuffle"):
        pack(tagged(), AsPixels(), folders[0], SHARD_AN_IMAGE)


def test_other_targets_are_another_list(tmp_path):
    pack(tagged(), AsPixels(), tmp_path, replace(SHARD_AN_IMAGE, part=(1, 7)))
    with pytest.raises(UsageError, match="begun with another list_sha256: "):
        pack(replace(tagged(), targets=[(1,), *TAGS[1:]]), AsPixels(), tmp_path, SHARD_AN_IMAGE)


@pytest.mark.parametrize("counted", ["by a number", "in the remarks alone"])
def test_images_left_out_are_counted(tmp_path, counted):
    """Packers of before counted them in the remarks alone."""
    files = {"a.png": image_bytes(1, kind="PNG"), "b.png": b"x", "c.png": b"hello"}
    if counted == "by a number":  # which no name of a file confuses
        files["d: left out, .png"] = image_bytes(2, kind="PNG")
    write_tree(tmp_path / "images", files)
    source = ImageFiles("val", "multi", ("x",), list(files), [(0,)] * len(files), tmp_path / "images")
    options = replace(SHARD_AN_IMAGE, skip_bad=True)
    pack(source, AsJpeg(Fitting()), tmp_path / "lmdb", options)
    counts = []
    for path in sorted((tmp_path / "lmdb").glob("*.remarks.json")):
        saved = json.loads(path.read_bytes())
        counts.append(saved.pop("left_out", 0))
        if counted != "by a number":
            path.write_text(json.dumps(saved))
    assert counts[:3] == [0, 1, 1]
    pack(source, AsJpeg(Fitting()), tmp_path / "lmdb", options)
    assert ShardReader(tmp_path / "lmdb").keys() == ["a.png", *list(files)[3:]]


def test_boxes_follow_the_pixels_of_a_shrunk_image(tmp_path):
    write_tree(tmp_path / "images", {"wide.jpg": image_bytes(1, 40, 80), "small.jpg": image_bytes(2, 20, 40)})
    target = Boxes(((8.0, 4.0, 40.0, 20.0),), (1,), (False,), (True,))
    files = ["wide.jpg", "small.jpg"]
    source = ImageFiles("val", "detection", ("cat", "dog"), files, [target] * 2, tmp_path / "images")
    for size, expected in ((None, (8.0, 4.0, 40.0, 20.0)), (20, (4.0, 2.0, 20.0, 10.0))):
        folder = tmp_path / f"lmdb{size}"
        pack(source, AsJpeg(Fitting(image_size=size)), folder, Options())
        reader = ShardReader(folder)
        wide, small = (reader.read(number).target for number in range(2))
        assert wide == replace(target, boxes=(expected,))
        assert small == target  # which is never enlarged
        assert reader.labels.tolist() == [[False, True]] * 2
    assert resized(3, (40, 80), (20, 40)) == 3
