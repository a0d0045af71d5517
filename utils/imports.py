"""Python files of a user's: which of them one imports, and modules that have a namesake in this checkout."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import NamedTuple

from utils.errors import ExpectedError, Stopped, UsageError, in_one_line
from utils.files import sha256

_ROOT = Path(__file__).resolve().parents[1]
_INSTALLED = frozenset(("site-packages", "dist-packages"))


class _Import(NamedTuple):
    """One name that a file imports.

    Attributes:
        line: where.
        module: dotted, from the folder that is searched.
        name: what is taken out of it; `*` for all, empty where the module itself is imported.
        relative: whether it is named by where the file stands.
    """

    line: int
    module: str
    name: str
    relative: bool


@cache
def names_here() -> frozenset[str]:
    """The modules and packages at the top of this checkout, which Python finds before any others of these names."""
    return frozenset(path.stem for path in _ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file())


def module_of(path: str, folder: Path) -> ModuleType:
    """The module of an import path, `module:name`, which lies in ``folder`` or on Python's path.

    Raises:
        UsageError: there is no such module, or one of this checkout or from elsewhere is found before it; or it raises
            an error.
    """
    module = path.partition(":")[0]
    top = module.partition(".")[0]
    if top in names_here():
        raise UsageError(
            f"{path}: Limbeck has a {top!r} of its own, which Python finds before yours: rename yours, or move it into "
            f"a package, and name mine.{path}"
        )
    source = source_of(module, folder)
    if source is not None:
        check_namesakes(source, folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        with never_exiting():
            found = import_module(module)
    except ExpectedError:
        raise
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise no_module(path, str(folder)) from None
        raise UsageError(f"{path}: {error}{line_in(error, folder)}: install it, or take the import out") from None
    except Exception as error:  # a program of the user's
        raise UsageError(f"{path}: {in_one_line(error)}{line_in(error, folder)}") from error
    where = getattr(found, "__file__", None)
    if source is not None and where is not None and Path(where).resolve() != source.resolve():
        raise UsageError(f"{path} is that of {source}, and Python has {module} from {where}: rename one of them")
    return found


def no_module(path: str, folder: str) -> UsageError:
    """What is wrong with an import path whose module is neither in ``folder``, empty for none, nor on Python's path."""
    module, _, name = path.partition(":")
    if module.endswith(".py"):
        return UsageError(f"{path}: a module is named without .py: {module.removesuffix('.py')}:{name}")
    place = f"into {folder}, or into" if folder else "beside the config, or in"
    file = f"{module.replace('.', '/')}.py"
    return UsageError(f"{path}: no module {module}: put {file} {place} a folder of PYTHONPATH")


@contextmanager
def never_exiting() -> Iterator[None]:
    """While a program of the user's runs: what ends Python in it is an error, for nothing would be done after it.

    Raises:
        UsageError: it calls `sys.exit()`, or raises `SystemExit` otherwise; with its file and line.
    """
    try:
        yield
    except SystemExit as error:
        if error.code == Stopped.exit_code:  # of a signal, which has printed its line
            raise
        places = [one for one in extract_tb(error.__traceback__) if not _is_pythons(one.filename)]
        where = f"{places[-1].filename}, line {places[-1].lineno}"
        raise UsageError(f"{where}, ends the program ({in_one_line(error)}): return, or raise another error") from None


def _is_pythons(file: str) -> bool:
    """Whether it is a module of Python itself, such as that of `exit` and `argparse`."""
    return file.startswith("<frozen") or Path(file).parent == Path(os.__file__).parent


def line_in(error: BaseException, folder: Path) -> str:
    """Where in the user's own files an error was raised, in brackets; empty where it was elsewhere."""
    places = [one for one in extract_tb(error.__traceback__) if Path(one.filename).is_relative_to(folder)]
    return f" ({places[-1].filename}, line {places[-1].lineno})" if places else ""


def check_namesakes(file: Path, folder: Path) -> None:
    """See that a file, and those of its ``folder`` that it imports, get the modules that they mean.

    Where this checkout has a package `utils`, `import utils.layers` never reads the user's own `utils/layers.py`.

    Raises:
        UsageError: one imports what the user has too, beside it or elsewhere on Python's path; with what to do.
    """
    places = [one for one in dict.fromkeys([folder, *map(Path, sys.path)]) if one.resolve() != _ROOT]
    for one in reachable(file, folder):
        for found in _imports(one, folder):
            top = found.module.partition(".")[0]
            if found.relative or top not in names_here():
                continue
            own = next(filter(None, (_meant(found, place) for place in places)), None)
            if own is not None:
                wanted = f"{found.module}.{found.name}".rstrip(".")
                raise UsageError(
                    f"{one}, line {found.line}: {wanted} is in {own}, but Python finds Limbeck's own {top!r} first, "
                    f"in {_ROOT}. Rename yours, or move it into a package, such as {folder / 'mine' / top}, and import "
                    f"mine.{found.module}"
                )


def reachable(file: Path, folder: Path) -> list[Path]:
    """``file`` and the files below ``folder`` that it imports, directly or through others, by path.

    Of what is installed it alone: packages have thousands.
    """
    found, waiting = {file}, [] if _is_installed(folder) else [file]
    while waiting:
        for one in _imports(waiting.pop(), folder):
            if one.module.partition(".")[0] in names_here() and not one.relative:
                continue
            parts = f"{one.module}.{one.name}".split(".")
            candidates = (source_of(".".join(parts[:length]), folder) for length in range(1, len(parts) + 1))
            new = {path for path in candidates if path is not None} - found
            found |= new
            waiting += new
    return sorted(found)


def source_of(module: str, folder: Path) -> Path | None:
    """The file of a dotted module name, or its package's, below ``folder``."""
    path = folder.joinpath(*module.split("."))
    files = (path / "__init__.py", path.with_name(f"{path.name}.py")) if module else ()
    return next((file for file in files if file.is_file()), None)


def sources_of(path: str, folder: str) -> dict[str, str]:
    """SHA-256 of the files that the module of an import path is written in, by path below ``folder``; none without it.

    Of what is installed, one of all files of its package, by the package's name.
    """
    place = Path(folder)
    file = source_of(path.partition(":")[0], place) if folder else None
    if file is None:
        return {}
    files = {str(one.relative_to(place)): sha256(one) for one in reachable(file, place)}
    if not _is_installed(place):
        return files
    top = file.relative_to(place).parts[0]
    files |= {str(one.relative_to(place)): sha256(one) for one in sorted(place.joinpath(top).rglob("*.py"))}
    return {top: hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()}


def _is_installed(folder: Path) -> bool:
    """Whether it is one that packages are installed into."""
    return bool(_INSTALLED.intersection(folder.parts))


def _imports(file: Path, folder: Path) -> Iterator[_Import]:
    """What a file imports, wherever in it; nothing of one that is no Python, which Python itself will say."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_Import(node.lineno, alias.name, "", relative=False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                inside = file.relative_to(folder).parts[: -node.level]
                module = ".".join([*inside, *filter(None, [module])])
            yield from (_Import(node.lineno, module, alias.name, bool(node.level)) for alias in node.names)


def _meant(found: _Import, folder: Path) -> Path | None:
    """The file below ``folder`` that an import may mean."""
    module = source_of(found.module, folder)
    if found.name in ("", "*"):
        return module
    return source_of(f"{found.module}.{found.name}", folder) or (
        module if module is not None and found.name in _defined(module) else None
    )


def _defined(file: Path) -> set[str]:
    """The names that a module gives at its top level."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        else:
            names |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    return names
