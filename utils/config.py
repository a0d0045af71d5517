"""A page, the words of the command line, or a run's JSON, to one frozen configuration."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import re
import runpy
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from utils.errors import DataError, UsageError
from utils.settings import expected, hints, parse, settings, show

Config = TypeVar("Config")
Value = TypeVar("Value")

_HELP = ("--help", "-h")
_ROOT = Path(__file__).resolve().parents[1]


def read_page(path: Path, kind: type[Config], words: Sequence[str] = ()) -> tuple[Config, list[str]]:
    """The object called `cfg` that the Python file at ``path`` builds, and the ``words`` that it had no use for.

    Where `cfg` is a function of strings, such as ``def cfg(teacher: str = "a", student: str = "b")``, words like
    ``teacher=c`` are its arguments.

    Raises:
        UsageError: there is no such file, it builds no `cfg` of ``kind``, or it raises an error itself.
    """
    if not path.is_file():
        pages = sorted(page.name for page in (path if path.is_dir() else path.parent).glob("[!_]*.py"))
        if path.is_dir():
            raise UsageError(f"--cfg {path}: a folder; name one of its pages: {', '.join(pages)}")
        near = [str(path.with_name(name)) for name in difflib.get_close_matches(path.name, pages)]
        named = sorted(page for page in _ROOT.glob("configs/**/[!_]*.py") if page.stem == path.stem)
        shown = ", ".join([*(str(page.relative_to(_ROOT)) for page in named), *near])
        raise UsageError(f"--cfg {path}: no such file{f'; near: {shown}' if shown else ''}")
    beside = str(path.resolve().parent)
    if beside not in sys.path:
        sys.path.append(beside)  # so that a page can import the file next to it
    rest, known = list(words), None
    try:
        cfg = runpy.run_path(str(path)).get("cfg")
        if inspect.isfunction(cfg):
            known = inspect.signature(cfg).parameters
            rest = [word for word in words if word.partition("=")[0] not in known]
            if {*_HELP} & {*rest}:
                print(f"words of {path}: {' '.join(f'{name}={word.default}' for name, word in known.items())}\n")
            cfg = cfg(**{word.partition("=")[0]: word.partition("=")[2] for word in words if word not in rest})
    except UsageError:
        raise
    except Exception as error:  # a page is a program of the user's
        raise UsageError(_told(error, path, kind)) from None
    if not isinstance(cfg, kind):
        raise UsageError(f"{path} must set `cfg` to a {kind.__name__}, or to a function that returns one")
    if known is not None:
        _refuse_other_words(path, cfg, known, rest)
    return cfg, rest


def _refuse_other_words(path: Path, cfg: Any, known: Iterable[str], rest: Sequence[str]) -> None:
    own = {field.name for field in dataclasses.fields(cfg)}
    for name in (word.partition("=")[0] for word in rest if "=" in word and word[0] != "-"):
        if "." not in name and name not in own:
            near = ", ".join(_near(cfg, name))
            also = f"; settings: {near}" if near else ""
            raise UsageError(f"{path} has no word {name!r}; its words: {', '.join(known)}{also}")


def _told(error: Exception, page: Path, kind: type) -> str:
    """An error that a page raised, with its file and line, and the fields that are near a wrong one."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_of_a_page(Path(frame.filename), page)]
    file, line = (frames[-1].filename, frames[-1].lineno) if frames else (str(page), None)
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        file, line, message = error.filename or file, error.lineno, f"{type(error).__name__}: {error.msg}"
    if found := re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message):
        fields = {section.__name__: section for section in _sections(kind)}.get(found[1])
        if fields is not None:
            names = [field.name for field in dataclasses.fields(fields)]
            near = difflib.get_close_matches(found[2], names, cutoff=0.5) or names
            message = f"{found[1]} has no setting {found[2]!r}; near: {', '.join(near)}"
    return f"{file}, line {line}: {message}" if line else f"{file}: {message}"


def _is_of_a_page(file: Path, page: Path) -> bool:
    """Whether ``file`` is a page, or lies beside one."""
    beside = file.suffix == ".py" and file.resolve().parent == page.resolve().parent
    return beside or _ROOT / "configs" in file.parents


def _sections(kind: Any) -> Iterator[type]:
    """A dataclass of settings and those within it."""
    if dataclasses.is_dataclass(kind):
        yield kind  # type: ignore[misc]
        for inner in hints(kind).values():
            yield from _sections(get_args(inner)[1] if get_origin(inner) is dict else inner)


def override(
    cfg: Config, words: Sequence[str], description: str = "", more: Callable[[Config], str] = lambda _: ""
) -> Config:
    """``cfg`` with the ``key=value`` words applied; `--key value` and `--help` work too.

    Raises:
        UsageError: a key that is not a setting, where near ones are named, or a value of another type.
        SystemExit: help was asked for, and printed with ``description`` before and ``more`` after the settings.
    """
    for key, text in _pairs([word for word in words if word not in _HELP]):
        key = _spelt(cfg, key)
        try:
            cfg = _changed(cfg, key.split("."), text)
        except KeyError:
            near = ", ".join(_near(cfg, key))
            raise UsageError(f"no setting {key!r}; {f'near: {near}' if near else '--help shows them all'}") from None
        except ValueError as error:
            raise UsageError(f"{key}={text}: expected {error}") from None
    if {*_HELP} & {*words}:
        print(help_on(cfg, description, more(cfg)))
        raise SystemExit(0)
    return cfg


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    """The keys and values of a command line."""
    while words:
        word = words.pop(0)
        key, equals, text = word.partition("=")
        if not word.startswith("--"):
            if not equals:
                raise UsageError(f"{word}: expected a setting as key=value; --help shows them")
        elif not equals:
            values = [words.pop(0)] if words else []
            while words and "=" not in words[0] and not words[0].startswith("--"):
                values.append(words.pop(0))
            text = " ".join(values)
        yield key.removeprefix("--"), text


