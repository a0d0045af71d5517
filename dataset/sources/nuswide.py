"""NUS-WIDE: Flickr's photos with those of 81 concepts that people saw in them (Chua et al., CIVR 2009).

Line n of `Labels_<concept>_Train.txt` is 1 or 0: whether the photo of line n of `TrainImagelist.txt` shows the concept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataset.jpeg.header import BadImage
from dataset.sources.files import ImageFiles
from dataset.sources.imagenet import lines_of, path_below, read_classes
from dataset.sources.walk import entries_of
from utils.console import progress
from utils.errors import UsageError
from utils.text import counted, printable, spelled

ORDERS = ("alphabetical", "dataset")
_NAMES = {"train": "Train", "val": "Test"}  # what the files call a split
_LABEL_FOLDERS = ("TrainTestLabels", "Groundtruth/TrainTestLabels")
_LIST_FOLDERS = ("ImageList", "ImageList/ImageList")
_CONCEPT_FILES = ("Concepts81.txt", "ConceptsList/Concepts81.txt")


@dataclass(frozen=True)
class NusPhotos(ImageFiles):
    """Photos, some of which may be missing.

    Attributes:
        lengths: N, bytes of each file; 0 where it is missing.
    """

    lengths: Sequence[int]

    def sizes(self) -> list[int]:
        """Bytes of each file; 0 where it is missing."""
        return list(self.lengths)

    def image(self, number: int) -> bytes:
        """The file's bytes.

        Raises:
            BadImage: it is missing, or as `read_image`.
            OSError: as `read_image`.
        """
        try:
            return super().image(number)
        except FileNotFoundError:
            raise BadImage("the photo is missing") from None

    def take(self, numbers: Iterable[int]) -> NusPhotos:
        """These photos, in this order."""
        numbers = list(numbers)
        return replace(super().take(numbers), lengths=[self.lengths[number] for number in numbers])


def find_concepts(path: Path, order: str) -> tuple[str, ...]:
    """The names of the classes.

    Args:
        path: what `find_nuswide` is given.
        order: `alphabetical`, or `dataset` for that of Concepts81.txt.

    Raises:
        UsageError: there is no Concepts81.txt, and ``order`` is its order, or no file of labels either.
    """
    file = _first(path, _CONCEPT_FILES)
    if file is not None:
        names = tuple(map(str.strip, read_classes(file)))
        return names if order == "dataset" else tuple(sorted(names))
    if order == "dataset":
        raise UsageError(f"--class_order: {path} holds no {' nor '.join(_CONCEPT_FILES)}: only there is their order")
    folder = _label_folder(path)
    found = (re.fullmatch(r"Labels_(.+)_Train\.txt", entry.name) for entry in entries_of(folder))
    concepts = tuple(sorted(match[1] for match in found if match))
    if not concepts:
        raise UsageError(f"{folder} holds no Labels_<concept>_Train.txt: fetch NUS-WIDE's lists again")
    return concepts


def find_nuswide(
    path: Path, split: str, classes: tuple[str, ...], *, unlabelled: bool, missing: bool
) -> tuple[NusPhotos, list[str]]:
    """The photos of a split in the order of its list, and remarks on those that are left out.

    Args:
        path: the folder with `Flickr/<folder>/<photo>`, `ImageList/` and `TrainTestLabels/`; the last may lie in
            `Groundtruth/`, the lists in `ImageList/ImageList/`.
        split: train, or val for what NUS-WIDE calls test.
        classes: C, of `find_concepts`.
        unlabelled: keep the photos that show none of the classes.
        missing: photos may be missing; packing finds each that is as an image that cannot be read.

    Raises:
        UsageError: a list is missing, or has a wrong line, or another number of lines than its photos are; photos are
            missing.
    """
    keys = _read_list(path, split)
    present = np.stack([_read_labels(path, split, name, len(keys)) for name in classes], axis=1)  # [N, C]
    remarks = []
    if not unlabelled:
        kept = np.flatnonzero(present.sum(axis=1))
        if left_out := len(keys) - len(kept):
            photos = counted(left_out, "photo has no label and is", "photos have no label and are")
            remarks.append(f"{photos} left out, of {len(keys):,}; --unlabelled keep packs them")
        keys = [keys[row] for row in kept.tolist()]
        present = present[kept]
        if not keys:
            raise UsageError(f"{_label_folder(path)}: not one photo of {split} has a label; see --unlabelled")
    rows, labels = present.nonzero()
    ends = np.cumsum(np.bincount(rows, minlength=len(keys)))[:-1]
    targets = [tuple(row.tolist()) for row in np.split(labels, ends)]
    folder = path / "Flickr"
    lengths = _lengths(folder, keys)
    absent = [key for key, length in zip(keys, lengths) if length == 0]
    if len(absent) == len(keys):
        shown = printable(absent[0])
        raise UsageError(f"{folder} holds none of the {counted(len(keys), 'photo')} of {split}, such as {shown}")
    if absent:
        photos = f"{counted(len(absent), 'photo is', 'photos are')} missing or empty, of {len(keys):,}"
        if not missing:
            raise UsageError(
                f"{split}: {photos}, such as {printable(str(folder / absent[0]))}: fetch them, or leave missing and "
                "damaged ones out with --skip_bad; nothing was written"
            )
        remarks.append(f"{photos}; report.txt names them")
    return NusPhotos(split, "multi", classes, keys, targets, folder, lengths), remarks


def _first(path: Path, names: Sequence[str]) -> Path | None:
    return next((path / name for name in names if (path / name).exists()), None)


def _label_folder(path: Path) -> Path:
    folder = _first(path, _LABEL_FOLDERS)
    if folder is None:
        raise UsageError(f"{path} holds no {'/ nor '.join(_LABEL_FOLDERS)}/: fetch NUS-WIDE's lists of labels")
    return folder


def _lines(path: Path) -> list[str]:
    """The lines but for spaces around them and empty ones at the end."""
    lines = [line.strip() for line in lines_of(path)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _read_list(path: Path, split: str) -> list[str]:
    """`folder/photo` of each line, of which the folder stands before a backslash."""
    names = [f"{folder}/{_NAMES[split]}Imagelist.txt" for folder in _LIST_FOLDERS]
    file = _first(path, names)
    if file is None:
        raise UsageError(f"{path} holds no {' nor '.join(names)}: fetch NUS-WIDE's lists of images")
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(file), start=1):
        where = f"{file}, line {number} ({printable(line[:200])})"
        if not line:
            raise UsageError(f"{where}: expected `folder\\photo`")
        key = path_below(line.replace("\\", "/"), where)
        if key in seen:
            raise UsageError(f"{where}: {printable(key)} stands on line {seen[key]}")
        seen[key] = number
    if not seen:
        raise UsageError(f"{file} is empty")
    return list(seen)


def _read_labels(path: Path, split: str, concept: str, photos: int) -> np.ndarray:
    """Whether each photo shows the concept, bool [N]."""
    file = _label_folder(path) / f"Labels_{concept}_{_NAMES[split]}.txt"
    if not file.exists():
        raise UsageError(f"{file} is missing: every concept has one")
    lines = _lines(file)
    if set(lines) - {"0", "1"}:
        number, line = next((n, line) for n, line in enumerate(lines, start=1) if line not in ("0", "1"))
        raise UsageError(f"{file}, line {number}: expected 0 or 1, not {spelled(line[:200])}")
    if len(lines) != photos:
        lists = f"{_NAMES[split]}Imagelist.txt"
        raise UsageError(f"{file} has {counted(len(lines), 'line')}, {lists} has {photos:,}: fetch both again")
    return np.array(lines) == "1"


def _lengths(folder: Path, keys: list[str]) -> list[int]:
    """Bytes of each file; 0 where it is missing."""
    lengths = []
    for key in progress(iterable=keys, desc="checking files", unit="img"):
        try:
            lengths.append((folder / key).stat().st_size)
        except (FileNotFoundError, NotADirectoryError):
            lengths.append(0)
    return lengths
