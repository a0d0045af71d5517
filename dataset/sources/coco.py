"""MS COCO (Lin et al., ECCV 2014): the images of a split with their labels or their boxes.

They come from the authors' `annotations/instances_<split><year>.json`, or from a list of labels as trainers of
multi-label networks use it, a JSON file `[{"file_name": str, "labels": [int, ...]}, ...]` whose labels are positions
among the names in alphabetical order.

C categories, N images.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset.jpeg.header import BadImage
from dataset.jpeg.images import image_size
from dataset.sources.files import ImageFiles
from dataset.sources.imagenet import path_below, read_classes
from dataset.store.chosen import relabelled
from dataset.store.record import Boxes, Record, Target, labels_of, multi_label
from utils.console import progress
from utils.errors import UsageError
from utils.text import counted, first_few, spelled

ORDERS = ("alphabetical", "dataset")  # of the classes

_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO_NAMES = tuple(_NAMES.split(","))  # 80, in the order of their ids, which are 1 to 90 with gaps
_Corners = tuple[float, float, float, float]  # x1, y1, x2, y2, pixels
_NOWHERE = (0.0, 0.0, 0.0, 0.0)
_FARTHEST = 1e9  # pixels, of a corner; no NaN is less
_SLIVER = 1 + 1e-6  # pixels: a width of 1 with what x + width is rounded by
_KINDS = {str: "a string", int: "a whole number", list: "a list", dict: "an object"}  # of JSON, by their Python types


@dataclass(frozen=True)
class BoxedFiles(ImageFiles):
    """Images with boxes, which hold for files of the size that the annotations say.

    Attributes:
        shapes: N x (height, width) by the annotations, pixels.
    """

    shapes: Sequence[tuple[int, int]]

    def record(self, number: int) -> Record:
        """The record at ``number``.

        Raises:
            BadImage, OSError: as `image`; or the image has another size.
        """
        record = super().record(number)
        (height, width), (said_height, said_width) = image_size(record.image), self.shapes[number]
        if (height, width) != (said_height, said_width):
            raise BadImage(
                f"{width} x {height} pixels, and {said_width} x {said_height} by its annotations, which its boxes are "
                "for: fetch the original file"
            )
        return record

    def take(self, numbers: Iterable[int]) -> BoxedFiles:
        """These images, in this order."""
        numbers = list(numbers)
        return replace(super().take(numbers), shapes=[self.shapes[number] for number in numbers])


@dataclass(frozen=True)
class _Object:
    """An annotation."""

    annotation: int  # its id
    label: int
    crowd: bool
    corners: _Corners
    area: float | None  # of its mask, pixels; None where nobody says


@dataclass(frozen=True)
class _Found:
    """What a file says of N images."""

    names: tuple[str, ...]  # C, by label
    keys: list[str]  # N
    targets: list[Target]  # N
    shapes: list[tuple[int, int]]  # N x (height, width), or none where there are no boxes


def find_coco(
    image_path: Path,
    split: str,
    year: str,
    *,
    listed: Path | None = None,
    class_file: Path | None = None,
    class_order: str = ORDERS[0],
    boxes: bool = False,
    keep_unlabelled: bool | None = None,
) -> ImageFiles:
    """The images of ``image_path/<split><year>``; what is remarkable is printed.

    Args:
        image_path: holds `train2017`, ..., and `annotations`, or `data` with `train_anno.json` and `category.json`.
        split: train or val.
        year: 2014 or 2017.
        listed: a list of labels to take in the place of these.
        class_file: the names of its labels, one a line or a JSON object {name: label}, in the place of the
            `category.json` beside it. Neither is needed where the labels are 0 to 79, which are COCO's.
        class_order: alphabetical, or dataset: by COCO's ids, or by the labels of a list with other names.
        boxes: whether the targets are boxes.
        keep_unlabelled: whether images without a label stay; with ``boxes``, those without a box that is more than one
            pixel wide and high. The default is no, but yes for boxes of val, as in torchvision's references: detectors
            find false positives there.

    Raises:
        UsageError: a file is missing or damaged; with its name, the record and the field.
    """
    folder = image_path / f"{split}{year}"
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} is missing: --image_path must hold it, with the images of {split}")
    instances = image_path / "annotations" / f"instances_{split}{year}.json"
    file = listed or (instances if instances.exists() else image_path / "data" / f"{split}_anno.json")
    if not file.exists():
        others = f", and so is {instances}" if listed is None else ""
        raise UsageError(f"the list {file} is missing{others}; --{split}_list names one elsewhere")
    if file != instances and boxes:
        raise UsageError(f"--boxes: the list {file} has none; they stand in {instances}")
    if file == instances and class_file is not None:
        raise UsageError(f"--classes is for lists of labels, and {file} has names of its own")
    found = _read_instances(file, split, boxes=boxes) if file == instances else _read_labels(file, class_file)
    classes = found.names
    if class_order == "alphabetical":
        classes = tuple(sorted(classes))
    elif {*classes} == {*COCO_NAMES}:
        classes = COCO_NAMES
    label_of = {label: classes.index(name) for label, name in enumerate(found.names)}
    targets = [relabelled(target, label_of) for target in found.targets]
    source = ImageFiles(split, "multi", classes, found.keys, targets, folder)
    if boxes:
        source = BoxedFiles(split, "detection", classes, found.keys, targets, folder, found.shapes)
    keep = boxes and split == "val" if keep_unlabelled is None else keep_unlabelled
    labelled = [number for number, target in enumerate(targets) if _is_labelled(target)]
    something = "a box wider and higher than a pixel" if boxes else "a label"
    if bare := len(source) - len(labelled):
        done = "kept (--unlabelled drop leaves them out)" if keep else "left out (--unlabelled keep takes them in)"
        print(f"{split}: {bare:,} of {counted(len(source), 'image')} without {something}, {done}")
    if not labelled:
        raise UsageError(f"{file} has no image with {something}")
    return source if keep else source.take(labelled)


def _is_labelled(target: Target) -> bool:
    if isinstance(target, Boxes):
        return any(min(x2 - x1, y2 - y1) > _SLIVER for x1, y1, x2, y2 in target.boxes)
    return bool(labels_of(target))


def _read_instances(file: Path, split: str, *, boxes: bool) -> _Found:
    """COCO's own form; images and categories in the order of their ids."""
    values = _parsed(file)
    categories, images, annotations = (_by_id(file, values, key) for key in ("categories", "images", "annotations"))
    names = [_get(entry, "name", str, f"{file}: category {number}") for number, entry in categories.items()]
    keys = [_key(entry, f"{file}: image {number}") for number, entry in images.items()]
    _check_apart(names, f"{file}: categories, name")
    _check_apart(keys, f"{file}: images, file_name")
    label_of = {number: label for label, number in enumerate(categories)}
    place_of = {number: place for place, number in enumerate(images)}
    objects: list[list[_Object]] = [[] for _ in keys]
    for number, entry in progress(iterable=annotations.items(), desc=f"checking {split}", unit="obj"):
        where = f"{file}: annotation {number}"
        image, category = _get(entry, "image_id", int, where), _get(entry, "category_id", int, where)
        if image not in place_of:
            raise UsageError(f"{where}: image_id is {image}, and no image has this id")
        if category not in label_of:
            raise UsageError(f"{where}: category_id is {category}, and no category has this id")
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise UsageError(f"{where}: iscrowd is {_shown(crowd)}, expected 0 or 1")
        corners, area = (_corners(entry, where), _area(entry, where)) if boxes else (_NOWHERE, None)
        objects[place_of[image]].append(_Object(number, label_of[category], bool(crowd), corners, area))
    if not boxes:
        targets: list[Target] = [multi_label((one.label, False) for one in ones) for ones in objects]
        return _Found(tuple(names), keys, targets, [])
    shapes = [_shape(entry, f"{file}: image {number}") for number, entry in images.items()]
    clipped, without_area = list[int](), list[int]()
    targets = [_boxes(ones, shape, clipped, without_area) for ones, shape in zip(objects, shapes, strict=True)]
    if clipped:
        some = first_few([*map(str, clipped)])
        print(f"{file}: bbox of {counted(len(clipped), 'object')} clipped to the image, annotation {some}")
    for number in without_area:
        box = _shown(annotations[number]["bbox"])
        print(f"{file}: annotation {number}: bbox is {box}, which has no area in the image: left out")
    return _Found(tuple(names), keys, targets, shapes)


