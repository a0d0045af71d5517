"""Lists of images with any number of labels each.

::

    birds/1.jpg 3 17 42     labels, which are positions in classes.txt; a path alone is an image without any
    birds/1.jpg 0 1 0 ...   a value for each class, 0 or 1, as the lists of hashing papers have them
    path,cat,dog,...        CSV with a header: a column a class, of 0, 1, True, False or nothing, which is 0; -1 is for
    birds/1.jpg,0,1,...     a class that is to be ignored in this image; an index of pandas in front is passed over

A text list is one of these where, on some line, two or more whole numbers follow a path with an image's extension; any
other is single-label, and `imagenet.read_list` reads it. Its numbers are a value for each class where every line has as
many of them, three or more, and all are 0 or 1, for as labels they would repeat. Where every line has two, and all are
0 or 1, they may be either, and are refused; so is a table of one class that classes.txt does not name.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from dataset.sources.imagenet import CLASSES, EXTENSIONS, LIST_ENDS, MOST_CLASSES, lines_of, path_below
from dataset.store.record import multi_label
from utils.errors import UsageError
from utils.text import counted, first_few, printable, spelled

_NUMBERS = re.compile(r"(?:[ \t]+-?[0-9]+)*[ \t]*$")
_VALUES = {
    **dict.fromkeys(("", "0", "0.0", "false"), 0),
    **dict.fromkeys(("1", "1.0", "true"), 1),
    **dict.fromkeys(("-1", "-1.0"), -1),
}


@dataclass(frozen=True)
class TaggedList:
    """N images with a multi-label target each, of C classes."""

    classes: tuple[str, ...]  # C
    keys: list[str]  # N, paths below the image folder
    targets: list[tuple[int, ...]]  # N


@dataclass(frozen=True)
class _Row:
    """A line of a text list."""

    where: str  # for messages
    line: int  # its number, from 1
    path: str
    numbers: list[str]


def find_list(folder: Path, split: str) -> Path:
    """The list of a split in ``folder``, or `<split>_list.txt` where there is none.

    Raises:
        UsageError: there are several.
    """
    found = [folder / f"{split}{end}" for end in LIST_ENDS if (folder / f"{split}{end}").exists()]
    if len(found) > 1:
        names = " and ".join(printable(path.name) for path in found)
        raise UsageError(f"{folder} holds {names}: keep the one that is to be packed")
    return found[0] if found else folder / f"{split}{LIST_ENDS[0]}"


def read_tagged(path: Path, classes: tuple[str, ...] | None) -> TaggedList | None:
    """What a list holds; None where it is single-label, or is not there.

    Args:
        path: of a list of any of the forms above, `.gz` or not.
        classes: those of classes.txt. Without it, the names are those of the header, or the labels.

    Raises:
        UsageError: naming the line and what is wrong there; or the file cannot be read.
    """
    if not path.exists():
        return None
    lines = lines_of(path)
    if path.name.endswith(LIST_ENDS[2:]):
        return _from_table(path, lines, classes)
    if not any(map(_has_several, lines)):
        return None
    rows = _rows(path, lines)
    width = len(rows[0].numbers)
    if all(len(row.numbers) == width and {*row.numbers} <= {"0", "1"} for row in rows):
        if width == 2:
            raise UsageError(
                f"{path}: every line has two numbers, all 0 or 1, which may be two labels or a value for each of two "
                f"classes: write it as {path.name.split('.')[0]}.csv with a header, `path,class,class`"
            )
        return _from_values(path, rows, classes)
    return _from_labels(rows, classes)


def _has_several(line: str) -> bool:
    words = line.rsplit(None, 2)  # far sooner done than the rest, which few lines of a single-label list need
    if len(words) < 3 or not words[1].lstrip("-").isdecimal():
        return False
    path, numbers = _parted(line)
    return len(numbers) > 1 and path.lower().endswith(EXTENSIONS)


def _parted(line: str) -> tuple[str, list[str]]:
    """The path of a line, and the whole numbers behind it."""
    match = _NUMBERS.search(line)
    assert match is not None  # for it matches nothing, too
    return line[: match.start()], match[0].split()


def _rows(path: Path, lines: list[str]) -> list[_Row]:
    rows: list[_Row] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number} ({printable(line[:200])})"
        name, numbers = _parted(line)
        if not name.lower().endswith(EXTENSIONS):
            raise UsageError(
                f"{where}: expected `relative/path label label ...`, a path with the extension of an image and whole "
                "numbers"
            )
        name = _new_path(name, where, number, seen)
        rows.append(_Row(where, number, name, numbers))
    return rows


def _new_path(name: str, where: str, line: int, seen: dict[str, int]) -> str:
    """A path below the folder that no line before has; it is put in ``seen``."""
    name = path_below(name, where)
    if name in seen:
        raise UsageError(f"{where}: the same file stands on line {seen[name]}")
    seen[name] = line
    return name


def _from_values(path: Path, rows: list[_Row], classes: tuple[str, ...] | None) -> TaggedList:
    width = len(rows[0].numbers)
    if classes is not None and len(classes) != width:
        raise UsageError(f"{path}: {width} values on every line, and {CLASSES} names {counted(len(classes), 'class')}")
    targets = [tuple(label for label, value in enumerate(row.numbers) if value == "1") for row in rows]
    return TaggedList(classes or tuple(map(str, range(width))), [row.path for row in rows], targets)


def _from_labels(rows: list[_Row], classes: tuple[str, ...] | None) -> TaggedList:
    limit = MOST_CLASSES if classes is None else len(classes)
    targets: list[tuple[int, ...]] = []
    for row in rows:
        for text in row.numbers:
            if len(text) > 9 or not 0 <= int(text) < limit:
                raise UsageError(f"{row.where}: the label {text[:20]} must lie in 0 to {limit - 1}")
        labels = sorted(map(int, row.numbers))
        for one, other in pairwise(labels):
            if one == other:
                raise UsageError(f"{row.where}: the label {one} stands there twice{_odd_one(rows)}")
        targets.append(tuple(labels))
    most = max(max(labels) for labels in targets if labels)
    return TaggedList(classes or tuple(map(str, range(most + 1))), [row.path for row in rows], targets)


def _odd_one(rows: list[_Row]) -> str:
    """What keeps a list from being one of values, for a message."""
    usual = Counter(len(row.numbers) for row in rows).most_common(1)[0][0]
    for row in rows:
        if len(row.numbers) != usual:
            odd = f"line {row.line} has {len(row.numbers)}"
        elif strange := [(at, text) for at, text in enumerate(row.numbers, start=1) if text not in ("0", "1")]:
            odd = f"number {strange[0][0]} of line {row.line} is {strange[0][1][:20]}"
        else:
            continue
        return f". Where each class has a value, every line has as many, here {usual}, all 0 or 1; but {odd}"
    return ""


def _from_table(path: Path, lines: list[str], classes: tuple[str, ...] | None) -> TaggedList:
    """A CSV file."""
    rows = csv.reader(io.StringIO("\n".join(lines)), strict=True, skipinitialspace=True)
    keys, targets = list[str](), list[tuple[int, ...]]()
    seen: dict[str, int] = {}
    try:
        header = [name.strip() for name in next(filter(None, rows), [])]
        first, labels = _columns(path, header, classes)
        for cells in filter(None, rows):
            where = f"{path}, line {rows.line_num}"
            if len(cells) != len(header):
                raise UsageError(f"{where}: {counted(len(cells), 'value')}, and the header has {len(header)}")
            if not cells[first]:
                raise UsageError(f"{where}, column {first + 1}: expected the path of an image")
            keys.append(_new_path(cells[first], where, rows.line_num, seen))
            values = [_VALUES.get(cell.strip().lower()) for cell in cells[first + 1 :]]
            if None in values:
                at = first + 1 + values.index(None)
                raise UsageError(
                    f"{where}, column {at + 1} ({printable(header[at])}): {spelled(cells[at][:40])} is none of 0, 1, "
                    "-1, True, False and nothing; every column but the first is a class"
                )
            targets.append(multi_label((label, value == -1) for label, value in zip(labels, values) if value))
    except csv.Error as error:
        raise UsageError(f"{path}, line {rows.line_num}: {error}") from None
    if not keys:
        raise UsageError(f"{path} is empty")
    if classes is None and len(labels) == 1:
        raise UsageError(
            f"{path}: its one column, {spelled(header[-1])}, may be the label of one of two classes, or say where the "
            f"only class is: write labels as {path.name.split('.')[0]}.txt, `path label` a line, or name the only "
            f"class in {CLASSES} beside it"
        )
    return TaggedList(classes or tuple(header[first + 1 :]), keys, targets)


def _columns(path: Path, header: list[str], classes: tuple[str, ...] | None) -> tuple[int, list[int]]:
    """The column of the paths, and the label of each column behind it."""
    where = f"{path}, line 1"
    first = next((at for at, name in enumerate(header) if not re.fullmatch(r"(Unnamed: \d+)?", name)), len(header))
    names = header[first + 1 :]
    if not names:
        raise UsageError(f"{where}: expected a header of two or more columns, `path,class,class,...`")
    if header[first].lower().endswith(EXTENSIONS):
        raise UsageError(f"{where}: {spelled(header[first])} is an image, and the first line must name the classes")
    columns: dict[str, int] = {}
    for column, name in enumerate(names, start=first + 2):
        if not name:
            raise UsageError(f"{where}, column {column} has no name, and every column but the first is a class")
        if name in columns:
            raise UsageError(f"{where}, column {column}: {spelled(name)} is column {columns[name]} too")
        columns[name] = column
    if classes is not None and (odd := sorted(columns.keys() ^ {*classes})):
        raise UsageError(f"{where}: the columns are not the classes of {CLASSES}: {first_few([*map(spelled, odd)])}")
    label_of = {name: label for label, name in enumerate(classes or names)}
    return first, [label_of[name] for name in names]
