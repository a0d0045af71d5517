"""MS COCO's annotations and lists of labels, packed and read back."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import examples, image_bytes, shard_bytes, write_tree
from hypothesis import given
from hypothesis import strategies as st

from dataset import coco2lmdb
from dataset.jpeg.decode import decode
from dataset.sources.coco import COCO_NAMES, _boxes, _Object, find_coco
from dataset.store.reader import ShardReader
from dataset.store.record import Boxes
from utils.errors import UsageError

REAL = Path(os.environ.get("LIMBECK_DATA", "../shared/data")) / "coco_subset"
NAMES = {7: "yak", 3: "dog", 5: "ant"}  # by id; the dataset's order is dog, ant, yak


def instances():
    """Three images, one of them without objects."""
    images = [{"id": 9, "file_name": "b.jpg", "height": 24, "width": 32}]
    images += [{"id": n, "file_name": f"{name}.jpg", "height": 20, "width": 30} for n, name in ((4, "a"), (12, "c"))]
    objects = [(1, 9, 7, [1, 2.5, 8, 4], 0), (2, 9, 3, [0, 0, 32, 24], 1), (3, 4, 7, [3, 3, 5, 5], 0)]
    objects += [(8, 9, 7, [4, 4, 2, 2], 0)]
    keys = ("id", "image_id", "category_id", "bbox", "iscrowd")
    annotations = [{**dict(zip(keys, row)), "segmentation": {"counts": [1], "size": [2, 2]}} for row in objects]
    return {
        "categories": [{"id": number, "name": name} for number, name in NAMES.items()],
        "images": images,
        "annotations": annotations,
    }


def write_coco(root, values=None, **splits):
    """IMAGE_PATH with train2017 and val2017, the same but where ``splits`` says otherwise."""
    for split in ("train", "val"):
        here = splits.get(split, values or instances())
        write_tree(root, {f"annotations/instances_{split}2017.json": json.dumps(here).encode()})
        files = {"a.jpg": image_bytes(1, 20, 30), "b.jpg": image_bytes(2, 24, 32), "c.jpg": image_bytes(3, 20, 30)}
        write_tree(root / f"{split}2017", files)
    return root


@pytest.fixture
def packed(tmp_path, monkeypatch, capsys):
    """coco2lmdb.py on a folder: its exit code and what it printed, with the readers of the splits that are there."""

    def call(root, *words, output="lmdb", splits=("train", "val")):
        words = ["--image_path", str(root), "--year", "2017", "--output_path", str(tmp_path / output), *words]
        monkeypatch.setattr(sys, "argv", ["coco2lmdb.py", *words, "--num_workers", "1"])
        try:
            coco2lmdb.main()
            code = 0
        except SystemExit as end:
            code = end.code
        readers = [ShardReader(tmp_path / output / split) for split in splits] if code == 0 else []
        return code, "".join(capsys.readouterr()), *readers

    return call


def test_labels_of_each_image_in_either_order(tmp_path, packed):
    root = write_coco(tmp_path)
    _, printed, train, val = packed(root)
    for reader in (train, val):
        assert reader.index.target == "multi"
        assert reader.classes == ("ant", "dog", "yak")
        assert reader.keys() == ["a.jpg", "b.jpg"]  # by id
        assert reader.labels.tolist() == [[0, 0, 1], [0, 1, 1]]  # the crowd too
    assert train.read(1).target == (1, 2)
    assert "train: 1 of 3 images without a label, left out (--unlabelled keep takes them in)" in printed
    words = ("--class_order", "dataset", "--unlabelled", "keep", "--split", "val")
    _, printed, val = packed(root, *words, output="other", splits=["val"])
    assert val.classes == ("dog", "ant", "yak")
    assert val.keys() == ["a.jpg", "b.jpg", "c.jpg"]
    assert val.labels.tolist() == [[0, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert "val: 1 of 3 images without a label, kept" in printed
    assert not (tmp_path / "other/train").exists()


def test_boxes_are_corners_inside_the_image(tmp_path, packed):
    values = instances()
    rows = [(20, [-3, 5, 10, 30]), (21, [5, 5, 0, 3]), (22, [40, 5, 3, 3]), (23, [2, 2, 4, -1])]
    values["annotations"] += [{"id": n, "image_id": 12, "category_id": 5, "bbox": box} for n, box in rows]
    words = ("--boxes", "--split", "train")
    _, printed, train = packed(write_coco(tmp_path, values), *words, splits=["train"])
    assert train.index.target == "detection"
    assert [train.read(n).target for n in range(3)] == [
        Boxes(((3.0, 3.0, 8.0, 8.0),), (2,), (False,), (False,)),
        Boxes(
            ((1.0, 2.5, 9.0, 6.5), (0.0, 0.0, 32.0, 24.0), (4.0, 4.0, 6.0, 6.0)),
            (2, 1, 2),
            (False,) * 3,
            (False, True, False),
        ),
        Boxes(((0.0, 5.0, 7.0, 20.0),), (0,), (False,), (False,)),
    ]
    assert "instances_train2017.json: bbox of 1 object clipped to the image, annotation 20" in printed
    for number, box in rows[1:]:
        left_out = f"annotation {number}: bbox is {box}, which has no area in the image: left out"
        assert f"instances_train2017.json: {left_out}" in printed
    turned = find_coco(tmp_path, "train", "2017", boxes=True).take([1, 0])  # each with its own size
    assert [turned.record(n).key for n in range(2)] == ["b.jpg", "a.jpg"]
    _, _, small = packed(tmp_path, *words, "--image_size", "12", splits=["train_12"])
    assert small.read(1).target.boxes[1] == (0.0, 0.0, 16.0, 12.0)


corner = st.floats(-50, 100, allow_nan=False)


@examples(200)
@given(st.lists(st.tuples(corner, corner, corner, corner), max_size=5))
def test_a_box_is_what_it_covers_of_the_image(corners):
    clipped, without_area = [], []
    objects = [_Object(number, 0, False, box, None) for number, box in enumerate(corners)]
    boxes = iter(_boxes(objects, (20, 30), clipped, without_area).boxes)
    for number, (x1, y1, x2, y2) in enumerate(corners):
        inside = tuple(np.clip((x1, y1, x2, y2), 0, (30, 20, 30, 20)))
        if number in without_area:
            assert inside[0] >= inside[2] or inside[1] >= inside[3]
        else:
            assert next(boxes) == inside
            assert (number in clipped) == bool(np.abs(np.subtract(inside, (x1, y1, x2, y2))).max() > 1e-6)
    assert next(boxes, None) is None


def test_areas_are_those_of_the_masks(tmp_path, packed):
    values = instances()
    for entry, area in zip(values["annotations"], (20, 700.5, 0)):  # the fourth has none
        entry["area"] = area
    root, words = write_coco(tmp_path, values), ("--boxes", "--split", "train")
    _, _, train = packed(root, *words, splits=["train"])
    assert [train.read(row).target.areas for row in range(2)] == [(0.0,), (20.0, 700.5, 4.0)]
    _, _, small = packed(root, *words, "--image_size", "12", splits=["train_12"])
    assert small.read(1).target.areas == (5.0, 175.125, 1.0)
    _, _, plain = packed(write_coco(tmp_path), *words, output="plain", splits=["train"])
    assert plain.read(1).target.areas == ()
    assert plain.read(1).target.object_areas == (32.0, 768.0, 4.0)


def test_images_without_boxes_are_left_out_of_train_and_stay_in_val(tmp_path, packed):
    """As in torchvision's references; nor do boxes of at most a pixel in width or height make a training image."""
    values = instances()
    slivers = [
        [1.2, 2, 1, 9],
        [3, 3, 0.5, 0.5],
        [29, 3, 8, 8],
    ]  # 1.2 + 1 - 1.2 is more than 1; the last is cut to a pixel
    values["annotations"] += [
        {"id": 20 + n, "image_id": 12, "category_id": 5, "bbox": b} for n, b in enumerate(slivers)
    ]
    values["images"].append({"id": 13, "file_name": "d.jpg", "height": 20, "width": 30})
    root = write_coco(tmp_path, values)
    for split in ("train", "val"):
        write_tree(root / f"{split}2017", {"d.jpg": image_bytes(4, 20, 30)})
    _, printed, train, val = packed(root, "--boxes")
    assert train.keys() == ["a.jpg", "b.jpg"]
    assert val.keys() == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert [len(val.read(row).target.boxes) for row in range(4)] == [1, 3, 3, 0]
    assert val.sizes.tolist() == [[20, 30], [24, 32], [20, 30], [20, 30]]
    without = "2 of 4 images without a box wider and higher than a pixel"
    assert f"train: {without}, left out (--unlabelled keep takes them in)" in printed
    assert f"val: {without}, kept (--unlabelled drop leaves them out)" in printed
    for flag, count in (("keep", 4), ("drop", 2)):
        _, _, *both = packed(root, "--boxes", "--unlabelled", flag, output=flag)
        assert [len(reader) for reader in both] == [count, count]
    values["annotations"][4]["bbox"][2] = 1.01
    assert len(find_coco(write_coco(tmp_path, values), "train", "2017", boxes=True)) == 3
    assert len(find_coco(root, "val", "2017")) == 3  # labels are as before: those with one


