"""PASCAL VOC 2007 and 2012: photos with objects of 20 classes (Everingham et al., IJCV 2010).

A class is present in a photo where an object of it is not difficult, and to be ignored where all of them are: 1 and 0
in the official lists `ImageSets/Main/<class>_<set>.txt`, which the annotations are compared with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from dataset.jpeg.header import BadImage
from dataset.jpeg.images import MAX_BYTES, image_size
from dataset.sources.source import Source
from dataset.sources.tree import Place, Tree, open_tar
from dataset.store.record import Boxes, Record, Target, labels_of, multi_label
from utils.errors import DataError, UsageError
from utils.text import counted, printable, spelled

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
SETS = {  # by --year: the sets, each of its year, that a split is made of. 2012 has no labels for its test
    "2007": {"train": [("2007", "trainval")], "val": [("2007", "test")]},
    "2012": {"train": [("2012", "train")], "val": [("2012", "val")]},
    "07+12": {"train": [("2007", "trainval"), ("2012", "trainval")], "val": [("2007", "test")]},
}
TARS = {  # as they are fetched, by year and set
    ("2007", "trainval"): "VOCtrainval_06-Nov-2007.tar",
    ("2007", "test"): "VOCtest_06-Nov-2007.tar",
    **{("2012", name): "VOCtrainval_11-May-2012.tar" for name in ("trainval", "train", "val")},
}
_PHOTO = {"2007": re.compile("[0-9]{6}"), "2012": re.compile("[0-9]{4}_[0-9]{6}")}
_LABELS = {name: label for label, name in enumerate(CLASSES)}
_VALUES = {"1": 1, "0": 0, "-1": -1}  # of the official lists: present, difficult ones only, absent


@dataclass(frozen=True)
class VocPhotos(Source):
    """Photos with their multi-label targets, or with boxes.

    Boxes are 0-based: x1 and y1 are the left and upper edge of the first pixel that the object covers, x2 and y2 the
    right and lower edge of the last. The annotations count pixels from 1, both included, so that
    (x1, y1, x2, y2) = (xmin - 1, ymin - 1, xmax, ymax).

    Attributes:
        places: N, of the image files.
    """

    places: Sequence[Place]

    def sizes(self) -> list[int]:
        """Bytes of each file."""
        return [place.size for place in self.places]

    def image(self, number: int) -> bytes:
        """The file's bytes.

        Raises:
            BadImage: it is larger than `MAX_BYTES`.
            OSError: it cannot be read.
        """
        place = self.places[number]
        if place.size > MAX_BYTES:
            raise BadImage(f"{place.size:,} bytes, the limit is {MAX_BYTES:,}: write it again, smaller")
        return place.read()

    def record(self, number: int) -> Record:
        """The record at ``number``, its boxes inside of its image.

        Raises:
            BadImage: they are not, or as `image`.
            OSError: as `image`.
        """
        record = super().record(number)
        if isinstance(record.target, Boxes):
            height, width = image_size(record.image)
            for place, (_, _, across, down) in enumerate(record.target.boxes, start=1):
                if across > width or down > height:
                    reached = f"the bndbox of object {place} in its annotation reaches to {across:g}, {down:g}"
                    raise BadImage(f"{width} x {height} pixels, and {reached}: fetch both again")
        return record

    def name(self, number: int) -> str:
        """The file's path, or that of the tar file and the name in it."""
        return str(self.places[number])

    def take(self, numbers: Iterable[int]) -> VocPhotos:
        """These photos, in this order."""
        numbers = list(numbers)
        return replace(super().take(numbers), places=[self.places[number] for number in numbers])


def find_voc(path: Path, year: str, *, boxes: bool) -> list[VocPhotos]:
    """`train`, and `val` unless it is the test set of 2007 and that is not there.

    Args:
        path: the folder that holds `VOCdevkit/VOC<year>`, `VOC<set><year>/VOCdevkit/VOC<year>` or `VOC<year>`, or is
            `VOC<year>` itself, or holds the official tar files, which are read where they lie. Folders go first.
        year: one of `SETS`.
        boxes: targets are `Boxes`, instead of labels.

    Raises:
        UsageError: a set is not there; a photo or an annotation is missing; annotations with something wrong in them,
            or that disagree with the official lists.
        DataError: a tar file or an annotation is damaged.
    """
    trees = _find(path, {pair for sets in SETS[year].values() for pair in sets})
    splits = []
    for split, sets in SETS[year].items():
        missing = [pair for pair in sets if pair not in trees]
        if missing == [("2007", "test")]:
            continue
        if missing:
            each, name = missing[0]
            raise UsageError(
                f"{path} holds no {_list_of(name)} of VOC{each}: expected VOCdevkit/VOC{each}/ or VOC{each}/ in it, or "
                f"{TARS[missing[0]]}"
            )
        splits.append(_joined([_photos_of(trees[pair], *pair, split, boxes=boxes) for pair in sets]))
    return splits


