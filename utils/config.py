"""A config file, the overrides on the command line, or a run's JSON, to one frozen configuration."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import runpy
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from utils.errors import DataError, ExpectedError, UsageError, in_one_line
from utils.files import parsed
from utils.imports import check_namesakes, never_exiting
from utils.renamed import Renamed, advice, file_now, overrides_now
from utils.settings import expected, hints, left_out, parse, settings, show

Config = TypeVar("Config")
Value = TypeVar("Value")

HELP = ("--help", "-h")
_ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class OldNames:
    """What older versions called settings, and the files that were configs or that these import."""

    settings: Sequence[Renamed] = ()
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_config(
    path: Path, kind: type[Config], overrides: Sequence[str] = (), old: OldNames = OldNames()
) -> tuple[Config, list[str]]:
    """As `read_configs`, of several the last."""
    configs, rest = read_configs(path, kind, overrides, old)
    return [*configs.values()][-1], rest


def read_configs(
    path: Path, kind: type[Config], overrides: Sequence[str] = (), old: OldNames = OldNames()
) -> tuple[dict[str, Config], list[str]]:
    """The objects called `cfg` that the Python file at ``path`` builds, and the ``overrides`` that it had no use for.

    `cfg` is one, or a dictionary of several by name. Where it is a function of strings, such as
    ``def cfg(teacher: str = "a", student: str = "b")``, overrides like ``teacher=c`` are its arguments.

    Raises:
        UsageError: there is no such file, it builds no `cfg` of ``kind``, or it raises an error itself.
    """
    rest = list(overrides)
    cfg = run_config(path, kind, old).get("cfg")
    known: list[str] = []
    if inspect.isfunction(cfg):
        parameters = inspect.signature(cfg).parameters
        known = list(parameters)
        own = [one for one in overrides if one.partition("=")[0] in known]
        rest = [one for one in overrides if one not in own]
        if {*HELP} & {*rest}:
            print(f"overrides of {path}: {' '.join(f'{name}={one.default}' for name, one in parameters.items())}")
            print(f"{inspect.getdoc(cfg) or ''}\n")
        with _one_line(path, kind, old):
            cfg = cfg(**{one.partition("=")[0]: one.partition("=")[2] for one in own})
    configs: dict[str, Any] = cfg if isinstance(cfg, dict) else {path.stem: cfg}
    if not configs or not all(isinstance(one, kind) for one in configs.values()):
        name = kind.__name__
        raise UsageError(f"{path} must set `cfg` to a {name}, a dict of such, or to a function that returns one")
    if known:
        _refuse_unknown(path, [*configs.values()][-1], [*known, *(configs if len(configs) > 1 else ())], rest)
    return configs, rest


def run_config(path: Path, kind: type, old: OldNames = OldNames()) -> dict[str, Any]:
    """The names that the config file at ``path`` defines.

    Raises:
        UsageError: there is no such file, it imports what this checkout has under the same name, or it raises an error,
            in which the sections of ``kind`` are known.
    """
    if not path.is_file():
        raise UsageError(_not_there(path, old))
    beside = str(path.resolve().parent)
    if beside not in sys.path:
        sys.path.append(beside)  # so that a config can import the file next to it
    check_namesakes(path, path.parent)
    with _one_line(path, kind, old):
        return runpy.run_path(str(path))


def _not_there(path: Path, old: OldNames) -> str:
    """The message for a config file that is missing, or a folder."""
    if now := file_now(path.as_posix(), old.files):
        return f"--cfg {path}: no such file now; it is --cfg {now}"
    files = sorted(file.name for file in (path if path.is_dir() else path.parent).glob("[!_]*.py"))
    if path.is_dir():
        return f"--cfg {path}: a folder; name one of its configs: {', '.join(files) or 'it has none'}"
    if path.exists():
        return f"--cfg {path}: a pipe or device; write the config into a file"
    if path.is_symlink():
        return f"--cfg {path}: a link to {path.readlink()}, where no file can be read; mend the link"
    near = [str(path.with_name(name)) for name in difflib.get_close_matches(path.name, files)]
    named = sorted(file for file in _ROOT.glob("configs/**/[!_]*.py") if file.stem == path.stem)
    shown = ", ".join([*(str(file.relative_to(_ROOT)) for file in named), *near])
    return f"--cfg {path}: no such file{f'; near: {shown}' if shown else ''}"


@contextmanager
def _one_line(path: Path, kind: type, old: OldNames) -> Iterator[None]:
    """Give one line for an error in a config file.

    Raises:
        UsageError: in place of every error of another kind.
    """
    try:
        with never_exiting():
            yield
    except ExpectedError:
        raise
    except Exception as error:  # a config is a program of the user's
        raise UsageError(_explained(error, path, kind, old)) from None


def _refuse_unknown(path: Path, cfg: Any, known: Sequence[str], rest: Sequence[str]) -> None:
    own = {one.key.partition(".")[0] for one in settings(cfg)}
    for name in (one.partition("=")[0] for one in rest if "=" in one and one[0] != "-"):
        if "." not in name and name not in own:
            near = ", ".join(_near(cfg, name))
            also = f"; settings: {near}" if near else ""
            raise UsageError(f"{path} has no setting {name!r}; its own: {', '.join(known)}{also}")


def _explained(error: Exception, config: Path, kind: type, old: OldNames) -> str:
    """An error that a config raised, with its file and line, and what to write in place of a wrong or an old name."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_config(Path(frame.filename), config)]
    file, line = (frames[-1].filename, frames[-1].lineno) if frames else (str(config), None)
    message = in_one_line(error)
    if isinstance(error, SyntaxError):
        file, line, message = error.filename or file, error.lineno, f"{type(error).__name__}: {error.msg}"
    if isinstance(error, ModuleNotFoundError) and (
        now := file_now(f"{(error.name or '').replace('.', '/')}.py", old.files)
    ):
        message = f"no module {error.name} now; it is {now}"
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message)
    found = found or re.search(r"'(\w+)' object has no attribute '(\w+)'", message)
    if found and (sections := [(key, one) for key, one in _sections(kind) if one.__name__ == found[1]]):
        names = [field.name for field in dataclasses.fields(sections[0][1])]
        near = difflib.get_close_matches(found[2], names, cutoff=0.5) or names
        now = next(filter(None, (advice(f"{key}{found[2]}", old.settings) for key, _ in sections)), "")
        instead = f" now; {now}" if now else f"; near: {', '.join(near)}"
        message = f"{found[1]} has no setting {found[2]!r}{instead}"
    return f"{file}, line {line}: {message}" if line else f"{file}: {message}"