def test_boxes_of_an_image_of_another_size_are_refused(tmp_path, packed):
    root = write_coco(tmp_path)
    write_tree(root / "train2017", {"b.jpg": image_bytes(2, 48, 64)})
    words = ("--boxes", "--split", "train")
    code, printed = packed(root, *words)
    assert code == 3
    assert "train2017/b.jpg: 64 x 48 pixels, and 32 x 24 by its annotations" in printed
    assert packed(root, *words, "--skip_bad", "--shuffle", output="less", splits=["train"])[2].keys() == ["a.jpg"]
    source = find_coco(root, "train", "2017")  # labels hold for any size
    assert source.record(1).target == (1, 2)


def listed(root, rows=None, split="train"):
    """IMAGE_PATH with lists of labels in the place of the annotations."""
    rows = rows or [{"file_name": "b.jpg", "labels": [2, 1]}, {"file_name": "c.jpg", "labels": []}]
    write_coco(root)
    (root / f"annotations/instances_{split}2017.json").unlink()
    write_tree(root, {f"data/{split}_anno.json": json.dumps(rows).encode()})
    return root


def test_lists_of_labels_give_what_the_annotations_give(tmp_path, packed):
    root = listed(tmp_path, [{"file_name": "a.jpg", "labels": [2]}, {"file_name": "b.jpg", "labels": [2, 1]}])
    names = {"category.json": b'{"ant": 0, "dog": 1, "yak": 2}', "names.txt": b"ant\ndog\nyak\n"}
    write_tree(root / "data", names)
    _, _, train, val = packed(root)  # val by its annotations
    assert (train.keys(), train.classes) == (val.keys(), val.classes)
    assert [train.read(n).target for n in range(2)] == [val.read(n).target for n in range(2)] == [(2,), (1, 2)]
    by_itself = find_coco(root, "train", "2017")
    mine = (root / "data/train_anno.json").rename(root / "mine.json")
    assert find_coco(root, "train", "2017", listed=mine, class_file=root / "data/names.txt") == by_itself
    write_tree(root, {"other.json": b'{"yak": 0, "ant": 1, "dog": 2}'})  # any order of ids
    source = find_coco(root, "train", "2017", listed=mine, class_file=root / "other.json")
    assert source.classes == ("ant", "dog", "yak")
    assert source.targets == [(1,), (0, 1)]
    source = find_coco(root, "train", "2017", listed=mine, class_file=root / "other.json", class_order="dataset")
    assert source.classes == ("yak", "ant", "dog")
    assert source.targets == [(2,), (1, 2)]


