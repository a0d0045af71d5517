"""PASCAL VOC: its folders and tar files, three-valued labels, boxes, and what may be wrong with them."""

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import image_bytes, shard_bytes, write_tree

from dataset import voc2lmdb
from dataset.jpeg.header import BadImage
from dataset.sources.tree import Tree, open_tar
from dataset.sources.voc import CLASSES, find_voc, read_annotation
from dataset.store.reader import ShardReader
from dataset.store.record import Boxes, labels_of
from utils.errors import DataError, UsageError

DATA = Path(os.environ.get("LIMBECK_DATA", "../shared/data")).resolve() / "voc2007_subset"
real = pytest.mark.skipif(not DATA.exists(), reason=f"no photos of VOC at {DATA}: set LIMBECK_DATA")
CAT, DOG, PERSON = (CLASSES.index(name) for name in ("cat", "dog", "person"))
# Photo: class, difficult, and xmin, ymin, xmax, ymax of each object. Photos are 32 x 24 pixels.
TRAIN = {
    "000005": [("dog", 0, (1, 1, 32, 24)), ("dog", 1, (3, 4, 3, 9)), ("cat", 1, (2, 2, 5, 5))],
    "000007": [("cat", 0, (7, 8, 9, 10))],
}
TEST = {"000001": [("person", 1, (1, 2, 3, 4)), ("person", 1, (2, 2, 3, 4))]}
NEWER = {"2008_000002": [("person", 0, (10.5, 1, 20.25, 24))], "2008_000003": [("cat", 0, (1, 1, 2, 2))]}
TARS = {"trainval": "VOCtrainval_06-Nov-2007.tar", "test": "VOCtest_06-Nov-2007.tar"}


def annotation(objects, size=(32, 24)):
    boxes = "".join(
        f"<object><name>{name}</name><bndbox><xmax>{x2}</xmax><xmin>{x1}</xmin><ymin>{y1}</ymin><ymax>{y2}</ymax>"
        f"</bndbox><difficult>{difficult}</difficult><part><name>head</name></part></object>"
        for name, difficult, (x1, y1, x2, y2) in objects
    )
    width, height = size
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{boxes}</annotation>".encode()


def write_set(folder, name, photos):
    """Photos with all of their lists, as in the folder VOC2007."""
    lists = f"ImageSets/Main/{name}.txt"
    files = {lists: "".join(f"{photo}\n" for photo in photos).encode()}
    for label in CLASSES:
        lines = []
        for photo, objects in photos.items():
            flags = [difficult for each, difficult, _ in objects if each == label]
            value = -1 if not flags else 0 if all(flags) else 1
            lines.append(f"{photo} {value:2d}\n")
        files[f"ImageSets/Main/{label}_{name}.txt"] = "".join(lines).encode()
    for photo, objects in photos.items():
        files[f"JPEGImages/{photo}.jpg"] = image_bytes(int(photo[-6:]))
        files[f"Annotations/{photo}.xml"] = annotation(objects)
    return write_tree(folder, files)


def write_tar(path, folder, inside):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        tar.add(folder, arcname=inside)


@pytest.fixture
def tool(monkeypatch):
    """voc2lmdb.py in this process, with one packing process."""

    def call(root, output, *words):
        words = ("--image_path", str(root), "--output_path", str(output), "--num_workers", "1", *words)
        monkeypatch.setattr("sys.argv", ["voc2lmdb.py", "--year", "2007", *words])
        voc2lmdb.main.__wrapped__()

    return call


@pytest.fixture
def voc(tmp_path):
    """VOCdevkit/VOC2007 in a folder of its own."""
    folder = tmp_path / "voc/VOCdevkit/VOC2007"
    write_set(folder, "trainval", TRAIN)
    write_set(folder, "test", TEST)
    return tmp_path / "voc"


def test_a_class_is_present_absent_or_only_difficult(voc):
    train, val = find_voc(voc, "2007", boxes=False)
    assert (train.split, val.split, train.target, train.classes) == ("train", "val", "multi", CLASSES)
    assert list(CLASSES) == sorted(CLASSES)
    assert train.keys == ["VOC2007/000005.jpg", "VOC2007/000007.jpg"]
    assert train.targets == [(DOG, -1 - CAT), (CAT,)]
    assert (val.keys, val.targets) == (["VOC2007/000001.jpg"], [(-1 - PERSON,)])


