"""How an objective is declared and found.

An objective is a function of tensors with knobs after `*`, returning a scalar::

    @objective(reads="logits")
    def kd(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor: ...

Its positional parameters say what it needs: `student` and `teacher` are the tensors that ``reads`` names in each
network's `Outputs`, any other name is a key of the batch (`labels`, `index`). It carries no weight of its own.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from torch import Tensor

from utils.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Tensor])


class Objective(NamedTuple):
    """A registered objective."""

    name: str
    function: Callable[..., Tensor]
    reads: str
    inputs: tuple[str, ...]  # positional parameters, in order
    options: tuple[str, ...]  # keyword-only parameters

    @property
    def needs_teacher(self) -> bool:
        """Whether it compares the student with a teacher."""
        return "teacher" in self.inputs


_REGISTRY: dict[str, Objective] = {}


def objective(*, reads: str) -> Callable[[Function], Function]:
    """Register the decorated function under its own name and return it unchanged.

    Args:
        reads: what it takes from each network's `Outputs`: `logits`, `pooled`, `stage4`, ...

    Raises:
        ValueError: the name is taken by another function.
    """

    def register(function: Function) -> Function:
        name = function.__name__
        if name in _REGISTRY and _REGISTRY[name].function.__module__ != function.__module__:
            raise ValueError(f"objective {name} is registered already, by {_REGISTRY[name].function.__module__}")
        parameters = inspect.signature(function).parameters.values()
        inputs = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        options = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        _REGISTRY[name] = Objective(name, function, reads, inputs, options)
        return function

    return register


def get(name: str) -> Objective:
    """The objective called ``name``.

    Raises:
        UsageError: there is none; near names are given.
    """
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, _REGISTRY, n=3) or sorted(_REGISTRY)
        raise UsageError(f"no objective {name!r}; there is {', '.join(near)}. Import the file of your own on the page")
    return _REGISTRY[name]