def test_a_closed_pipe_is_no_fault_of_a_file(tmp_path, monkeypatch):
    def closed(_):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("builtins.print", closed)
    with pytest.raises(BrokenPipeError):
        find_coco(listed(tmp_path), "train", "2017")


def test_all_80_labels_are_those_of_coco(tmp_path):
    assert sorted(COCO_NAMES)[49] == "person"  # as the lists of L2D and CPSD have it
    rows = [{"file_name": "a.jpg", "labels": [*range(79)]}, {"file_name": "b.jpg", "labels": [49, 79]}]
    root = listed(tmp_path, rows)
    source = find_coco(root, "train", "2017")
    assert source.classes == tuple(sorted(COCO_NAMES))
    source = find_coco(root, "train", "2017", class_order="dataset")
    assert source.classes == COCO_NAMES
    assert source.targets[1] == (COCO_NAMES.index("person"), COCO_NAMES.index("zebra")) == (0, 22)
    listed(tmp_path, rows[:1])
    with pytest.raises(UsageError, match=r"train_anno\.json has 79 labels, not the 80 of COCO, .*--classes"):
        find_coco(root, "train", "2017")


def change(key, number, field, value):
    def make(values):
        values[key][number][field] = value

    return make


DAMAGE = [
    (lambda values: values.pop("images"), "has no list of images"),
    (lambda values: values["annotations"].append(5), "annotations, entry 4 is 5, expected an object"),
    (lambda values: values["annotations"][1].pop("image_id"), "annotation 2 has no image_id"),
    (lambda values: values["annotations"][1].pop("id"), "annotations, entry 1 has no id"),
    (change("annotations", 1, "id", 1), "annotations, entry 1: another entry has its id, 1, too"),
    (change("annotations", 1, "id", True), "annotations, entry 1: id is true, expected a whole number"),
    (change("annotations", 1, "image_id", 77), "annotation 2: image_id is 77, and no image has this id"),
    (change("annotations", 1, "category_id", 1), "annotation 2: category_id is 1, and no category has this id"),
    (change("annotations", 1, "iscrowd", 2), "annotation 2: iscrowd is 2, expected 0 or 1"),
    (change("annotations", 1, "bbox", [1, 2, 3]), r"annotation 2: bbox is \[1, 2, 3\], expected x, y, width and"),
    (change("annotations", 1, "bbox", [1, 2, 3, float("nan")]), "annotation 2: bbox is"),
    (change("annotations", 1, "bbox", [1, 2, 3, 10**400]), "annotation 2: bbox is"),
    (change("annotations", 1, "bbox", [1, 2, True, 3]), r"annotation 2: bbox is \[1, 2, true, 3\], expected x, y"),
    (change("annotations", 1, "bbox", [1, 2, "3", 4]), "annotation 2: bbox is"),
    (change("annotations", 1, "bbox", [1, 2, 1e9, 4]), "annotation 2: bbox is"),
    (lambda values: values["annotations"][1].pop("bbox"), "annotation 2 has no bbox"),
    (change("annotations", 1, "category_id", True), "annotation 2: category_id is true, expected a whole number"),
    (change("annotations", 1, "area", -1), "annotation 2: area is -1, expected a number of pixels, from 0"),
    (change("annotations", 1, "area", True), "annotation 2: area is true"),
    (change("annotations", 1, "area", "5"), 'annotation 2: area is "5"'),
    (change("annotations", 1, "area", None), "annotation 2: area is null"),
    (change("annotations", 1, "area", float("nan")), "annotation 2: area is NaN"),
    (change("annotations", 1, "area", float("inf")), "annotation 2: area is Infinity"),
    (change("annotations", 1, "area", 10**400), "annotation 2: area is 1000"),
    (change("images", 0, "height", 10**400), "image 9: height 1000"),
    (change("images", 0, "id", 4), "images, entry 1: another entry has its id, 4, too"),
    (change("images", 0, "file_name", "../b.jpg"), "image 9: the path must stay below"),
    (change("images", 0, "file_name", "a.jpg"), r"images, file_name: 'a\.jpg' stands there more than once"),
    (change("images", 0, "file_name", 5), "image 9: file_name is 5, expected a string"),
    (change("images", 0, "width", 0), "image 9: height 24, width 0: expected pixels"),
    (change("images", 0, "height", "24"), 'image 9: height is "24", expected a whole number'),
    (change("categories", 0, "name", "dog"), "categories, name: 'dog' stands there more than once"),
    (lambda values: values["annotations"].clear(), "has no image with a box wider and higher than a pixel"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGE)
def test_damaged_annotations_are_named(tmp_path, damage, reason):
    values = instances()
    damage(values)
    with pytest.raises(UsageError, match=rf"instances_train2017\.json.*{reason}"):
        find_coco(write_coco(tmp_path, values), "train", "2017", boxes=True)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"a": 1}, "holds no list"),
        ([5], "entry 0 is 5, expected an object"),
        ([{"file_name": "a.jpg"}], "entry 0 has no labels"),
        ([{"file_name": "a.jpg", "labels": 3}], "entry 0: labels is 3, expected a list"),
        ([{"file_name": "a.jpg", "labels": [3]}], "entry 0: labels holds 3, expected 0 to 2"),
        ([{"file_name": "a.jpg", "labels": ["1"]}], 'entry 0: labels holds "1", expected 0 to 2'),
        ([{"file_name": "a.jpg", "labels": [0, 1, 0]}], "entry 0: labels holds one twice; .* no row of 0 and 1"),
        ([{"file_name": "a.jpg", "labels": [0]}] * 2, r"file_name: 'a\.jpg' stands there more than once"),
        ([{"file_name": "/a.jpg", "labels": [0]}], "entry 0: the path must stay below"),
        ([{"file_name": "a.jpg", "labels": []}], "has no image with a label"),
    ],
)
def test_damaged_lists_are_named(tmp_path, rows, reason):
    root = write_tree(listed(tmp_path, rows), {"data/category.json": b'{"ant": 0, "dog": 1, "yak": 2}'})
    with pytest.raises(UsageError, match=rf"train_anno\.json.*{reason}"):
        find_coco(root, "train", "2017")