def test_boxes_are_stored_from_zero(voc):
    """A box from pixel 1 to the last is the whole image; one from pixel 3 to pixel 3 is one pixel wide."""
    train, val = find_voc(voc, "2007", boxes=True)
    boxes = ((0.0, 0.0, 32.0, 24.0), (2.0, 3.0, 3.0, 9.0), (1.0, 1.0, 5.0, 5.0))
    assert train.target == "detection"
    assert train.targets[0] == Boxes(boxes, (DOG, DOG, CAT), (False, True, True), (False, False, False))
    plain = find_voc(voc, "2007", boxes=False)
    for source, other in zip((train, val), plain):
        assert list(map(labels_of, source.targets)) == other.targets


def devkit(root):
    return write_set(write_set(root / "VOCdevkit/VOC2007", "trainval", TRAIN), "test", TEST)


def two_devkits(root):
    write_set(root / "VOCtrainval2007/VOCdevkit/VOC2007", "trainval", TRAIN)
    write_set(root / "VOCtest2007/VOCdevkit/VOC2007", "test", TEST)


def bare(root):
    write_set(write_set(root / "VOC2007", "trainval", TRAIN), "test", TEST)


def tars(root):
    for name, photos in (("trainval", TRAIN), ("test", TEST)):
        folder = write_set(root.parent / f"unpacked {name}", name, photos)
        write_tar(root / TARS[name], folder, "./VOCdevkit/VOC2007")


def half_unpacked(root):
    tars(root)
    (root / TARS["trainval"]).write_bytes(b"half of it")
    write_set(root / "VOCdevkit/VOC2007", "trainval", TRAIN)


@pytest.mark.parametrize("layout", [two_devkits, bare, tars, half_unpacked])
def test_every_layout_holds_the_same(layout, voc, tmp_path):
    layout(tmp_path / "other")
    for boxes in (False, True):
        sources = [find_voc(root, "2007", boxes=boxes) for root in (voc, tmp_path / "other")]
        for one, other in zip(*sources, strict=True):
            assert one.digest() == other.digest()
            assert one.sizes() == other.sizes()
            assert [one.image(row) for row in range(len(one))] == [other.image(row) for row in range(len(other))]


def test_the_folder_of_a_year_may_be_given_itself(voc, monkeypatch):
    whole = [source.digest() for source in find_voc(voc, "2007", boxes=False)]
    assert [source.digest() for source in find_voc(voc / "VOCdevkit/VOC2007", "2007", boxes=False)] == whole
    monkeypatch.chdir(voc / "VOCdevkit/VOC2007")
    assert [source.digest() for source in find_voc(Path(), "2007", boxes=False)] == whole
    with pytest.raises(UsageError, match=r"holds no ImageSets/Main/train.txt of VOC2012: expected VOCdevkit/VOC2012/"):
        find_voc(Path(), "2012", boxes=False)


def test_both_years_are_trained_on_and_2007_validates(voc, tmp_path):
    folder = write_set(tmp_path / "newer", "trainval", NEWER)
    first, second = list(NEWER.items())
    write_set(write_set(folder, "train", dict([first])), "val", dict([second]))
    write_tar(voc / "VOCtrainval_11-May-2012.tar", folder, "VOCdevkit/VOC2012")
    train, val = find_voc(voc, "07+12", boxes=True)
    names = ["VOC2007/000005.jpg", "VOC2007/000007.jpg", "VOC2012/2008_000002.jpg", "VOC2012/2008_000003.jpg"]
    assert (train.keys, val.keys) == (names, ["VOC2007/000001.jpg"])
    assert train.targets[2].boxes == ((9.5, 0.0, 20.25, 24.0),)  # one photo of 2012 has fractions
    mixed = train.take([2, 0])
    assert [mixed.image(row) for row in (0, 1)] == [image_bytes(2), image_bytes(5)]
    assert mixed.name(0).endswith("VOCtrainval_11-May-2012.tar: VOCdevkit/VOC2012/JPEGImages/2008_000002.jpg")
    train, val = find_voc(voc, "2012", boxes=False)
    assert (train.keys, val.keys) == (names[2:3], names[3:])
    shutil.rmtree(voc / "VOCdevkit")
    with pytest.raises(UsageError, match=r"trainval.txt of VOC2007: .* or VOCtrainval_06-Nov-2007.tar"):
        find_voc(voc, "07+12", boxes=False)


