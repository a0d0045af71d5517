"""Boxes as packed, beside the annotations of real photos, where they are at hand: `benchmarks/packed_boxes.py`."""

import json
import os
import shutil
from pathlib import Path

import pytest

from benchmarks.packed_boxes import PHOTOS, compare, pack

DATA = Path(os.environ.get("LIMBECK_DATA", "../shared/data"))
COUNTS = {  # images, objects, crowds, difficult; as the files have them
    ("coco_subset", "train"): (40, 440, 6, 0),
    ("coco_subset", "val"): (30, 232, 2, 0),
    ("voc2007_subset", "train"): (57, 157, 0, 24),
    ("voc2007_subset", "val"): (29, 67, 0, 9),
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The folder of the photos' packed splits, by the name of the photos; they are packed once."""
    folder = tmp_path_factory.mktemp("boxes")

    def call(name):
        if not (DATA / name).exists():
            pytest.skip(f"no {name} at {DATA}: set LIMBECK_DATA")
        if not (folder / name).exists():
            pack(DATA / name, folder / name)
        return folder / name

    return call


@pytest.mark.parametrize("name", PHOTOS)
def test_every_box_is_packed_as_it_is_annotated(packed, name):
    for split in ("train", "val"):
        counts, differences = compare(DATA / name, split, packed(name) / split)
        assert differences == []
        assert tuple(counts.values()) == COUNTS[name, split]


def test_whatever_differs_is_named(packed, tmp_path):
    folder = packed("coco_subset")
    changed = tmp_path / "coco_subset"
    shutil.copytree(DATA / "coco_subset/annotations", changed / "annotations")
    (changed / "train2017").symlink_to((DATA / "coco_subset/train2017").resolve())
    file = changed / "annotations/instances_train2017.json"
    values = json.loads(file.read_text())
    first, second, third, fourth, fifth = (values["annotations"][row] for row in range(5))
    first["bbox"][0] += 0.01
    second["area"] += 1
    third["iscrowd"] = 1 - third["iscrowd"]
    fourth["category_id"] = next(c["id"] for c in values["categories"] if c["id"] != fourth["category_id"])
    values["annotations"].append({**fifth, "id": 0})
    last = values["images"][-1]
    last["height"] += 1
    values["images"].append({**last, "id": 0, "file_name": "other.jpg"})
    values["annotations"].append({**first, "id": 1, "image_id": 0})
    file.write_text(json.dumps(values))
    _, differences = compare(changed, "train", folder / "train")
    assert sum("in the annotations only" in line for line in differences) == 5
    assert sum("in the record only" in line for line in differences) == 4
    assert sum("other.jpg: not packed" in line for line in differences) == 1
    assert sum("by its annotations" in line for line in differences) == 1
    assert len(differences) == 11
