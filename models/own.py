"""Networks of one's own, by import path: `my_models:MyNet`, of a module beside the config or an installed one.

A class or a function that takes `num_classes` by name, and the options of the config, and returns a module: images
[B, 3, H, W] -> logits [B, K]. One that derives from `models.outputs.Body` returns `Outputs`, with features of its own.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any

from torch import nn

from utils.distributed import print_on_first
from utils.errors import ExpectedError, UsageError, in_one_line
from utils.files import parsed
from utils.imports import line_in, module_of, names_here, never_exiting, no_module, source_of, sources_of

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_OF_A_CONFIG = ("__main__", "<run_path>")  # modules that no one can import


def is_own(name: str) -> bool:
    """Whether a network's name is an import path."""
    return _PATH.fullmatch(name) is not None


def import_path(made_by: Any) -> str:
    """The import path of a class or function.

    Raises:
        UsageError: it has none: a lambda, a function within another, an object, or something of the config itself.
    """
    module, name = getattr(made_by, "__module__", None), getattr(made_by, "__qualname__", "")
    path = f"{module}:{name}"
    if module in _OF_A_CONFIG or not is_own(path):
        shown = name or f"an object of {type(made_by).__name__}"
        raise UsageError(
            f"a network made by {shown}, which no other program can import: move it to the top of a file beside the "
            'config, such as my_models.py, give NetworkConfig("my_models:MyNet"), and what it is made with as options'
        )
    return path


def folder_of(name: str, known: str = "") -> str:
    """The folder that the module of the import path ``name`` is found in: the ``known`` one where it is there, else
    that on Python's path; ``known`` where it is nowhere.
    """
    module = name.partition(":")[0]
    top = module.partition(".")[0]
    if known and _has(top, known):
        return known
    if top in _OF_A_CONFIG or top in names_here() or (spec := find_spec(top)) is None:
        return known
    places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin and spec.has_location else [])]
    return str(Path(places[0]).absolute().parent) if places else known


def own_network(name: str, folder: str, options: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The network that the import path ``name`` makes, of the module in ``folder``, with ``options``, for K classes.

    Raises:
        UsageError: there is no such module or name in it, it is another one than that in the folder, it does not take
            these options, or raises an error; or what it makes is no network.
    """
    made_by = _imported(name, folder)
    try:
        parameters = inspect.signature(made_by).parameters
    except (TypeError, ValueError):
        raise UsageError(f"{name} is no class or function") from None
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    by_name = [one.name for one in parameters.values() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    if unknown := [] if takes_any else [one for one in ("num_classes", *options) if one not in by_name]:
        takes = ", ".join(one for one in by_name if one != "num_classes") or "no options"
        do = "give it a parameter num_classes" if unknown[0] == "num_classes" else f"it takes {takes}"
        raise UsageError(f"{name} takes no {unknown[0]}: {do}")
    try:
        with never_exiting():
            network = made_by(num_classes=num_classes, **options)
    except ExpectedError:
        raise
    except Exception as error:  # a program of the user's
        raise UsageError(f"{name} raised {in_one_line(error)}{line_in(error, Path(folder))}") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{name} makes an object of {type(network).__name__}, which is no torch.nn.Module")
    return network


def remark_changes(name: str, folder: str, weights: Path) -> None:
    """Print once, to stderr, what has changed of a network of one's own since the run whose student ``weights``, a file
    in its folder, are of.
    """
    try:
        then = dict(parsed((weights.parent / "facts.json").read_bytes())["code"]["student"])
    except (OSError, ValueError, TypeError, KeyError):  # no run's, or an older one's
        return
    for change in changed_sources(sources_of(name, folder), then):
        _print_once(f"{weights}: since that run {change}; the network is built as it is now")


@cache
def _print_once(line: str) -> None:
    print_on_first(line, sys.stderr)


def changed_sources(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """What has become of the files of ``then``, as `sources_of` gave them, where it is not as it was; a text each."""
    found = []
    for path, known in then.items():
        if path not in now and path.partition("/")[0] in now:
            continue  # of an installed package by file, as older versions had it, which has one checksum now
        if (digest := now.get(path)) != known:
            what = f"has changed (SHA-256 {known[:8]} then, {digest[:8]} now)" if digest else "is no longer read"
            found.append(f"{path} {what}")
    return found


def _imported(name: str, folder: str) -> Any:
    """What the import path ``name`` leads to."""
    module, _, names = name.partition(":")
    top = module.partition(".")[0]
    if top not in names_here() and not (folder and _has(top, folder)):
        raise no_module(name, folder)
    found = module_of(name, Path(folder))
    try:
        return attrgetter(names)(found)
    except AttributeError:
        where = getattr(found, "__file__", None) or module
        raise UsageError(f"{name}: there is no {names} in {where}") from None


def _has(top: str, folder: str) -> bool:
    """Whether a module or package called ``top`` lies in the folder."""
    return Path(folder, top).is_dir() or source_of(top, Path(folder)) is not None