def _find(path: Path, pairs: set[tuple[str, str]]) -> dict[tuple[str, str], Tree]:
    """Of these sets, each with its year, those that are there, with the first tree that has their list."""
    found: dict[tuple[str, str], Tree] = {}
    opened: dict[Path, Tree] = {}
    for year, name in pairs:
        own = f"VOC{year}"
        below = f"VOCdevkit/{own}"
        folders = [path / place for place in (below, f"VOCtrainval{year}/{below}", f"VOCtest{year}/{below}", own)]
        if path.resolve().name == own:
            folders.append(path)
        trees = [tree for tree in map(Tree, folders) if tree.find(_list_of(name))]
        tar = path / TARS[year, name]
        if not trees and tar.exists():
            if tar not in opened:
                opened[tar] = open_tar(tar, own)
            trees = [tree for tree in (opened[tar],) if tree.find(_list_of(name))]
        if trees:
            found[year, name] = trees[0]
    return found


def _joined(parts: list[VocPhotos]) -> VocPhotos:
    """All photos, those of the first set first."""
    return replace(
        parts[0],
        keys=[key for part in parts for key in part.keys],
        targets=[target for part in parts for target in part.targets],
        places=[place for part in parts for place in part.places],
    )


def _photos_of(tree: Tree, year: str, name: str, split: str, *, boxes: bool) -> VocPhotos:
    """The photos of one set."""
    photos = _read_list(tree, year, name)
    places = _places(tree, [f"JPEGImages/{photo}.jpg" for photo in photos], "photo")
    listed = _read_class_lists(tree, name, photos)
    names = [f"Annotations/{photo}.xml" for photo in photos]
    targets: list[Target]
    if any(map(tree.find, names)):
        targets = []
        for place in _places(tree, names, "annotation"):
            targets.append(read_annotation(place.read(), str(place), boxes=boxes))
        _compare(tree, name, photos, targets, listed)
    elif boxes:
        raise UsageError(f"--boxes: {tree.where('Annotations')} holds no annotations of {name}: only they have boxes")
    elif missing := [label for label in range(len(CLASSES)) if label not in listed]:
        raise UsageError(
            f"{tree.where('Annotations')} holds no annotations of {name}, and "
            f"{tree.where(_class_list_of(missing[0], name))} is missing too: one of them must be there"
        )
    else:
        targets = [
            multi_label((label, values[row] == 0) for label, values in listed.items() if values[row] >= 0)
            for row in range(len(photos))
        ]
    keys = [f"VOC{year}/{photo}.jpg" for photo in photos]
    return VocPhotos(split, "detection" if boxes else "multi", CLASSES, keys, targets, places)


def _list_of(name: str) -> str:
    return f"ImageSets/Main/{name}.txt"


def _class_list_of(label: int, name: str) -> str:
    return f"ImageSets/Main/{CLASSES[label]}_{name}.txt"


def _rows(tree: Tree, file: str) -> list[tuple[str, list[str]]]:
    """The words of each line that has any, and what messages call the line."""
    place = tree.find(file)
    assert place is not None
    lines = place.read().decode("utf-8-sig", "replace").splitlines()
    return [(f"{place}, line {number}", line.split()) for number, line in enumerate(lines, start=1) if line.strip()]


def _read_list(tree: Tree, year: str, name: str) -> list[str]:
    """The photos of a set, in the order of its list."""
    lines: dict[str, str] = {}
    for where, words in _rows(tree, _list_of(name)):
        photo = words[0]
        if len(words) > 1 or not _PHOTO[year].fullmatch(photo):
            raise UsageError(f"{where}: {spelled(' '.join(words)[:200])} is not the name of one photo of VOC{year}")
        if photo in lines:
            raise UsageError(f"{where}: {photo} stands there a second time")
        lines[photo] = where
    if not lines:
        raise UsageError(f"{tree.where(_list_of(name))} is empty")
    return list(lines)


def _places(tree: Tree, names: list[str], noun: str) -> list[Place]:
    """Where each of the files is."""
    places = [tree.find(name) for name in names]
    if missing := [name for name, place in zip(names, places) if place is None]:
        files = counted(len(missing), f"{noun} is missing or not a file", f"{noun}s are missing or not files")
        raise UsageError(f"{files}, such as {tree.where(missing[0])}; nothing was written")
    return [place for place in places if place is not None]


