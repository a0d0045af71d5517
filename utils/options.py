"""Options: the keyword-only parameters of a function or class, as a config or a command line gives them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from utils.errors import UsageError
from utils.settings import Range

_NUMBERS = (int, float, "int", "float")


class Option(NamedTuple):
    """One of them, and what its numbers may be."""

    parameter: inspect.Parameter
    range: Range

    @property
    def default(self) -> Any:
        """What it is where nothing is given; `inspect.Parameter.empty` where something must be."""
        return self.parameter.default

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty

    def checked(self, value: Any) -> Any:
        """``value``, as an integer where it takes one.

        Raises:
            ValueError: it may not be that; with what it may be.
        """
        default, kind = self.default, self.parameter.annotation
        is_number = isinstance(value, float | int) and not isinstance(value, bool)
        if isinstance(default, bool | str) and type(value) is not type(default):
            raise ValueError(f"no value like its default, {default!r}")
        takes_number = kind in _NUMBERS if self.is_required else type(default) in _NUMBERS
        if takes_number and not is_number:
            raise ValueError("no number" if self.is_required else f"no number like its default, {default!r}")
        if not is_number:
            return value
        if not math.isfinite(value):
            raise ValueError("not a finite number")
        like = "" if self.is_required else f", like its default, {default!r}"
        if not self.range.has(value):
            raise ValueError(f"{self.range}{like}")
        if kind not in (int, "int"):
            return value
        if value != int(value):
            raise ValueError(f"a whole number{like}")
        return int(value)


def options_of(made: Callable[..., Any], **ranges: Range) -> dict[str, Option]:
    """The options of a function or class by name, with the ``ranges`` of those that have one."""
    parameters = inspect.signature(made).parameters.values()
    options = {p.name: Option(p, ranges.get(p.name, Range())) for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert ranges.keys() <= options.keys(), f"{made.__name__} has no option {ranges.keys() - options.keys()}"
    return options


def check_options(options: Mapping[str, Option], given: Mapping[str, Any], *, key: str, owner: str) -> dict[str, Any]:
    """What is ``given`` for ``options``, checked.

    Args:
        options: by name.
        given: values, by name.
        key: of the setting that gives them, such as `terms.kd.options`.
        owner: what has these options, as messages name it.

    Raises:
        UsageError: there is no such option, a value is none that it may have, or one without a default is missing.
    """
    checked = {}
    for name, value in given.items():
        if name not in options:
            near = get_close_matches(name, options, n=1)
            known = f"; near: {near[0]}" if near else f"; it has {', '.join(options) or 'none'}"
            raise UsageError(f"{key}: {owner} has no option {name}{known}")
        try:
            checked[name] = options[name].checked(value)
        except ValueError as error:
            raise UsageError(f"{key}.{name}={value}: {error}") from None
    if missing := [name for name, option in options.items() if option.is_required and name not in checked]:
        raise UsageError(f"{key}: {owner} needs {', '.join(missing)}")
    return checked
