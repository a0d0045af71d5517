"""What a partition is, and its files: ours with the names of the classes, and CPSD's with their numbers alone."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.errors import DataError, UsageError
from utils.files import parsed, write_atomically
from utils.text import counted, first_few, spelled


@dataclass(frozen=True)
class Partition:
    """The classes of a data set in parts.

    Attributes:
        parts: names of the classes of each, every class in one.
        kind: how they were found: CGP, DGP, random, or empty for one that was read.
        seed: of the draws.
        data: what the co-occurrences were counted in.

    Raises:
        UsageError: a class is in two parts, or a part has none.
    """

    parts: tuple[tuple[str, ...], ...]
    kind: str = ""
    seed: int = 0
    data: str = ""

    def __post_init__(self) -> None:
        if not self.parts or not all(self.parts):
            raise UsageError("a partition needs parts, and each part a class")
        seen: set[str] = set()
        for name in self.classes:
            if name in seen:
                raise UsageError(f"a partition has {spelled(name)} in two parts")
            seen.add(name)

    @property
    def classes(self) -> list[str]:
        """All of them, part after part."""
        return [name for part in self.parts for name in part]

    def check(self, classes: Sequence[str], source: str) -> None:
        """See that the parts hold the ``classes`` of a data set, and no others.

        Raises:
            UsageError: they do not; classes that are missing or foreign are named; ``source`` is where it is from.
        """
        ours, theirs = set(self.classes), set(classes)
        for wrong, what in ((theirs - ours, "missing in the partition"), (ours - theirs, "none of the data's classes")):
            if wrong:
                shown = first_few([*map(spelled, sorted(wrong))])
                raise UsageError(f"{source}: {counted(len(wrong), 'class')} {what}: {shown}")

    def write(self, path: Path) -> None:
        """Write our own form: names."""
        write_atomically(path, json.dumps(asdict(self), indent=1).encode())

    def write_numbered(self, path: Path, classes: Sequence[str]) -> None:
        """Write CPSD's form: for each part a dictionary from the number of a class among ``classes`` to that in it."""
        number = {name: place for place, name in enumerate(classes)}
        rows = [{str(number[name]): place for place, name in enumerate(part)} for part in self.parts]
        write_atomically(path, json.dumps(rows).encode())


def read_partition(path: Path, classes: Sequence[str] | None = None) -> Partition:
    """A partition of either form.

    Args:
        path: a JSON file.
        classes: of the data, in its order; CPSD's form has no names, and its numbers are positions among these.

    Raises:
        UsageError: it is no partition of these classes.
        DataError: it is no JSON.
    """
    try:
        content = parsed(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; write it with python -m partition") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}: write it again with python -m partition") from None
    try:
        if isinstance(content, list):
            if classes is None:
                raise UsageError("it has numbers in place of names: python -m partition --read gives it names")
            made = Partition(tuple(_named(part, number, classes) for number, part in enumerate(content)))
        else:
            made = _restored(content)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if classes is not None:
        made.check(classes, str(path))
    return made


def _restored(content: Any) -> Partition:
    if not isinstance(content, Mapping) or not isinstance(content.get("parts"), list):
        raise UsageError("no partition: neither one of names nor a list of dictionaries")
    parts = content["parts"]
    if not all(isinstance(part, list) and all(isinstance(name, str) for name in part) for part in parts):
        raise UsageError("parts: lists of names are expected")
    more = {name: content[name] for name in ("kind", "seed", "data") if name in content}
    return Partition(tuple(map(tuple, parts)), **more)


def _named(part: Any, number: int, classes: Sequence[str]) -> tuple[str, ...]:
    """The names of a part in CPSD's form, in the order of its teacher's outputs."""
    try:
        places = {operator.index(local): int(one) for one, local in part.items()}
    except (AttributeError, TypeError, ValueError):
        raise UsageError(f"part {number}: a dictionary from number to number is expected") from None
    if sorted(places) != list(range(len(part))):
        raise UsageError(f"part {number}: the numbers in it are not 0 to {len(part) - 1}")
    if far := [one for one in places.values() if not 0 <= one < len(classes)]:
        raise UsageError(f"part {number}: class {far[0]} of {len(classes)}")
    return tuple(classes[places[local]] for local in range(len(part)))
