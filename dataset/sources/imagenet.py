"""ImageNet's layout: `train/<class>/<image>`, `val/<class>/<image>`, and the text lists that name its images.

A list holds one `relative/path label` a line (`tagged_lists.py` has those of several labels), or paths alone where no
image has a label. Names that are not UTF-8 keep their bytes (surrogate escapes).
"""

from __future__ import annotations

import gzip
import os
import posixpath
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from dataset.sources.walk import Found, entries_of, folders_in, look_into
from dataset.store.record import UNLABELLED
from utils.errors import UsageError
from utils.text import counted, first_few, look_alike, printable, spelled

SPLITS = ("train", "val")
CLASSES = "classes.txt"
LIST_ENDS = ("_list.txt", "_list.txt.gz", "_list.csv", "_list.csv.gz")  # of the names of list files
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's ImageFolder
MOST_CLASSES = 1 << 20  # of a list without class names, so that a mistyped label makes no billion names


@dataclass(frozen=True)
class Entry:
    """One line of a list."""

    path: str  # below the split folder, with forward slashes
    label: int  # or UNLABELLED


def find_classes(image_path: Path, listed: tuple[str, ...] | None = None, split: str = "train") -> tuple[str, ...]:
    """The class folders of ``split`` in sorted order, or those ``listed``: the position is the label, in every split.

    Raises:
        UsageError: the split is missing or has no class folder, or one that is not listed, or two of the same letters;
            or all that may be its class folders lie in another.
    """
    folder = image_path / split
    try:
        names = folders_in(folder)
    except UsageError as error:
        raise UsageError(f"{error}; expected {split}/<class>/<image>") from None
    if not names:
        raise UsageError(
            f"{folder} has no class folders: expected {split}/<class>/<image>; images without labels are listed by "
            f"dataset/mk_img_list.py --no_labels {split}"
        )
    if alike := look_alike(names):
        shown = " and ".join(map(spelled, alike))
        raise UsageError(f"{folder}: the folders {shown} are the same letters (NFC and NFD): move the images into one")
    if listed is None:
        if len(names) == 1 and len(inner := folders_in(folder / names[0])) > 1 and not _has_images(folder / names[0]):
            raise UsageError(
                f"{folder} has one folder, {spelled(names[0])}, and that holds {first_few([*map(spelled, inner)])}: if "
                f"these are the classes, move them up into {folder}; if it is the only class, name it by --class_list "
                "of dataset/mk_img_list.py"
            )
        return tuple(names)
    if strangers := sorted(set(names) - set(listed)):
        raise UsageError(f"{folder} has {_folders(strangers)} not listed: {first_few([*map(spelled, strangers)])}")
    if odd := [name for name in listed if "/" in name or "\0" in name or name in ("", ".", "..")]:
        raise UsageError(f"{spelled(odd[0])} is listed as a class, and cannot be the name of a folder")
    return listed


def find_images(folder: Path, classes: tuple[str, ...]) -> tuple[list[Entry], list[str]]:
    """The images below ``folder/<class>``, sorted by label and path, each file once, and a remark for each kind of
    things passed over.

    Raises:
        UsageError: there are none, or a class folder that is not among the ``classes``; what cannot be read; a link
            that leads nowhere; a name with a line break, which a list cannot express.
    """
    labels = {name: label for label, name in enumerate(classes)}
    if strangers := [name for name in folders_in(folder) if name not in labels]:
        shown = first_few([*map(spelled, strangers)])
        alike = look_alike([*classes, *strangers])
        if alike and alike[0] in labels:
            shown += f"; train has {spelled(alike[0])}, the same letters in another form of Unicode (NFC, NFD)"
        raise UsageError(
            f"{folder} has {_folders(strangers)} not among the classes of train: {shown}. "
            "Sort the images into the folders of train"
        )
    found, images = _images_of(folder)
    entries = [Entry(path, labels[path.split("/")[0]]) for path in images if "/" in path]
    flat = sorted(path for path in images if "/" not in path)
    if not entries and flat:
        raise UsageError(
            f"{folder} holds {counted(len(flat), 'image')} and no class folders: sort them into the folders of train, "
            "list them by a file of labels with dataset/mk_img_list.py --val_labels, or without labels, --no_labels"
        )
    if not entries:
        raise UsageError(f"{folder} holds no images: expected {folder.name}/<class>/<image>")
    remarks = found.remarks()
    if flat:
        remarks.append(
            f"{counted(len(flat), 'image')} outside of class folders passed over, such as {printable(flat[0])}"
        )
    remarks += _others(found.files, images)
    present = {entry.label for entry in entries}
    if empty := [printable(name) for label, name in enumerate(classes) if label not in present]:
        n = counted(
            len(empty), "class has no images and keeps its label", "classes have no images and keep their labels"
        )
        remarks.append(f"{n}: {first_few(empty)}")
    return sorted(entries, key=lambda entry: (entry.label, os.fsencode(entry.path))), remarks


def find_unlabelled(folder: Path) -> tuple[list[Entry], list[str]]:
    """All images below ``folder``, sorted by path, each file once and without a label; and remarks as `find_images`.

    Raises:
        UsageError: there are none; what cannot be read; a link that leads nowhere; a name with a line break.
    """
    found, images = _images_of(folder)
    if not images:
        raise UsageError(f"{folder} holds no images")
    entries = [Entry(path, UNLABELLED) for path in sorted(images, key=os.fsencode)]
    return entries, [*found.remarks(), *_others(found.files, images)]