def _read_class_lists(tree: Tree, name: str, photos: list[str]) -> dict[int, list[int]]:
    """By label, what the official list of the class says of each photo: 1, 0 or -1; of the lists that are there."""
    listed: dict[int, list[int]] = {}
    for label in range(len(CLASSES)):
        file = _class_list_of(label, name)
        if not tree.find(file):
            continue
        values: dict[str, int] = {}
        for where, words in _rows(tree, file):
            if len(words) != 2 or words[1] not in _VALUES:
                raise UsageError(f"{where}: expected a photo and 1, 0 or -1, not {spelled(' '.join(words)[:200])}")
            values[words[0]] = _VALUES[words[1]]
        if missing := [photo for photo in photos if photo not in values]:
            raise UsageError(
                f"{tree.where(file)} has no line for {counted(len(missing), 'photo')} of {name}.txt, such as "
                f"{missing[0]}"
            )
        listed[label] = [values[photo] for photo in photos]
    return listed


def _compare(tree: Tree, name: str, photos: list[str], targets: list[Target], listed: dict[int, list[int]]) -> None:
    for row, (photo, target) in enumerate(zip(photos, targets, strict=True)):
        labels = set(labels_of(target))
        for label, values in listed.items():
            value = 1 if label in labels else 0 if -1 - label in labels else -1
            if value != values[row]:
                raise UsageError(
                    f"{tree.where(f'Annotations/{photo}.xml')}: by its objects {CLASSES[label]} is {_SAID[value]}, and "
                    f"{_SAID[values[row]]} by {tree.where(_class_list_of(label, name))}: fetch both again"
                )


_SAID = {1: "present (1)", 0: "there as difficult only (0)", -1: "absent (-1)"}


class _Builder(TreeBuilder):
    """Elements of a document that declares nothing: entities could name other files, or grow without end."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError(f"it declares a DOCTYPE ({printable(name)}), which no annotation has")


def read_annotation(data: bytes, where: str, *, boxes: bool) -> Target:
    """The target of one photo.

    Args:
        data: the XML file.
        where: its name, for messages.
        boxes: as `Boxes`, instead of labels.

    Raises:
        UsageError: naming the object and the field: no objects, an unknown class, a box that is inside out or not
            inside of the photo.
        DataError: it is no sound XML.
    """
    parser = XMLParser(target=_Builder())
    try:
        parser.feed(data)
        root: Element = parser.close()
    except (ParseError, ValueError, LookupError) as error:
        raise DataError(f"{where}: no sound XML: {error}; fetch it again") from None
    elements = root.findall("object")
    if root.tag != "annotation" or not elements:
        raise UsageError(f"{where}: expected <annotation> with <object>s, found none in <{printable(root.tag)}>")
    objects, corners = [], []
    size = [_number(root, f"size/{side}", where) for side in ("width", "height")] if boxes else []
    for number, element in enumerate(elements, start=1):
        place = f"{where}, object {number}"
        name, difficult = _text(element, "name"), _text(element, "difficult") or "0"
        if name not in _LABELS:
            raise UsageError(f"{place}, name: {spelled(name)} is not one of the 20 classes of VOC")
        if difficult not in ("0", "1"):
            raise UsageError(f"{place}, difficult: expected 0 or 1, not {spelled(difficult)}")
        objects.append((_LABELS[name], difficult == "1"))
        if boxes:
            corners.append(_box(element, size, place))
    if not boxes:
        return multi_label(objects)
    labels, hard = zip(*objects)
    return Boxes(tuple(corners), labels, hard, (False,) * len(objects))


def _box(element: Element, size: list[float], where: str) -> tuple[float, float, float, float]:
    edges = []
    for axis, most in zip("xy", size, strict=True):
        low, high = (_number(element, f"bndbox/{axis}{end}", where) for end in ("min", "max"))
        if high < low:
            raise UsageError(f"{where}, bndbox: {axis}min {low:g} lies behind {axis}max {high:g}")
        if high > most:
            raise UsageError(f"{where}, bndbox: {axis}max {high:g} lies outside of the photo, which has {most:g}")
        edges.append((low - 1, high))
    (x1, x2), (y1, y2) = edges
    return x1, y1, x2, y2


def _number(element: Element, field: str, where: str) -> float:
    """A length or place in pixels, which are counted from 1; a few of VOC 2012 have fractions."""
    text = _text(element, field)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?", text, re.ASCII) or float(text) < 1:
        raise UsageError(f"{where}, {field}: expected a number of pixels, from 1, not {spelled(text[:200])}")
    return float(text)


def _text(element: Element, field: str) -> str:
    return (element.findtext(field) or "").strip()
