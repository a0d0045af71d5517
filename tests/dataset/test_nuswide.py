"""NUS-WIDE: both layouts of its lists, orders of its concepts, and photos that Flickr no longer has."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import image_bytes, shard_bytes, write_tree

from dataset import nuswide2lmdb
from dataset.sources.nuswide import find_concepts, find_nuswide
from dataset.store.reader import ShardReader
from utils.errors import DataError, UsageError

DATA = Path(os.environ.get("LIMBECK_DATA", "../shared/data")).resolve() / "nuswide_lists"
CONCEPTS = ("zebra", "airport", "sky")  # in the order of Concepts81.txt
# Photo: a 1 or 0 for each concept. c/4.jpg and f/1.jpg show none.
TRAIN = {"a/1.jpg": "101", "b/2.jpg": "010", "c/3 d.jpg": "001", "c/4.jpg": "000", "a/5.jpg": "111"}
TEST = {"e/1.jpg": "100", "f/1.jpg": "000"}
L2D = {"labels": "TrainTestLabels", "lists": "ImageList", "concepts": "Concepts81.txt"}
CPSD = {"labels": "Groundtruth/TrainTestLabels", "lists": "ImageList/ImageList", "concepts": None}
OFFICIAL = {"labels": "Groundtruth/TrainTestLabels", "lists": "ImageList", "concepts": "ConceptsList/Concepts81.txt"}


def write_nus(root, layout, splits, concepts=CONCEPTS, newline="\r\n"):
    files = {}
    if layout["concepts"]:
        files[layout["concepts"]] = "".join(f"{name}{newline}" for name in concepts)
    for name, photos in splits.items():
        lines = [photo.replace("/", "\\") for photo in photos]
        files[f"{layout['lists']}/{name}Imagelist.txt"] = "".join(f"{line}{newline}" for line in lines)
        for column, concept in enumerate(concepts):
            lines = [values[column] for values in photos.values()]
            files[f"{layout['labels']}/Labels_{concept}_{name}.txt"] = "".join(f"{line}{newline}" for line in lines)
    return write_tree(root, {name: text.encode() for name, text in files.items()})


@pytest.fixture
def nus(tmp_path):
    """L2D's layout, with all photos."""
    photos = {f"Flickr/{photo}": image_bytes(number) for number, photo in enumerate({**TRAIN, **TEST})}
    write_tree(tmp_path / "nus", photos)
    return write_nus(tmp_path / "nus", L2D, {"Train": TRAIN, "Test": TEST})


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """nuswide2lmdb.py in this process, with one packing process."""

    def call(root, *words):
        words = ("--image_path", str(root), "--output_path", str(tmp_path / "lmdb"), "--num_workers", "1", *words)
        monkeypatch.setattr("sys.argv", ["nuswide2lmdb.py", *words])
        nuswide2lmdb.main.__wrapped__()

    return call


def found(root, split="train", order="alphabetical", *, unlabelled=False, missing=False):
    return find_nuswide(root, split, find_concepts(root, order), unlabelled=unlabelled, missing=missing)


def shown(source):
    """Photo: names of its concepts."""
    return {key: {source.classes[label] for label in target} for key, target in zip(source.keys, source.targets)}


def names(values):
    return {name for name, value in zip(CONCEPTS, values) if value == "1"}


@pytest.mark.parametrize("order", ["alphabetical", "dataset"])
def test_labels_are_those_of_the_lists_in_either_order(nus, order):
    source, remarks = found(nus, order=order)
    assert source.classes == (CONCEPTS if order == "dataset" else ("airport", "sky", "zebra"))
    assert (source.split, source.target, source.folder) == ("train", "multi", nus / "Flickr")
    assert shown(source) == {photo: names(values) for photo, values in TRAIN.items() if "1" in values}
    assert all(list(target) == sorted(target) for target in source.targets)
    assert source.image(3) == image_bytes(4)
    assert source.sizes()[3] == len(image_bytes(4))
    assert remarks == ["1 photo has no label and is left out, of 5; --unlabelled keep packs them"]


def test_photos_without_labels_are_kept_if_asked(nus):
    for split, photos in (("train", TRAIN), ("val", TEST)):
        source, remarks = found(nus, split, unlabelled=True)
        assert shown(source) == {photo: names(values) for photo, values in photos.items()}
        assert remarks == []


@pytest.mark.parametrize("layout", [CPSD, OFFICIAL])
def test_every_layout_holds_the_same(nus, layout, tmp_path):
    write_nus(tmp_path / "other", layout, {"Train": TRAIN, "Test": TEST}, newline="\n")
    (tmp_path / "other/Flickr").symlink_to(nus / "Flickr")
    for split in ("train", "val"):
        one, other = found(nus, split)[0], found(tmp_path / "other", split)[0]
        assert one.classes == other.classes
        assert one.digest() == other.digest()
    if layout["concepts"] is None:
        with pytest.raises(UsageError, match=r"--class_order: .*other holds no Concepts81.txt nor ConceptsList/"):
            find_concepts(tmp_path / "other", "dataset")
    else:
        assert find_concepts(tmp_path / "other", "dataset") == CONCEPTS


