"""A page and the words of the command line, to one frozen configuration."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from utils.errors import UsageError

Config = TypeVar("Config")

_ITEM = re.compile(r"[^\s,()\[\]'\"]+")  # of a list, as Python or a shell would write it


def read_page(path: Path, kind: type[Config], words: Sequence[str] = ()) -> tuple[Config, list[str]]:
    """The object called `cfg` that the Python file at ``path`` builds, and the ``words`` that it had no use for.

    Where `cfg` is a function of strings, such as ``def cfg(teacher: str = "a", student: str = "b")``, words like
    ``teacher=c`` are its arguments.

    Raises:
        UsageError: there is no such file, or it builds no `cfg` of ``kind``.
    """
    if not path.is_file():
        pages = sorted(page.name for page in (path if path.is_dir() else path.parent).glob("[!_]*.py"))
        if path.is_dir():
            raise UsageError(f"--cfg {path}: a folder; name one of its pages: {', '.join(pages)}")
        near = ", ".join(difflib.get_close_matches(path.name, pages))
        raise UsageError(f"--cfg {path}: no such file{f'; near: {near}' if near else ''}")
    beside = str(path.resolve().parent)
    if beside not in sys.path:
        sys.path.append(beside)  # so that a page can import the file next to it
    cfg = runpy.run_path(str(path)).get("cfg")
    rest = list(words)
    if inspect.isfunction(cfg):
        known = inspect.signature(cfg).parameters
        rest = [word for word in words if word.partition("=")[0] not in known]
        if "--help" in rest:
            print(f"words of {path}: {' '.join(f'{name}={word.default}' for name, word in known.items())}\n")
        cfg = cfg(**{word.partition("=")[0]: word.partition("=")[2] for word in words if word not in rest})
        for name in {word.partition("=")[0] for word in rest if "=" in word and word[0] != "-"} - _children(cfg).keys():
            if "." not in name:
                settings = ", ".join(key for key in leaves(cfg) if key.rpartition(".")[2] == name)
                also = f"; settings: {settings}" if settings else ""
                raise UsageError(f"{path} has no word {name!r}; its words: {', '.join(known)}{also}")
    if not isinstance(cfg, kind):
        raise UsageError(f"{path} must set `cfg` to a {kind.__name__}, or to a function that returns one")
    return cfg, rest


def override(cfg: Config, words: list[str], description: str) -> Config:
    """``cfg`` with the ``key=value`` words applied; `--key value` and `--help` work too, both read by tyro.

    Raises:
        UsageError: a key that is not a setting; near ones are named.
        SystemExit: help was asked for (0), or a value has the wrong type (2).
    """
    flags: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and not word.startswith("-"):
            current = _lookup(cfg, key)
            parts = _ITEM.findall(value) if isinstance(current, tuple) else [value]
            flags += [f"--{key}", *parts]
        else:
            flags.append(word)
    markers = (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
    return tyro.cli(type(cfg), default=cfg, args=flags, description=description, config=markers)


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


def leaves(cfg: object) -> dict[str, Any]:
    """All values by their dotted keys."""
    found: dict[str, Any] = {}
    for name, child in _children(cfg).items():
        found |= {f"{name}.{key}": value for key, value in leaves(child).items()} or {name: child}
    return found


def _children(cfg: object) -> dict[str, object]:
    return cfg if isinstance(cfg, dict) else vars(cfg) if dataclasses.is_dataclass(cfg) else {}


def _lookup(cfg: object, key: str) -> object:
    """The value at a dotted key."""
    walked: list[str] = []
    for name in key.split("."):
        children = _children(cfg)
        if name not in children:
            near = difflib.get_close_matches(name, children, n=3, cutoff=0.3) or list(children)
            deeper = [".".join([*walked, leaf]) for leaf in leaves(cfg) if leaf.rpartition(".")[2] == name]
            shown = ", ".join(deeper or [".".join([*walked, child]) for child in near])
            raise UsageError(f"no setting {key!r}{f'; near: {shown}' if shown else ''}")
        walked.append(name)
        cfg = children[name]
    return cfg
