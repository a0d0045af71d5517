"""Settings and files that had another name once, and what to write now."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from utils.settings import in_words, parse, show

LAST = "<last>"  # in new names: the last of the phases


@dataclass(frozen=True)
class Renamed:
    """A setting, or a part with all settings in it, that had another name.

    Attributes:
        old: that name, dotted; * is any one name.
        new: the name now, with a * for each of those, and `<last>` for the name of the last phase; or a function of the
            old value that gives the new ones by such names.
        write: what a config file has now.
        kind: where ``new`` is a function, the type of the old value.
        nothing: what is typed, by such names, for a value of which ``new`` makes nothing.
    """

    old: str
    new: str | Callable[[Any], Mapping[str, Any]]
    write: str
    kind: Any = str
    nothing: Mapping[str, str] = field(default_factory=dict)

    def made(self, value: Any) -> Mapping[str, Any]:
        """The new values by name.

        Raises:
            ValueError: ``value`` is text, as the command line gives it, and none of its type; with what is expected.
        """
        if isinstance(self.new, str):
            return {self.new: value}
        if isinstance(value, str) and self.kind is not str:
            try:
                value = parse(value, self.kind)
            except (ValueError, ArithmeticError):
                raise ValueError(in_words(self.kind)) from None
        return self.new(value)


def converted(values: Mapping[str, Any], table: Sequence[Renamed], last: str) -> dict[str, Any]:
    """Nested ``values``, such as the JSON of an older version, under the names of today.

    Args:
        values: by name; those of parts are dictionaries.
        table: applied in order, each to what the ones before it have made.
        last: the name of the last phase.

    Raises:
        ValueError: a value is not of its type.
    """
    made: dict[str, Any] = copy.deepcopy(dict(values))
    for one in table:
        for path, stars in list(_found(made, one.old.split("."))):
            value = _taken(made, path)
            for name, new in one.made(value).items():
                _put(made, [*_filled(name, stars, last)], new)
    return made


def overrides_now(key: str, text: str, table: Sequence[Renamed], last: str) -> dict[str, str]:
    """The overrides of today in place of ``key=text``, by key, if any; the same where nothing had that name.

    Raises:
        ValueError: ``text`` is no value of that setting.
    """
    values: Any = text
    for name in reversed(key.split(".")):
        values = {name: values}
    if now := dict(_leaves(converted(values, table, last))):
        return now
    used = ((one, stars) for one in table for _, stars in _found(values, one.old.split(".")))
    return {".".join(_filled(name, stars, last)): new for one, stars in used for name, new in one.nothing.items()}


def advice(key: str, table: Sequence[Renamed]) -> str:
    """What a config file has now in place of ``key``, whose names may be *; empty where no setting had that name."""
    return next((one.write for one in table if _fits(key.split("."), one.old.split("."))), "")


def file_now(path: str, table: Mapping[str, str]) -> str:
    """What to give in place of a file that is gone, by a table of patterns of the end of its path; empty where none."""
    found = ((re.search(rf"(?:^|/){pattern}$", path), text) for pattern, text in table.items())
    return next((match.expand(text) for match, text in found if match), "")


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(names) == len(pattern) and all("*" in (one, other) or one == other for one, other in zip(names, pattern))


def _found(values: Any, pattern: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """The paths that fit ``pattern``, each with what its stars stand for."""
    if not pattern:
        yield [], []
    elif isinstance(values, dict):
        for name in [*values] if pattern[0] == "*" else [pattern[0]] if pattern[0] in values else []:
            for path, stars in _found(values[name], pattern[1:]):
                yield [name, *path], ([name] if pattern[0] == "*" else []) + stars


def _taken(values: dict[str, Any], path: Sequence[str]) -> Any:
    for name in path[:-1]:
        values = values[name]
    return values.pop(path[-1])


def _filled(name: str, stars: Sequence[str], last: str) -> Iterator[str]:
    """The names in a dotted one."""
    rest = iter(stars)
    for part in name.split("."):
        yield next(rest) if part == "*" else last if part == LAST else part


def _put(values: dict[str, Any], path: Sequence[str], new: Any) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = new


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", show(value)