def _is_config(file: Path, config: Path) -> bool:
    """Whether ``file`` is a config, or lies beside one."""
    beside = file.suffix == ".py" and file.resolve().parent == config.resolve().parent
    return beside or _ROOT / "configs" in file.parents


def _sections(kind: Any, prefix: str = "") -> Iterator[tuple[str, type]]:
    """A dataclass of settings and those within it, each with the beginning of its settings' keys."""
    if dataclasses.is_dataclass(kind):
        yield prefix, kind  # type: ignore[misc]
        for name, inner in hints(kind).items():
            within = get_origin(inner) is dict
            yield from _sections(get_args(inner)[1] if within else inner, f"{prefix}{name}.{'*.' if within else ''}")


def override(
    cfg: Config,
    overrides: Sequence[str],
    description: str = "",
    more: Callable[[Config], str] = lambda _: "",
    old: OldNames = OldNames(),
    note: Callable[[str], None] = lambda _: None,
) -> Config:
    """``cfg`` with ``key=value`` overrides; `--key value` and `--help` work too.

    Args:
        cfg: what is changed.
        overrides: in order.
        description: for the help, before the settings.
        more: for the help, after the settings.
        old: names that are understood too.
        note: called for each that is used, with a line that says what it is now.

    Raises:
        UsageError: a key that is not a setting, where near ones are named, or a value of another type.
        SystemExit: help was asked for, and printed.
    """
    for key, text in pairs([one for one in overrides if one not in HELP]):
        key = _spelt(cfg, key)
        try:
            cfg = _with_value(cfg, key, text)
        except KeyError:
            cfg = _with_old_name(cfg, key, text, old, note)
        except ValueError as error:
            raise UsageError(f"{key}={text}: expected {error}") from None
    if {*HELP} & {*overrides}:
        print(help_on(cfg, description, more(cfg)))
        raise SystemExit(0)
    return cfg


def _with_value(cfg: Config, key: str, text: str) -> Config:
    """``cfg`` with the value of ``text`` at ``key``, which may be in short.

    Raises:
        KeyError: there is no such setting.
        ValueError: it is another type of value; with what is expected.
    """
    own = {field.name for field in dataclasses.fields(cfg)}  # type: ignore[arg-type]
    whole = key if key.partition(".")[0] in own else left_out(cfg) + key
    return _changed(cfg, whole.split("."), text)


def _with_old_name(cfg: Config, key: str, text: str, old: OldNames, note: Callable[[str], None]) -> Config:
    """``cfg`` with ``key=text``, where ``key`` is what an older version called a setting.

    Raises:
        UsageError: it is no such name.
    """
    before = left_out(cfg)
    try:
        last = before.rstrip(".").rpartition(".")[2]
        now = overrides_now(key.replace("-", "_"), text, old.settings, last)
        changed = cfg
        for name, value in now.items():
            changed = _with_value(changed, name, value)
    except KeyError:
        near = ", ".join(_near(cfg, key))
        raise UsageError(f"no setting {key!r}; {f'near: {near}' if near else '--help shows them all'}") from None
    except ValueError as error:
        raise UsageError(f"{key}={text}: expected {error}") from None
    written = [f"{name.removeprefix(before)}={value}" for name, value in now.items()]
    note(f"{key}={text} {'is now' if written else 'has no effect now'} {' '.join(written)}".rstrip())
    return changed


def pairs(words: list[str]) -> Iterator[tuple[str, str]]:
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
    """``part`` of a configuration with the value of ``text`` at ``names``.

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
    if before := left_out(cfg):
        part, name = before.split(".")[:2]
        first = next(one.key for one in settings(getattr(cfg, part)[name]))
        text = f"Those of {name}, the last of {part}, go without {before} before them: {first} is {before}{first}."
        lines += [*textwrap.wrap(text, width), ""]
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


def restore_file(
    path: Path, kind: type[Config], today: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values
) -> tuple[Config, list[str]]:
    """`restore` of a file of JSON, of which ``today`` makes what this version writes.

    Raises:
        UsageError: it cannot be read.
        DataError: it is damaged, or lacks a setting that has no default.
    """
    try:
        return restore(kind, today(dict(parsed(path.read_bytes()))))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError, DataError) as error:
        raise DataError(f"{path} is damaged: {error}") from None


def entry(table: Mapping[str, Value], name: str, key: str) -> Value:
    """What a table of a config holds under ``name``, which ``key=name`` on the command line asks for.

    Raises:
        UsageError: nothing; near names are given.
    """
    if name not in table:
        near = difflib.get_close_matches(name, table, cutoff=0.5)
        known = f"near: {', '.join(near)}" if near else f"it has {', '.join(table)}"
        raise UsageError(f"{key}={name}: this config does not know it; {known}")
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