@pytest.mark.parametrize("names", [b"[]", b"{}", b'{"ant": 0, "dog": 2}', b'{"ant": 0, "dog": "1"}', b'{"ant": '])
def test_wrong_names_are_refused(tmp_path, names):
    root = write_tree(listed(tmp_path), {"data/category.json": names})
    with pytest.raises(UsageError, match=r"category\.json.*(expected an object of names|is no JSON)"):
        find_coco(root, "train", "2017")


def test_what_is_missing_or_does_not_fit_is_named(tmp_path, packed):
    root = write_coco(tmp_path)
    other = instances()
    other["categories"][0]["name"] = "cow"
    assert "categories of train and val differ" in packed(write_coco(tmp_path / "two", val=other))[1]
    assert "--classes is for lists of labels" in packed(root, "--classes", "x.txt")[1]
    assert "the list nowhere.json is missing; --train_list" in packed(root, "--train_list", "nowhere.json")[1]
    (root / "annotations/instances_val2017.json").write_text('{"images": [')
    code, printed = packed(root)
    assert code == 2
    assert "instances_val2017.json is damaged, for it is no JSON" in printed
    assert not (tmp_path / "lmdb").exists()  # though train is sound
    (root / "annotations/instances_val2017.json").unlink()
    assert "val_anno.json is missing, and so is " in packed(root)[1]
    assert "--boxes: the list" in packed(listed(tmp_path / "three"), "--boxes")[1]
    (root / "train2017/b.jpg").unlink()
    assert "train2017/b.jpg': No such file" in packed(root, "--split", "train")[1]
    (root / "train2017").rename(root / "train")
    assert "train2017 is missing: --image_path must hold it" in packed(root)[1]


