"""Classes by name, whose options are the keyword-only parameters of their constructors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from utils.errors import UsageError
from utils.options import Option, check_options, options_of
from utils.settings import Range

Kind = TypeVar("Kind")
Value = float | bool | str


class Registry(Generic[Kind]):
    """Classes of one kind.

    Args:
        what: is registered, as messages call it: task, head.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._known: dict[str, tuple[type, dict[str, Option]]] = {}

    def register(self, name: str, **ranges: Range) -> Callable[[type[Kind]], type[Kind]]:
        """Register the decorated class under ``name``, and return it unchanged.

        Args:
            name: as in configs.
            ranges: of its options.

        Raises:
            ValueError: the name is taken by another.
        """

        def register(kind: type[Kind]) -> type[Kind]:
            known = self._known.get(name, (kind,))[0]
            names = [(one.__module__, one.__qualname__) for one in (known, kind)]  # the same may come again
            if names[0] != names[1]:
                raise ValueError(f"{self._what} {name} is registered already, by {known.__module__}")
            self._known[name] = kind, options_of(kind, **ranges)
            return kind

        return register

    def made(self, name: str, options: Mapping[str, Value], *, name_key: str, options_key: str) -> Kind:
        """An object of the class called ``name``; errors call its name and its options by their keys.

        Raises:
            UsageError: there is none of this name, near ones are given; or it has no such options.
        """
        if name not in self._known:
            near = difflib.get_close_matches(name, self._known, n=3) or sorted(self._known)
            raise UsageError(
                f"{name_key}={name}: there is {', '.join(near)}. Import the file of your own in the config"
            )
        kind, known = self._known[name]
        return kind(**check_options(known, options, key=options_key, owner=name))