def is_flat(folder: Path) -> bool:
    """Whether ``folder`` holds images and no folders, so that nothing in it says of what class they are.

    Raises:
        UsageError: it cannot be read.
    """
    return not folders_in(folder) and _has_images(folder)


def _has_images(folder: Path) -> bool:
    return any(entry.name.lower().endswith(EXTENSIONS) for entry in entries_of(folder))


def list_bytes(entries: list[Entry]) -> bytes:
    """The contents of a list file."""
    lines = (entry.path if entry.label == UNLABELLED else f"{entry.path} {entry.label}" for entry in entries)
    return b"".join(os.fsencode(f"{line}\n") for line in lines)


def read_list(path: Path, classes: tuple[str, ...] | None) -> list[Entry]:
    """The entries of a list file. Where every line is the path of an image alone, none has a label.

    Raises:
        UsageError: naming the line: no label, a label outside ``classes``, an absolute path or one that leaves the
            folder, the same path twice. Or the file is missing or empty.
    """
    if not path.exists():
        files = [(file.name, end) for end in LIST_ENDS for file in path.parent.glob(f"*{end}")]
        splits = sorted({printable(name.removesuffix(end)) for name, end in files})
        others = f", or take a split whose list is there: {', '.join(splits)}" if splits else ""
        raise UsageError(f"{path} is missing: write it with dataset/mk_img_list.py{others}")
    lines = lines_of(path)
    places = {name: label for label, name in enumerate(classes or ())}
    bare = all(line.rstrip().lower().endswith(EXTENSIONS) for line in lines if line.strip())
    entries: list[Entry] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number} ({printable(line[:200])})"
        name, _, label = (line.rstrip(), "", str(UNLABELLED)) if bare else line.rpartition(" ")
        if not name or not re.fullmatch("-?[0-9]+", label):
            raise UsageError(
                f"{where}: expected `relative/path label`, or on every line a path alone; write the list with "
                "dataset/mk_img_list.py"
            )
        name = path_below(name, where)
        if name in seen:
            raise UsageError(f"{where}: the same file stands on line {seen[name]}")
        seen[name] = number
        if bare:
            entries.append(Entry(name, UNLABELLED))
            continue
        limit = len(classes) if classes is not None else MOST_CLASSES
        if len(label) > 9 or not 0 <= int(label) < limit:
            raise UsageError(f"{where}: the label must lie in 0 to {limit - 1}")
        folder = name.partition("/")[0]
        if places.get(folder, int(label)) != int(label):
            raise UsageError(
                f"{where}: {printable(folder)} has label {places[folder]} in {CLASSES}: list the images again"
            )
        entries.append(Entry(name, int(label)))
    if not entries:
        raise UsageError(f"{path} is empty")
    return entries


def path_below(name: str, where: str) -> str:
    """The path of an image below its folder, as keys spell it.

    Raises:
        UsageError: it leads elsewhere; with ``where`` it stands.
    """
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise UsageError(f"{where}: the path must stay below the image folder")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise UsageError(f"{where}: the path {name!a} is no name that a file can have") from None
    return posixpath.normpath(name)  # `find` writes ./a/a.jpg


def read_classes(path: Path) -> tuple[str, ...]:
    """The class names of a file, one a line.

    Raises:
        UsageError: the file is missing, or a line is empty or names a class a second time.
    """
    names = lines_of(path)
    while names and not names[-1].strip():
        names.pop()
    lines: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise UsageError(f"{path}, line {number} is empty, and every line is a class: name it, or delete the line")
        if name in lines:
            raise UsageError(f"{path}, line {number}: {spelled(name)} stands on line {lines[name]}")
        lines[name] = number
    if not names:
        raise UsageError(f"{path} is empty")
    return tuple(names)


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that any editor wrote; `.gz` is unpacked.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        data = path.read_bytes()
        text = os.fsdecode(gzip.decompress(data) if path.suffix == ".gz" else data).removeprefix("\ufeff")
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UsageError(f"{path} is no whole gzip file ({error}): fetch it again") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    return [line.removesuffix("\r") for line in text.split("\n")]


def _images_of(folder: Path) -> tuple[Found, list[str]]:
    """What lies below ``folder``, and the images in it.

    Raises:
        UsageError: one has a name with a line break; what cannot be read.
    """
    found = look_into(folder)
    images = [path for path in found.files if path.lower().endswith(EXTENSIONS)]
    if broken := [path for path in images if "\n" in path or "\r" in path]:
        raise UsageError(f"{printable(broken[0])}: a list cannot hold a name with a line break; rename the file")
    return found, images


def _others(files: list[str], images: list[str]) -> list[str]:
    """A remark on the ``files`` that are no ``images``."""
    others = sorted(set(files) - set(images))
    if not others:
        return []
    shown = printable(others[0])
    return [f"{counted(len(others), 'file')} passed over, no image by the extension, such as {shown}"]


def _folders(names: list[str]) -> str:
    return counted(len(names), "class folder that is", "class folders that are")