def _boxes(objects: list[_Object], shape: tuple[int, int], clipped: list[int], without_area: list[int]) -> Boxes:
    """What lies in the image of the objects' boxes; the annotations of others are added to one of the lists."""
    height, width = shape
    kept: list[_Object] = []
    for one in objects:
        x1, y1, x2, y2 = one.corners
        inside = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            without_area.append(one.annotation)
            continue
        if max(abs(new - old) for new, old in zip(inside, one.corners)) > 1e-6:  # more than x + w is rounded by
            clipped.append(one.annotation)
        kept.append(replace(one, corners=inside))
    labels, crowd = tuple(one.label for one in kept), tuple(one.crowd for one in kept)
    found = Boxes(tuple(one.corners for one in kept), labels, (False,) * len(kept), crowd)
    if all(one.area is None for one in kept):
        return found
    areas = (box if one.area is None else one.area for one, box in zip(kept, found.object_areas, strict=True))
    return replace(found, areas=tuple(areas))


def _read_labels(file: Path, class_file: Path | None) -> _Found:
    """A list of labels, in its order."""
    entries = _parsed(file)
    if not isinstance(entries, list):
        raise UsageError(f'{file} holds no list, `[{{"file_name": ..., "labels": [...]}}, ...]`')
    keys, rows = list[str](), list[list[int]]()
    for number, entry in enumerate(entries):
        where = f"{file}: entry {number}"
        if not isinstance(entry, dict):
            raise UsageError(f"{where} is {_shown(entry)}, expected an object with file_name and labels")
        keys.append(_key(entry, where))
        rows.append(_get(entry, "labels", list, where))
    _check_apart(keys, f"{file}: file_name")
    names = _names_of_labels(file, rows, class_file)
    for number, labels in enumerate(rows):
        if odd := [label for label in labels if type(label) is not int or not 0 <= label < len(names)]:
            raise UsageError(f"{file}: entry {number}: labels holds {_shown(odd[0])}, expected 0 to {len(names) - 1}")
        if len({*labels}) < len(labels):
            raise UsageError(
                f"{file}: entry {number}: labels holds one twice; expected the positions of names, no row of 0 and 1"
            )
    return _Found(names, keys, [tuple(sorted(labels)) for labels in rows], [])