def test_without_its_test_set_2007_has_no_val(voc):
    (voc / "VOCdevkit/VOC2007/ImageSets/Main/test.txt").unlink()
    assert [source.split for source in find_voc(voc, "2007", boxes=False)] == ["train"]


def test_the_lists_alone_serve_without_annotations(voc):
    before = [source.digest() for source in find_voc(voc, "2007", boxes=False)]
    shutil.rmtree(voc / "VOCdevkit/VOC2007/Annotations")
    assert [source.digest() for source in find_voc(voc, "2007", boxes=False)] == before
    with pytest.raises(UsageError, match=r"--boxes: .*VOC2007/Annotations holds no annotations of trainval"):
        find_voc(voc, "2007", boxes=True)
    (voc / "VOCdevkit/VOC2007/ImageSets/Main/cow_test.txt").unlink()
    with pytest.raises(UsageError, match=r"no annotations of test, and .*Main/cow_test.txt is missing too"):
        find_voc(voc, "2007", boxes=False)


def test_the_annotations_alone_serve_without_lists_of_classes(voc):
    before = [source.digest() for source in find_voc(voc, "2007", boxes=False)]
    for name in CLASSES:
        (voc / f"VOCdevkit/VOC2007/ImageSets/Main/{name}_trainval.txt").unlink()
    assert [source.digest() for source in find_voc(voc, "2007", boxes=False)] == before


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("ImageSets/Main/dog_trainval.txt", "000005 0\n000007 -1", r"000005.xml: by its objects dog is present \(1\)"),
        ("ImageSets/Main/cat_trainval.txt", "000005 -1\n000007 1", r"cat is there as difficult only \(0\), and absent"),
        ("ImageSets/Main/cow_trainval.txt", "000005 -1\n000007 1", r"000007.xml: .*cow is absent \(-1\), and present"),
        ("ImageSets/Main/cow_trainval.txt", "000005 -1", "no line for 1 photo of trainval.txt, such as 000007"),
        ("ImageSets/Main/cow_trainval.txt", "000005 -1\n000007 2", "cow_trainval.txt, line 2: expected a photo and 1"),
        ("ImageSets/Main/trainval.txt", "000005\n\n000005\n", "trainval.txt, line 3: 000005 stands there a second"),
        ("ImageSets/Main/trainval.txt", "../../../x", "line 1: '../../../x' is not the name of one photo of VOC2007"),
        ("ImageSets/Main/trainval.txt", "2008_000002", "'2008_000002' is not the name of one photo of VOC2007"),
        ("ImageSets/Main/trainval.txt", "000005 1", "'000005 1' is not the name of one photo"),
        ("ImageSets/Main/trainval.txt", "\n", "trainval.txt is empty"),
        ("Annotations/000007.xml", None, "1 annotation is missing or not a file, such as .*Annotations/000007.xml"),
        ("JPEGImages/000001.jpg", None, "1 photo is missing or not a file, such as .*JPEGImages/000001.jpg"),
    ],
)
def test_lists_and_folders_that_do_not_fit_are_refused(voc, file, content, reason):
    path = voc / "VOCdevkit/VOC2007" / file
    path.unlink()
    path.write_text(content) if content else path.mkdir()
    with pytest.raises(UsageError, match=reason):
        find_voc(voc, "2007", boxes=False)


