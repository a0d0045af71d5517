"""ImageNet's layout: `train/<class>/<image>`, `val/<class>/<image>`, and the text lists that name its images.

A list holds one `relative/path label` a line. Names that are not UTF-8 keep their bytes (surrogate escapes).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UsageError

SPLITS = ("train", "val")
CLASSES = "classes.txt"
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's ImageFolder
_MOST_CLASSES = 1 << 20  # of a list without class names, so that a slip of the pen makes no billion names


@dataclass(frozen=True)
class Entry:
    """One line of a list."""

    path: str  # below the split folder, with forward slashes
    label: int


def find_classes(image_path: Path, listed: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """The class folders of `train` in sorted order, or those ``listed``: the position is the label, in every split.

    Raises:
        UsageError: `train` is missing or has no class folder, `val` has a class folder that `train` lacks, or a split
            one that is not listed.
    """
    names = {
        split: _folders(image_path / split) for split in SPLITS if split == "train" or (image_path / split).exists()
    }
    if not names["train"]:
        raise UsageError(f"{image_path / 'train'} has no class folders: expected train/<class>/<image>")
    if listed is not None and (strangers := sorted(set(names["train"]) - set(listed))):
        raise UsageError(f"{image_path / 'train'} has class folders that are not listed: {', '.join(strangers[:5])}")
    unknown = sorted(set(names.get("val", ())) - set(names["train"]))
    if unknown:
        shown = ", ".join(map(_show, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise UsageError(
            f"{image_path / 'val'} has {len(unknown)} class folders that train lacks: {shown}. "
            "Sort the validation images into the folders of train"
        )
    return listed or tuple(names["train"])


def find_images(folder: Path, classes: tuple[str, ...]) -> tuple[list[Entry], list[str]]:
    """The images below ``folder/<class>``, sorted by path, and a remark for every file or class passed over.

    Raises:
        UsageError: a file name holds a line break, which a list cannot express.
    """
    entries: list[Entry] = []
    remarks: list[str] = []
    empty: list[str] = []
    for label, name in enumerate(classes):
        before = len(entries)
        for parent, folders, files in os.walk(folder / name, followlinks=True):
            folders.sort()
            for file in files:
                path = Path(parent, file).relative_to(folder).as_posix()
                if not file.lower().endswith(EXTENSIONS):
                    remarks.append(f"{_show(path)}: not an image by its extension, passed over")
                elif "\n" in path or "\r" in path:
                    raise UsageError(f"{_show(path)}: a list cannot hold a name with a line break; rename the file")
                else:
                    entries.append(Entry(path, label))
        if len(entries) == before:
            empty.append(_show(name))
    if empty:
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        remarks.append(f"{len(empty)} classes have no images in {folder.name} and keep their labels: {shown}")
    return sorted(entries, key=lambda entry: (entry.label, os.fsencode(entry.path))), remarks


def list_bytes(entries: list[Entry]) -> bytes:
    """The contents of a list file."""
    return b"".join(os.fsencode(f"{entry.path} {entry.label}\n") for entry in entries)


def read_list(path: Path, classes: tuple[str, ...] | None) -> list[Entry]:
    """The entries of a list file.

    Raises:
        UsageError: naming the line: no label, a label outside ``classes``, an absolute path or one that leaves the
            folder, the same path twice. Or the file is missing or empty.
    """
    try:
        lines = os.fsdecode(path.read_bytes()).removeprefix("﻿").split("\n")
    except FileNotFoundError:
        splits = sorted(_show(file.name.removesuffix("_list.txt")) for file in path.parent.glob("*_list.txt"))
        others = f", or take a split whose list is there: {', '.join(splits)}" if splits else ""
        raise UsageError(f"{path} is missing: write it with dataset/mk_img_list.py{others}") from None
    entries: list[Entry] = []
    seen: dict[str, int] = {}
    for number, line in enumerate((line.rstrip("\r") for line in lines), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number} ({_show(line[:200])})"
        name, _, label = line.rpartition(" ")
        if not name or not re.fullmatch("-?[0-9]+", label):
            raise UsageError(f"{where}: expected `relative/path label`; write the list with dataset/mk_img_list.py")
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise UsageError(f"{where}: the path must stay below the image folder")
        if name in seen:
            raise UsageError(f"{where}: the same file stands on line {seen[name]}")
        limit = len(classes) if classes is not None else _MOST_CLASSES
        if len(label) > 9 or not 0 <= int(label) < limit:
            raise UsageError(f"{where}: the label must lie in 0 to {limit - 1}")
        seen[name] = number
        entries.append(Entry(name, int(label)))
    if not entries:
        raise UsageError(f"{path} is empty")
    return entries


def read_classes(path: Path) -> tuple[str, ...]:
    """The class names of a file, one a line.

    Raises:
        UsageError: the file is missing, or names a class twice.
    """
    try:
        names = tuple(os.fsdecode(path.read_bytes()).removesuffix("\n").split("\n"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    if len(set(names)) < len(names):
        raise UsageError(f"{path} names {next(name for name in names if names.count(name) > 1)!r} twice")
    return names


def _folders(path: Path) -> list[str]:
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder: --image_path must hold train/<class>/ and val/<class>/")
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir())


def _show(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace("\n", "\\n")