def _names_of_labels(file: Path, rows: list[list[int]], class_file: Path | None) -> tuple[str, ...]:
    """The name of each label of a list."""
    beside = file.with_name("category.json")
    if class_file is None and beside.exists():
        class_file = beside
    if class_file is None:
        used = {label for labels in rows for label in labels if type(label) is int}
        if used != {*range(len(COCO_NAMES))}:
            raise UsageError(
                f"{file} has {counted(len(used), 'label')}, not the {len(COCO_NAMES)} of COCO, and no category.json "
                "beside it: --classes FILE names them"
            )
        return tuple(sorted(COCO_NAMES))
    if class_file.suffix != ".json":
        return read_classes(class_file)
    label_of = _parsed(class_file)
    if (
        not isinstance(label_of, dict)
        or not label_of
        or {*map(_shown, label_of.values())} != {*map(str, range(len(label_of)))}
    ):
        raise UsageError(f"{class_file}: expected an object of names and labels, which are 0, 1, 2, ... without a gap")
    return tuple(sorted(label_of, key=label_of.__getitem__))


def _parsed(file: Path) -> Any:
    """The values in a JSON file, without masks of objects, which are most of it."""
    try:
        print(f"reading {file} ({file.stat().st_size / 1e6:,.1f} MB)")
        return json.loads(file.read_text("utf-8-sig"), object_hook=_without_mask)
    except BrokenPipeError:  # of the line that is printed
        raise
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is damaged, for it is no JSON: {error}; fetch it again") from None


def _without_mask(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


def _by_id(file: Path, values: Any, key: str) -> dict[int, dict[str, Any]]:
    """The entries of a list of ``values``, by their ids in ascending order."""
    if not isinstance(values, dict) or not isinstance(values.get(key), list):
        raise UsageError(f"{file} has no list of {key}: expected COCO's instances")
    found: dict[int, dict[str, Any]] = {}
    for position, entry in enumerate(values[key]):
        where = f"{file}: {key}, entry {position}"
        if not isinstance(entry, dict):
            raise UsageError(f"{where} is {_shown(entry)}, expected an object")
        number = _get(entry, "id", int, where)
        if number in found:
            raise UsageError(f"{where}: another entry has its id, {number}, too")
        found[number] = entry
    return dict(sorted(found.items()))


def _get(entry: dict[str, Any], field: str, kind: type, where: str) -> Any:
    """The field of an entry, of this kind."""
    if field not in entry:
        raise UsageError(f"{where} has no {field}")
    if type(entry[field]) is not kind:
        raise UsageError(f"{where}: {field} is {_shown(entry[field])}, expected {_KINDS[kind]}")
    return entry[field]


def _key(entry: dict[str, Any], where: str) -> str:
    return path_below(_get(entry, "file_name", str, where), where)


def _shape(entry: dict[str, Any], where: str) -> tuple[int, int]:
    """Height and width of an image."""
    height, width = _get(entry, "height", int, where), _get(entry, "width", int, where)
    if min(height, width) < 1 or max(height, width) >= _FARTHEST:
        raise UsageError(f"{where}: height {height}, width {width}: expected pixels")
    return height, width


def _corners(entry: dict[str, Any], where: str) -> _Corners:
    """x1, y1, x2, y2 of COCO's x, y, width, height."""
    box = _get(entry, "bbox", list, where)
    if len(box) != 4 or not all(type(value) in (int, float) and abs(value) < _FARTHEST for value in box):
        raise UsageError(f"{where}: bbox is {_shown(box)}, expected x, y, width and height")
    x, y, width, height = map(float, box)
    return x, y, x + width, y + height


def _area(entry: dict[str, Any], where: str) -> float | None:
    """The area of an object's mask, by which COCO's scores sort objects: not that of its box."""
    if "area" not in entry:
        return None
    area = entry["area"]
    if type(area) not in (int, float) or not 0 <= area < _FARTHEST**2:
        raise UsageError(f"{where}: area is {_shown(area)}, expected a number of pixels, from 0")
    return float(area)


def _check_apart(names: list[str], where: str) -> None:
    if again := [name for name, times in Counter(names).items() if times > 1]:
        raise UsageError(f"{where}: {spelled(again[0])} stands there more than once")


def _shown(value: object) -> str:
    """A value of JSON in a message."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