WHOLE = annotation(TRAIN["000005"])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"<xmin>3<", b"<xmin>4<", "object 2, bndbox: xmin 4 lies behind xmax 3"),
        (b"<ymax>24<", b"<ymax>25<", "object 1, bndbox: ymax 25 lies outside of the photo, which has 24"),
        (b"<xmin>1<", b"<xmin>0<", "object 1, bndbox/xmin: expected a number of pixels, from 1, not '0'"),
        (b"<xmin>1<", b"<xmin>nan<", "object 1, bndbox/xmin: .* not 'nan'"),
        (b"<xmin>1</xmin>", b"", "object 1, bndbox/xmin: .* not ''"),
        (b"<width>32<", b"<width>-32<", "a.xml, size/width: .* not '-32'"),
        (b"<size>", b"<sizes>", "no sound XML: mismatched tag"),
    ],
)
def test_a_wrong_box_is_named(old, new, reason):
    assert read_annotation(WHOLE, "a.xml", boxes=True)
    with pytest.raises((UsageError, DataError), match=reason) as caught:
        read_annotation(WHOLE.replace(old, new, 1), "a.xml", boxes=True)
    assert str(caught.value).startswith("a.xml")


ENTITY = b'<!DOCTYPE annotation [<!ENTITY a "dog"><!ENTITY b "&a;&a;">]>'
OUTSIDE = b'<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        (WHOLE.replace(b">cat<", b">lynx<"), UsageError, "object 3, name: 'lynx' is not one of the 20 classes"),
        (WHOLE.replace(b"<difficult>0", b"<difficult>no"), UsageError, "object 1, difficult: expected 0 or 1"),
        (WHOLE.replace(b"object>", b"thing>"), UsageError, "expected <annotation> with <object>s, found none"),
        (b"<html><object/></html>", UsageError, "expected <annotation> with <object>s, found none in <html>"),
        (WHOLE[:-20], DataError, "no sound XML: "),
        (b"", DataError, "no sound XML: no element found"),
        (b"\0\xff", DataError, "no sound XML: "),
        (b'<?xml version="1.0" encoding="none such"?>' + WHOLE, DataError, "no sound XML: "),
        (ENTITY + WHOLE.replace(b">cat<", b">&b;<"), DataError, "declares a DOCTYPE"),
        (OUTSIDE + WHOLE.replace(b">cat<", b">&a;<"), DataError, "declares a DOCTYPE"),
        ((ENTITY + WHOLE).decode().encode("utf-16"), DataError, "declares a DOCTYPE"),
    ],
)
def test_a_wrong_annotation_is_named(data, error, reason):
    with pytest.raises(error, match=rf"^a\.xml.*{reason}"):
        read_annotation(data, "a.xml", boxes=False)


def test_what_an_annotation_need_not_have():
    plain = WHOLE.replace(b"<difficult>0</difficult>", b"")
    assert read_annotation(plain, "a.xml", boxes=True) == read_annotation(WHOLE, "a.xml", boxes=True)
    assert read_annotation(WHOLE.replace(b"size>", b"s>"), "a.xml", boxes=False) == (DOG, -1 - CAT)
    assert read_annotation(b"\n" + WHOLE.replace(b">cat<", b">\n cat <"), "a.xml", boxes=False) == (DOG, -1 - CAT)


def test_boxes_outside_of_the_pixels_are_not_packed(voc):
    """Though they lie in the size that the annotation tells."""
    larger = [("cat", 0, (7, 8, 9, 10)), ("cat", 0, (1, 1, 40, 24))]
    (voc / "VOCdevkit/VOC2007/Annotations/000007.xml").write_bytes(annotation(larger, (40, 24)))
    train, _ = find_voc(voc, "2007", boxes=True)
    assert train.record(0).target == train.targets[0]
    with pytest.raises(BadImage, match=r"32 x 24 pixels, and the bndbox of object 2 in its .* 40, 24: fetch both"):
        train.record(1)


def test_a_tar_file_is_read_in_place(tmp_path):
    files = {"VOC2007/a.txt": b"one", "VOC2007/deep/b.txt": b"three", "c.txt": b"outside", "VOC2007/empty": b""}
    write_tree(tmp_path / "folder", files)
    write_tar(tmp_path / "a.tar", tmp_path / "folder", "up")
    tree = open_tar(tmp_path / "a.tar", "VOC2007")
    plain = Tree(tmp_path / "folder/VOC2007")
    assert sorted(tree.members) == ["a.txt", "deep/b.txt", "empty"]
    for name in tree.members:
        assert tree.find(name).read() == plain.find(name).read()
        assert tree.find(name).size == plain.find(name).size
    assert tree.find("deep") is plain.find("deep") is tree.find("a.txt/b") is plain.find("a.txt/b") is None
    assert str(tree.find("a.txt")) == f"{tmp_path}/a.tar: up/VOC2007/a.txt"
    whole = (tmp_path / "a.tar").read_bytes()
    for data in (b"", whole[:700], whole[: tree.find("deep/b.txt").offset + 2], b"\x1f\x8b" + whole, b"x" * 1024):
        (tmp_path / "a.tar").write_bytes(data)
        with pytest.raises(DataError, match=r"a\.tar .*fetch it again"):
            open_tar(tmp_path / "a.tar", "VOC2007")


