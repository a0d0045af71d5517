"""Sources whose images are files in one folder, such as those of a list that `mk_img_list.py` wrote."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from dataset.jpeg.images import read_image
from dataset.sources.imagenet import CLASSES, Entry, read_classes, read_list
from dataset.sources.source import Source
from dataset.sources.tagged_lists import find_list, read_tagged
from dataset.store.record import UNLABELLED
from utils.console import progress
from utils.errors import UsageError
from utils.text import counted, first_few, printable, spelled


@dataclass(frozen=True)
class ImageFiles(Source):
    """Images whose keys are their paths below ``folder``."""

    folder: Path

    def sizes(self) -> list[int]:
        """Bytes of each file.

        Raises:
            UsageError: files are missing, or something else than files.
        """
        sizes, missing = list[int](), list[str]()
        for key in progress(iterable=self.keys, desc="checking files", unit="img"):
            path = self.folder / key
            try:
                status = path.stat()
                sizes.append(status.st_size)
                if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
                    missing.append(f"{spelled(str(path))}: not a file")
            except OSError as error:
                missing.append(f"{spelled(str(path))}: {error.strerror}")
        if missing:
            shown = "\n  ".join(missing[:10])
            files = counted(len(missing), "file of the list is missing", "files of the list are missing")
            raise UsageError(f"{files} or cannot be read, such as\n  {shown}\nnothing was written")
        return sizes

    def image(self, number: int) -> bytes:
        """The file's bytes.

        Raises:
            BadImage, OSError: as `read_image`.
        """
        return read_image(self.folder / self.keys[number])

    def name(self, number: int) -> str:
        """The file's path."""
        return printable(str(self.folder / self.keys[number]))


def labelled_files(split: str, classes: tuple[str, ...], entries: list[Entry], folder: Path) -> ImageFiles:
    """The ``entries`` below ``folder``, each with its one label."""
    keys, labels = [entry.path for entry in entries], [entry.label for entry in entries]
    return ImageFiles(split, "single", classes, keys, labels, folder)


def find_listed(image_path: Path, list_path: Path, split: str) -> ImageFiles:
    """The images of ``image_path/split`` that the list of a split in ``list_path`` names, in its order.

    Those of a list of several labels an image may lie in ``image_path`` itself, where it has no folder of the split.
    Classes of which a list of labels names no image are printed.

    Raises:
        UsageError: as `read_classes`, `find_list`, `read_tagged` and `read_list`.
    """
    file = list_path / CLASSES
    classes = read_classes(file) if file.exists() else None
    path = find_list(list_path, split)
    if tagged := read_tagged(path, classes):
        folder = image_path / split if (image_path / split).is_dir() else image_path
        return ImageFiles(split, "multi", tagged.classes, tagged.keys, tagged.targets, folder)
    entries = read_list(path, classes)
    names, present = classes or _classes_of(entries), {entry.label for entry in entries}
    bare = [printable(name) for label, name in enumerate(names) if label not in present]
    if bare and present != {UNLABELLED}:
        classes_of = f"{len(bare):,} of {counted(len(names), 'class')}"
        print(f"{path}: {classes_of} without an image, where labels count from 0: {first_few(bare)}")
    return labelled_files(split, names, entries, image_path / split)


def _classes_of(entries: list[Entry]) -> tuple[str, ...]:
    """Class names of a list that came without classes.txt: the one folder of each label, or the label itself."""
    folders: dict[int, set[str]] = {}
    for entry in entries:
        folders.setdefault(entry.label, set()).add(entry.path.split("/")[0] if "/" in entry.path else "")
    named = {label: min(names) for label, names in folders.items() if len(names) == 1}
    return tuple(named.get(label) or str(label) for label in range(max(folders) + 1))
