"""Labels of a `val` whose images lie in one folder, as in ImageNet's archive, from a file beside it.

Either ILSVRC2012_validation_ground_truth.txt of ImageNet's devkit, whose line n is the ILSVRC2012_ID of
ILSVRC2012_val_<n>.JPEG. These IDs are not the positions of the sorted class folders: `meta.mat`, which lies beside the
file in the devkit, gives the folder of an ID. Or a CSV file of a file's name, with or without its extension, and its
class folder, which may be followed by a space and more, as in Kaggle's LOC_val_solution.csv.
"""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path

from dataset.sources.imagenet import EXTENSIONS, Entry, lines_of
from dataset.sources.walk import folders_in, look_into
from utils.errors import UsageError
from utils.text import counted, first_few, printable, spelled

_NUMBERED = re.compile(r"ILSVRC20\d\d_val_(\d{8})\.[A-Za-z]+")


def find_labelled(folder: Path, labels: Path, classes: tuple[str, ...]) -> tuple[list[Entry], list[str]]:
    """The images that lie in ``folder`` itself, sorted by label and name, with the labels that the file gives them.

    Raises:
        UsageError: there are none, or class folders; an image has no label or two, or one that is not in ``classes``;
            the devkit's `meta.mat` is missing.
    """
    if folders := folders_in(folder):
        shown = first_few([*map(spelled, folders)])
        raise UsageError(
            f"--val_labels: {folder} has {counted(len(folders), 'folder')} ({shown}): it is for images that lie in one "
            "folder"
        )
    found = look_into(folder)
    images = sorted(path for path in found.files if path.lower().endswith(EXTENSIONS))
    if not images:
        raise UsageError(f"{folder} holds no images")
    lines = lines_of(labels)
    numbers = all(re.fullmatch(r"\s*[0-9]{0,9}\s*", line) for line in lines)
    named = _by_number(images, lines, labels) if numbers else _by_name(images, lines, labels, set(classes))
    if bare := [image for image in images if image not in named]:
        raise UsageError(
            f"--val_labels: {labels} has no label for {counted(len(bare), 'image')} of {folder}, such as "
            f"{printable(bare[0])}"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    if strangers := [name for name in dict.fromkeys(named.values()) if name not in label_of]:
        raise UsageError(
            f"--val_labels: {labels} names {counted(len(strangers), 'class')} that train lacks: "
            f"{first_few([*map(spelled, strangers)])}"
        )
    entries = [Entry(image, label_of[named[image]]) for image in images]
    return sorted(entries, key=lambda entry: (entry.label, os.fsencode(entry.path))), found.remarks()


def _by_number(images: list[str], lines: list[str], labels: Path) -> dict[str, str]:
    """Image: class folder, by the devkit."""
    folder_of = _devkit_folders(labels.with_name("meta.mat"))
    named: dict[str, str] = {}
    for image in images:
        match = _NUMBERED.fullmatch(image)
        if not match:
            raise UsageError(
                f"--val_labels: {labels} holds ImageNet's numbers, which are for ILSVRC2012_val_00000001.JPEG and so "
                f"on, not for {printable(image)}; give a CSV file of names and class folders"
            )
        line = int(match[1])
        number = lines[line - 1].strip() if 1 <= line <= len(lines) else ""
        if number and int(number) not in folder_of:
            raise UsageError(f"--val_labels: {labels}, line {line}: meta.mat beside it has no ILSVRC2012_ID {number}")
        if number:
            named[image] = folder_of[int(number)]
    return named


def _devkit_folders(meta: Path) -> dict[int, str]:
    """Class folder by ILSVRC2012_ID."""
    if not meta.exists():
        raise UsageError(
            f"--val_labels: {meta} is missing. The devkit's numbers are not the positions of the sorted class folders, "
            "and this file of the same devkit names them; or give a CSV file of names and class folders"
        )
    from scipy.io import loadmat  # which scikit-learn brings

    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    except Exception as error:  # a damaged file may raise any
        raise UsageError(f"--val_labels: {meta} is not the devkit's ({type(error).__name__}: {error})") from None


def _by_name(images: list[str], lines: list[str], labels: Path, classes: set[str]) -> dict[str, str]:
    """Image: class folder, by a CSV file."""
    by_stem: dict[str, list[str]] = {}
    for image in images:
        by_stem.setdefault(Path(image).stem, []).append(image)
    image_of = {stem: those[0] for stem, those in by_stem.items() if len(those) == 1} | {
        image: image for image in images
    }
    named: dict[str, str] = {}
    rows = csv.reader(io.StringIO("\n".join(lines)), strict=True)
    try:
        for cells in filter(None, rows):
            where = f"--val_labels: {labels}, line {rows.line_num}"
            if len(cells) < 2:
                raise UsageError(f"{where}: expected `file,class`")
            known = image_of.get(cells[0].strip())
            name = cells[1].strip() if cells[1].strip() in classes else cells[1].split(" ")[0]
            if known is None:  # the header, or an image that is not here
                continue
            if name not in classes:
                raise UsageError(f"{where}: {spelled(name)} is not a class folder of train")
            if known in named:
                raise UsageError(f"{where}: {printable(known)} stands there a second time")
            named[known] = name
    except csv.Error as error:
        raise UsageError(f"--val_labels: {labels}, line {rows.line_num}: {error}") from None
    return named