def test_missing_photos_are_counted_or_left_out_and_named(nus, tool, tmp_path, capsys):
    (nus / "Flickr/b/2.jpg").unlink()
    (nus / "Flickr/a/5.jpg").write_bytes(b"")
    (nus / "Flickr/c/3 d.jpg").write_bytes(b"<html>gone</html>")
    with pytest.raises(UsageError, match=r"train: 2 photos are missing or empty, of 4, such as .*Flickr/b/2.jpg: "):
        tool(nus)
    assert not (tmp_path / "lmdb").exists()
    tool(nus, "--skip_bad")
    printed = capsys.readouterr().out
    assert "train: 2 photos are missing or empty, of 4; report.txt names them" in printed
    assert "val: 1 photo has no label and is left out, of 2" in printed
    reader = ShardReader(tmp_path / "lmdb/train")
    assert (reader.index.target, reader.classes) == ("multi", ("airport", "sky", "zebra"))
    assert (reader.keys(), reader.labels.tolist()) == (["a/1.jpg"], [[0, 1, 1]])
    report = (tmp_path / "lmdb/train/report.txt").read_text().splitlines()
    assert [line.split("/Flickr/")[1].split(": ")[0] for line in report] == ["b/2.jpg", "c/3 d.jpg", "a/5.jpg"]
    assert report[0].endswith("b/2.jpg: left out, the photo is missing")
    before = shard_bytes(tmp_path / "lmdb/train")
    tool(nus, "--skip_bad")  # which verifies
    assert shard_bytes(tmp_path / "lmdb/train") == before
    assert ShardReader(tmp_path / "lmdb/val").labels.tolist() == [[0, 0, 1]]


def test_damaged_photos_are_an_error_too(nus, tool):
    (nus / "Flickr/b/2.jpg").write_bytes(b"<html>gone</html>")
    with pytest.raises(DataError, match="1 image cannot be packed"):
        tool(nus, "--image_size", "16")


def test_not_one_photo_is_an_error_whatever_may_be_missing(nus):
    (nus / "Flickr").rename(nus / "flickr photos")
    with pytest.raises(UsageError, match=r"Flickr holds none of the 4 photos of train, such as a/1.jpg"):
        found(nus, missing=True)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("TrainTestLabels/Labels_sky_Train.txt", "1\n0\n1\n0\n", "has 4 lines, TrainImagelist.txt has 5: fetch both"),
        ("TrainTestLabels/Labels_sky_Train.txt", "1\n0\n2\n0\n1\n", "Train.txt, line 3: expected 0 or 1, not '2'"),
        ("TrainTestLabels/Labels_sky_Train.txt", "1\n\n1\n0\n1\n", "line 2: expected 0 or 1, not ''"),
        ("TrainTestLabels/Labels_sky_Train.txt", None, "Labels_sky_Train.txt is missing: every concept has one"),
        ("TrainTestLabels/Labels_sky_Train.txt", "", "has 0 lines"),
        ("Concepts81.txt", "sky\nzebra\nsky\n", "Concepts81.txt, line 3: 'sky' stands on line 1"),
        ("Concepts81.txt", "sky\nlynx\n", "Labels_lynx_Train.txt is missing"),
        ("ImageList/TrainImagelist.txt", "a\\1.jpg\na\\1.jpg\n", r"line 2 .*: a/1.jpg stands on line 1"),
        ("ImageList/TrainImagelist.txt", "a\\1.jpg\n..\\..\\x\n", r"line 2 .*: the path must stay below"),
        ("ImageList/TrainImagelist.txt", "\\a\\1.jpg\n", r"line 1 .*: the path must stay below"),
        ("ImageList/TrainImagelist.txt", "a\\1.jpg\n\nb\\2.jpg\n", r"line 2 .*: expected `folder\\photo`"),
        ("ImageList/TrainImagelist.txt", "\n", "TrainImagelist.txt is empty"),
        ("ImageList/TrainImagelist.txt", None, "holds no ImageList/TrainImagelist.txt nor ImageList/ImageList/"),
    ],
)
def test_lists_that_do_not_fit_are_refused(nus, file, content, reason):
    (nus / file).unlink()
    if content is not None:
        (nus / file).write_text(content)
    with pytest.raises(UsageError, match=reason):
        found(nus)


def test_labels_that_are_not_there_are_refused(nus):
    for path in (nus / "TrainTestLabels").iterdir():
        path.write_text("0\n" * 5)
    with pytest.raises(UsageError, match="not one photo of train has a label; see --unlabelled"):
        found(nus)
    for path in (nus / "TrainTestLabels").iterdir():
        path.unlink()
    (nus / "Concepts81.txt").unlink()
    with pytest.raises(UsageError, match=r"TrainTestLabels holds no Labels_<concept>_Train.txt"):
        found(nus)
    (nus / "TrainTestLabels").rmdir()
    with pytest.raises(UsageError, match=r"holds no TrainTestLabels/ nor Groundtruth/TrainTestLabels/"):
        found(nus)


@pytest.mark.skipif(not DATA.exists(), reason=f"no lists of NUS-WIDE at {DATA}: set LIMBECK_DATA")
def test_real_labels_in_the_form_of_the_lists(tmp_path):
    """5,000 rows of 81 labels, as the lists would have them, without photos but for those of the last ten."""
    lines = gzip.decompress((DATA / "test.txt.gz").read_bytes()).decode().splitlines()
    photos = {line.split(" ", 1)[0]: line.split(" ")[1:] for line in lines}
    concepts = [line.split("\t")[1] for line in (DATA / "concepts81_dreamerzp.txt").read_text().splitlines()]
    write_nus(tmp_path, L2D, {"Test": photos}, concepts)
    write_tree(tmp_path, {f"Flickr/{photo}": b"x" for photo in list(photos)[-10:]})
    source, remarks = found(tmp_path, "val", "dataset", unlabelled=True, missing=True)
    table = np.array(list(photos.values())).astype(int)
    assert table.shape == (5000, 81)
    assert [list(target) for target in source.targets] == [np.flatnonzero(row).tolist() for row in table]
    assert remarks == ["4,990 photos are missing or empty, of 5,000; report.txt names them"]
    other, _ = found(tmp_path, "val", unlabelled=True, missing=True)
    assert list(other.classes) == sorted(concepts)
    assert shown(other) == shown(source)