@pytest.mark.skipif(not REAL.exists(), reason=f"no COCO photos at {REAL}: set LIMBECK_DATA")
def test_real_photos_have_their_labels_and_boxes(tmp_path, packed):
    _, _, *plain = packed(REAL, "--no_check", "--no_tiles", "--class_order", "dataset")
    _, _, *boxed = packed(REAL, "--no_check", "--class_order", "dataset", "--boxes", "--shard_mb", "1", output="boxes")
    for split, unboxed, reader, count in zip(("train", "val"), plain, boxed, (40, 30)):
        values = json.loads((REAL / f"annotations/instances_{split}2017.json").read_text())
        names = {entry["id"]: entry["name"] for entry in values["categories"]}
        image = {entry["file_name"]: entry["id"] for entry in values["images"]}
        assert reader.classes == unboxed.classes == tuple(names.values()) == COCO_NAMES
        assert len(reader) == count
        assert reader.keys() == unboxed.keys()
        assert np.array_equal(reader.labels, unboxed.labels)
        ordered = find_coco(REAL, split, "2017")
        assert ordered.classes == tuple(sorted(names.values()))
        for row, key in enumerate(reader.keys()):
            objects = [entry for entry in values["annotations"] if entry["image_id"] == image[key]]
            there = {names[entry["category_id"]] for entry in objects}
            assert {reader.classes[label] for label in np.flatnonzero(reader.labels[row] == 1)} == there
            assert {ordered.classes[label] for label in ordered.targets[row]} == there
            target = reader.read(row).target
            given = np.array([entry["bbox"] for entry in objects])
            assert np.abs(np.array(target.boxes) - np.hstack([given[:, :2], given[:, :2] + given[:, 2:]])).max() < 1e-9
            assert [reader.classes[label] for label in target.labels] == [names[e["category_id"]] for e in objects]
            assert target.crowd == tuple(bool(entry["iscrowd"]) for entry in objects)
            file = (REAL / f"{split}2017" / key).read_bytes()
            assert unboxed.read(row).image == file
            if row == 0:
                assert np.array_equal(decode(reader.read(row).image), decode(file))


@pytest.mark.skipif(not REAL.exists(), reason=f"no COCO photos at {REAL}: set LIMBECK_DATA")
def test_real_photos_packed_in_parts_go_on(tmp_path, packed):
    words = ("--no_check", "--boxes", "--shard_mb", "1", "--split", "val")
    packed(REAL, *words, "--part", "2/2", splits=())
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "lmdb/val").glob("0*.lmdb")}
    assert len(finished) > 1
    for _ in range(2):  # the second time, all is verified
        packed(REAL, *words, splits=())
        assert all(path.stat().st_mtime_ns == written for path, written in finished.items())
    packed(REAL, *words, output="whole", splits=())
    assert shard_bytes(tmp_path / "lmdb/val") == shard_bytes(tmp_path / "whole/val")
