"""COCO's and VOC's photos packed with boxes, and every box compared with the annotations; a JSON line each.

    python -m benchmarks.packed_boxes [--data FOLDER]

The annotations are read here a second time, by other code than the packers': of each photo its size, and of each object
its class, box, area, and whether it is a crowd or difficult. Differences are printed; one of them makes exit code 1.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from PIL import Image

from benchmarks.common import run, show
from dataset.store.reader import ShardReader
from dataset.store.record import Boxes
from utils.console import exit_with_its_code
from utils.errors import UsageError


class Object(NamedTuple):
    """An object of a photo."""

    name: str  # of its class
    box: tuple[float, ...]  # x1, y1, x2, y2, pixels
    area: float  # of its mask, pixels
    crowd: bool
    difficult: bool


class Photo(NamedTuple):
    """What is to be packed of a photo."""

    file: Path
    size: tuple[int, int]  # height and width, pixels
    objects: list[Object]


@exit_with_its_code
def main() -> None:
    """Pack and compare both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LIMBECK_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="holds coco_subset/ and voc2007_subset/")
    options = parser.parse_args()
    for name in PHOTOS:
        if not (options.data / name).exists():
            raise UsageError(f"{options.data / name} is missing: set LIMBECK_DATA to the data folder, or give --data")
    differences = list[str]()
    with tempfile.TemporaryDirectory() as work:
        for name in PHOTOS:
            pack(options.data / name, Path(work, name))
            for split in ("train", "val"):
                counts, found = compare(options.data / name, split, Path(work, name, split))
                show("packed_boxes", {"photos": name, "split": split, **counts, "differences": len(found)})
                differences += found
    for line in differences:
        print(line, file=sys.stderr)
    sys.exit(1 if differences else 0)


def pack(photos: Path, folder: Path) -> None:
    """Pack both splits of ``photos`` with boxes to ``folder``, their files as they are."""
    tool, year, _ = PHOTOS[photos.name]
    run(tool, "--image_path", str(photos), "--output_path", str(folder), "--year", year, "--boxes", "--no_tiles")


def compare(photos: Path, split: str, folder: Path) -> tuple[dict[str, int], list[str]]:
    """Compare a packed split with the annotations of its photos.

    Args:
        photos: the folder of a data set, whose name is one of `PHOTOS`.
        split: train or val.
        folder: of the packed split.

    Returns:
        What the annotations have, counted, and a line for each difference.
    """
    expected = PHOTOS[photos.name][2](photos, split)
    differences = list[str]()
    reader = ShardReader(folder)
    keys = reader.keys()
    for key, times in (Counter(keys) - Counter(expected.keys())).items():
        differences.append(f"{photos.name}, {split}, {key}: packed {times} times more than expected")
    for key in expected.keys() - {*keys}:
        differences.append(f"{photos.name}, {split}, {key}: not packed")
    for row, key in enumerate(keys):
        if key in expected:
            differences += [f"{photos.name}, {split}, {key}: {line}" for line in _differing(expected[key], reader, row)]
    reader.close()
    objects = [one for photo in expected.values() for one in photo.objects]
    crowds, difficult = (sum(getattr(one, kind) for one in objects) for kind in ("crowd", "difficult"))
    return {"images": len(expected), "objects": len(objects), "crowds": crowds, "difficult": difficult}, differences


def _differing(photo: Photo, reader: ShardReader, row: int) -> list[str]:
    """What is otherwise in a record."""
    record, (height, width) = reader.read(row), reader.sizes[row].tolist()
    assert isinstance(record.target, Boxes)
    target = record.target
    names = [reader.classes[label] for label in target.labels]
    packed = Counter(map(Object, names, target.boxes, target.object_areas, target.crowd, target.difficult))
    expected = Counter(photo.objects)
    lines = [f"{one} is in the annotations only" for one in (expected - packed).elements()]
    lines += [f"{one} is in the record only" for one in (packed - expected).elements()]
    pixels = Image.open(io.BytesIO(record.image)).size[::-1]
    if not (height, width) == pixels == photo.size:
        lines.append(f"{photo.size} by its annotations, {(height, width)} by the columns, {pixels} in pixels")
    if record.image != photo.file.read_bytes():
        lines.append(f"not the bytes of {photo.file}")
    return lines


def _coco(photos: Path, split: str) -> dict[str, Photo]:
    """By key what `instances_<split>2017.json` says; of train, the photos that torchvision's references train on."""
    values = json.loads((photos / f"annotations/instances_{split}2017.json").read_text())
    names = {category["id"]: category["name"] for category in values["categories"]}
    objects: dict[int, list[Object]] = {image["id"]: [] for image in values["images"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in values["images"]}
    trained_on = set()
    for entry in values["annotations"]:
        number, (x, y, width, height) = entry["image_id"], entry["bbox"]
        bottom, right = sizes[number]
        box = (max(x, 0.0), max(y, 0.0), min(x + width, right), min(y + height, bottom))
        if box[0] < box[2] and box[1] < box[3]:
            name, crowd = names[entry["category_id"]], entry["iscrowd"] == 1
            objects[number].append(Object(name, box, entry["area"], crowd, difficult=False))
        if min(width, height) > 1:
            trained_on.add(number)
    return {
        image["file_name"]: Photo(
            photos / f"{split}2017" / image["file_name"], sizes[image["id"]], objects[image["id"]]
        )
        for image in values["images"]
        if split == "val" or image["id"] in trained_on
    }


def _voc(photos: Path, split: str) -> dict[str, Photo]:
    """By key what the annotations of VOC 2007 say; pixels count from 1, the last one lies in the box."""
    folder = photos / "VOCdevkit/VOC2007"
    found = {}
    for name in (folder / f"ImageSets/Main/{'trainval' if split == 'train' else 'test'}.txt").read_text().split():
        root = ElementTree.parse(folder / f"Annotations/{name}.xml").getroot()
        height, width = (int(root.findtext(f"size/{side}", "")) for side in ("height", "width"))
        objects = []
        for one in root.iter("object"):
            x1, y1, x2, y2 = (float(one.findtext(f"bndbox/{end}", "")) for end in ("xmin", "ymin", "xmax", "ymax"))
            area = (x2 - x1 + 1) * (y2 - y1 + 1)
            difficult = one.findtext("difficult") == "1"
            objects.append(
                Object(one.findtext("name", ""), (x1 - 1, y1 - 1, x2, y2), area, crowd=False, difficult=difficult)
            )
        found[f"VOC2007/{name}.jpg"] = Photo(folder / f"JPEGImages/{name}.jpg", (height, width), objects)
    return found


_Reading = Callable[[Path, str], dict[str, Photo]]
PHOTOS: dict[str, tuple[str, str, _Reading]] = {  # folder of photos: its tool, the year, and its annotations read
    "coco_subset": ("dataset/coco2lmdb.py", "2017", _coco),
    "voc2007_subset": ("dataset/voc2lmdb.py", "2007", _voc),
}


if __name__ == "__main__":
    main()
