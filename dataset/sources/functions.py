"""A function of the user's that yields records: found by its import path, called with its options, its errors named."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataset.store.record import Record
from utils.errors import ExpectedError, UsageError, in_one_line
from utils.imports import module_of, never_exiting, source_of, sources_of
from utils.settings import in_words, parse
from utils.text import is_encodable

_END = object()  # behind the last record
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class Yielding:
    """What yields records.

    Args:
        path: `module:function`; the module lies in ``folder``, or is on Python's path.
        options: `key=value` each, parameters of the function.
        folder: of the user's.

    Attributes:
        identity: what these are called by.
        sources: SHA-256 of the files that they are written in, as `sources_of`.
        classes: names of the classes, where the function says them by its attribute of this name.

    Raises:
        UsageError: there is no such function, or it takes no such options.
    """

    def __init__(self, path: str, options: Sequence[str], folder: Path) -> None:
        self.identity = [path, *options]
        self._path, self._number = path, 0
        self._iterator: Iterator[Any] = iter(())
        self._function = _imported(path, folder)
        places = [folder, *map(Path, sys.path)]
        home = next((place for place in places if source_of(path.partition(":")[0], place)), folder)
        self.sources = sources_of(path, str(home))
        self._options = _parsed(path, self._function, options)
        classes = getattr(self._function, "classes", ())
        ordered = isinstance(classes, Iterable) and not isinstance(classes, str | bytes | set | frozenset | dict)
        self.classes = tuple(map(str, classes)) if ordered else ()
        are_names = ordered and all(map(is_encodable, self.classes))
        if not are_names or len(set(self.classes)) < len(self.classes):
            expected = "expected names, of which each is another, in a list or tuple"
            raise UsageError(f"{path}: its classes are {classes!r:.80}: {expected}")

    def records(self) -> Iterator[Record]:
        """The records, one after the other.

        Raises:
            UsageError: the function raises an error, or yields something else; with the number of the record.
        """
        with self._named():
            self._iterator = iter(self._function(**self._options))
        self._number = 0
        while True:
            with self._named():
                record = next(self._iterator, _END)
            if record is _END:
                break
            if not isinstance(record, Record):
                raise self.wrong(f"it is {_a(record)}, and dataset.Record is expected")
            yield record
            self._number += 1
        if sys.stdout.closed:
            raise UsageError(f"{self._path} has closed sys.stdout, to which this command prints")

    def wrong(self, text: str, number: int | None = None) -> UsageError:
        """An error in the record that was yielded last, or in that of this number."""
        at = ""
        if number is None and (frame := getattr(self._iterator, "gi_frame", None)) is not None:
            at = f", yielded at {frame.f_code.co_filename}, line {frame.f_lineno}"
        return UsageError(f"{self._path}, record {self._number if number is None else number} (from 0){at}: {text}")

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the record and the line at which the function raises an error, or ends the program.

        Raises:
            UsageError: in place of errors of another kind.
        """
        try:
            with never_exiting():
                yield
        except ExpectedError:
            raise
        except Exception as error:
            raise self._raised(error) from error

    def _raised(self, error: Exception) -> UsageError:
        frames = traceback.extract_tb(error.__traceback__)
        own = inspect.getsourcefile(self._function) if inspect.isroutine(self._function) else None
        inside = [frame for frame in frames if frame.filename == own] or frames
        place = f"{inside[-1].filename}, line {inside[-1].lineno}"
        return UsageError(f"{self._path}, record {self._number} (from 0): {place} raised {in_one_line(error)}")


def _imported(path: str, folder: Path) -> Callable[..., Any]:
    if not _PATH.fullmatch(path):
        raise UsageError(f"{path}: expected module:function, such as my_data:train for train in my_data.py")
    module, _, name = path.partition(":")
    found = getattr(module_of(path, folder), name, None)
    if not callable(found):
        raise UsageError(f"{path}: {module} has no function {name}")
    return found


def _parsed(path: str, function: Callable[..., Any], given: Sequence[str]) -> dict[str, Any]:
    """The options by name, of the types that the function's parameters are annotated with, else text."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise UsageError(f"{path}: Python does not say what it takes: write a function that calls it") from None
    options: dict[str, Any] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            raise UsageError(f"{one}: expected key=value, an option of {path}")
        if name not in parameters:
            raise UsageError(f"{one}: {path} has no option {name}; it has {', '.join(parameters) or 'none'}")
        if name in options:
            raise UsageError(f"{one}: {name} is given twice")
        annotation = parameters[name].annotation  # a text with `from __future__ import annotations`
        kind = next((one for one in (int, float, bool) if annotation in (one, one.__name__)), str)
        try:
            options[name] = parse(text, kind)
        except ValueError:
            raise UsageError(f"{one}: expected {in_words(kind)}") from None
    lacking = [
        one.name
        for one in parameters.values()
        if one.default is one.empty
        and one.name not in options
        and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]
    if lacking:
        raise UsageError(f"{path} needs {', '.join(f'{name}=...' for name in lacking)}")
    return options


def _a(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