def _spelt(cfg: Any, key: str) -> str:
    """``key`` with an underscore for each hyphen, unless a name in it has hyphens."""
    known = {setting.key for setting in settings(cfg)}
    return key if key in known or (plain := key.replace("-", "_")) not in known else plain


def _changed(part: Any, names: list[str], text: str) -> Any:
    """``part`` of a configuration with the value at ``names`` that ``text`` says.

    Raises:
        KeyError: there is no such setting.
        ValueError: it is another type of value; with what is expected.
    """
    if not names:
        raise KeyError
    name, *deeper = names
    if isinstance(part, dict):
        return {**part, name: _changed(part[name], deeper, text)}
    kind, value = hints(type(part))[name], getattr(part, name)
    field = next(field for field in dataclasses.fields(part) if field.name == name)
    of = get_args(kind)[1] if get_origin(kind) is dict else None
    if dataclasses.is_dataclass(kind) or dataclasses.is_dataclass(of):
        return dataclasses.replace(part, **{name: _changed(value, deeper, text)})
    if (of is None) == bool(deeper):
        raise KeyError
    try:
        parsed = parse(text, of or kind)
    except (ValueError, ArithmeticError):
        raise ValueError(expected(of or kind, field)) from None
    return dataclasses.replace(part, **{name: {**value, ".".join(deeper): parsed} if of else parsed})


def _near(cfg: Any, key: str) -> list[str]:
    """Settings that may be meant by ``key``: of that name, in a part of that name, or spelt like it."""
    known = {setting.key: setting.names for setting in settings(cfg)}
    *before, last = key.replace("-", "_").lower().split(".")
    named = [one for one, names in known.items() if last in names] if not before else []
    inside = [one for one in known if last in one.split(".")[:-1] or one.startswith(f"{key}.")]
    like = difflib.get_close_matches(key, known, n=3, cutoff=0.7)
    names = {name: one for one, all_names in known.items() for name in all_names}
    like += [names[name] for name in difflib.get_close_matches(last, names, n=3, cutoff=0.7)]
    return ([*inside[:2], *named] or list(dict.fromkeys(like)) or difflib.get_close_matches(key, known, cutoff=0.5))[:6]


def help_on(cfg: Any, description: str, more: str) -> str:
    """Every setting as the command line takes it, with its text and its range."""
    width = min(shutil.get_terminal_size().columns, 120)
    lines = [description.strip(), "", "Settings, as key=value, with their values now:", ""]
    for setting in settings(cfg):
        lines.append(f"  {setting.key}={show(setting.value)}")
        text = f"{setting.text} ({expected(setting.kind, setting.field)})"
        lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join([*lines, *([more] if more else [])])


def restore(kind: type[Config], values: Mapping[str, Any], where: str = "") -> tuple[Config, list[str]]:
    """A configuration out of its JSON, and the keys in it that are no settings of ``kind``.

    What it lacks, as it was written before there was such a setting, has its default.

    Raises:
        DataError: it lacks a setting that has no default.
    """
    made, unknown = {}, [f"{where}{name}" for name in values if name not in hints(kind)]

    def restored(value: Any, of: Any, key: str) -> Any:
        if isinstance(value, dict) and dataclasses.is_dataclass(of):
            inner, others = restore(of, value, f"{key}.")  # type: ignore[arg-type]
            unknown.extend(others)
            return inner
        if isinstance(value, dict) and get_origin(of) is dict:
            return {name: restored(item, get_args(of)[1], f"{key}.{name}") for name, item in value.items()}
        return tuple(restored(item, None, key) for item in value) if isinstance(value, list) else value

    for name, of in hints(kind).items():
        if name in values:
            made[name] = restored(values[name], of, f"{where}{name}")
    try:
        return kind(**made), unknown
    except TypeError as error:
        raise DataError(f"it lacks a setting of {where.rstrip('.') or kind.__name__}: {error}") from None


def restore_file(path: Path, kind: type[Config]) -> tuple[Config, list[str]]:
    """`restore` of a file of JSON.

    Raises:
        UsageError: it cannot be read.
        DataError: it is damaged, or lacks a setting that has no default.
    """
    try:
        return restore(kind, dict(json.loads(path.read_bytes())))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, DataError) as error:
        raise DataError(f"{path} is damaged: {error}") from None


def entry(table: Mapping[str, Value], name: str, word: str) -> Value:
    """What the table of a page holds under ``name``, which ``word`` of the command line gives.

    Raises:
        UsageError: nothing; near names are given.
    """
    if name not in table:
        near = difflib.get_close_matches(name, table) or table
        raise UsageError(f"{word}={name}: this page does not know it; near: {', '.join(near)}")
    return table[name]


def differences(old: object, new: object, prefix: str = "") -> dict[str, tuple[object, object]]:
    """Dotted key -> (old, new) for every value, or order, in which two configurations, or their JSON, differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[object, object]] = {}
        for key in {**old, **new}:
            found |= differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
        if not found and list(old) != list(new):
            found[prefix] = (list(old), list(new))
        return found
    return {} if old == new else {prefix: (old, new)}