def official(split):
    """Photo: int8 [20], from the official lists alone."""
    values = {}
    for label, name in enumerate(CLASSES):
        for line in (DATA / f"VOCdevkit/VOC2007/ImageSets/Main/{name}_{split}.txt").read_text().splitlines():
            photo, value = line.split()
            row = values.setdefault(f"VOC2007/{photo}.jpg", np.zeros(len(CLASSES), np.int8))
            row[label] = {"1": 1, "0": -1, "-1": 0}[value]
    return values


@real
def test_real_photos_from_folders_and_from_a_tar(tool, tmp_path):
    write_tar(tmp_path / "tar" / TARS["trainval"], DATA / "VOCdevkit/VOC2007", "VOCdevkit/VOC2007")
    shutil.copy(tmp_path / "tar" / TARS["trainval"], tmp_path / "tar" / TARS["test"])
    tool(DATA, tmp_path / "plain", "--no_check")
    tool(tmp_path / "tar", tmp_path / "boxes", "--no_check", "--boxes", "--shard_mb", "1")
    for split, name, count in (("train", "trainval", 57), ("val", "test", 29)):
        one, other = (ShardReader(tmp_path / kind / split) for kind in ("plain", "boxes"))
        values = official(name)
        assert len(one) == count
        assert one.keys() == other.keys() == list(values)
        assert np.array_equal(one.labels, np.stack(list(values.values())))
        assert np.array_equal(one.labels, other.labels)
        assert set(np.unique(one.labels)) == {-1, 0, 1}
        for row in range(count):
            record, (height, width) = other.read(row), other.sizes[row]
            assert record.image == one.read(row).image
            corners = np.array(record.target.boxes)
            assert (corners[:, :2] >= 0).all()
            assert (corners[:, :2] < corners[:, 2:]).all()
            assert (corners[:, 2:] <= (width, height)).all()
        one.close()
        other.close()
    reader = ShardReader(tmp_path / "boxes/train")
    target = reader.read(reader.keys().index("VOC2007/000005.jpg")).target
    assert target.boxes[:3] == ((262, 210, 324, 339), (164, 263, 253, 372), (4, 243, 67, 374))
    assert target.difficult[:3] == (False, False, True)


def test_the_tool_finds_all_before_it_packs_and_resumes(voc, tool, tmp_path, capsys):
    photo = voc / "VOCdevkit/VOC2007/JPEGImages/000001.jpg"
    photo.rename(tmp_path / "away.jpg")
    with pytest.raises(UsageError, match="1 photo is missing"):
        tool(voc, tmp_path / "lmdb", "--image_size", "16")
    assert not (tmp_path / "lmdb").exists()
    (voc / "VOCdevkit/VOC2007/ImageSets/Main/test.txt").rename(tmp_path / "test.txt")
    tool(voc, tmp_path / "lmdb", "--image_size", "16")
    assert "holds no test set of VOC2007, nor VOCtest_06-Nov-2007.tar" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "lmdb").iterdir()] == ["train_16"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "lmdb").rglob("0*")}
    bytes_before = shard_bytes(tmp_path / "lmdb/train_16")
    (tmp_path / "test.txt").rename(voc / "VOCdevkit/VOC2007/ImageSets/Main/test.txt")
    (tmp_path / "away.jpg").rename(photo)
    tool(voc, tmp_path / "lmdb", "--image_size", "16")
    assert shard_bytes(tmp_path / "lmdb/train_16") == bytes_before
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    assert ShardReader(tmp_path / "lmdb/val_16").keys() == ["VOC2007/000001.jpg"]
