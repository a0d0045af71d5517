"""What a task is, how it is declared and found.

A task is a class in a file of its own::

    @task("single_label")
    class SingleLabel(Task): ...

B samples of a batch, N of a split.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from dataset.feed.targets import Targets
from utils.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, device

    from dataset.feed.batch import Batch
    from models.outputs import Outputs


class Metrics(Protocol):
    """Scores of a network, exact on any number of ranks: every sample counts once."""

    def add(self, outputs: Outputs, batch: Batch) -> None:
        """Add what a network gives for a batch of this rank."""
        ...

    def compute(self) -> dict[str, float]:
        """The scores over all ranks, the primary one first, and how many `images` they are of.

        Raises:
            DataError: there was not one image; on every rank.
        """
        ...


class Task(ABC):
    """A task.

    Attributes:
        primary: the score by which the best student is chosen and teachers are checked, percent; higher is better.
        hard_loss: the objective that learns from the targets alone.
        running_scores: names of what `running` gives.
    """

    primary: str
    hard_loss: str
    running_scores: tuple[str, ...]

    @abstractmethod
    def targets(self, classes: Sequence[str]) -> Targets:
        """How targets that name some of the ``classes`` become arrays."""

    @abstractmethod
    def metrics(self, device: device) -> Metrics:
        """Scores that are added up on ``device``."""

    @abstractmethod
    def running(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Scores of a training batch, cheap ones: scalar sums over its samples, of 0 to 1 each, by name."""

    @abstractmethod
    def chance(self, labels: np.ndarray) -> float:
        """The primary score of a network that guesses, for samples with these ``labels`` (of `Samples`), percent."""


Made = TypeVar("Made", bound=type[Task])

_REGISTRY: dict[str, Task] = {}


def task(name: str) -> Callable[[Made], Made]:
    """Register the decorated class of a task under ``name``.

    Raises:
        AssertionError: the name is taken.
    """

    def register(made: Made) -> Made:
        known = _REGISTRY.get(name)
        # A config that is read twice registers its own twice.
        assert known is None or type(known).__qualname__ == made.__qualname__, f"two tasks are called {name}"
        _REGISTRY[name] = made()
        return made

    return register


def get(name: str) -> Task:
    """The task called ``name``.

    Raises:
        UsageError: there is none; near names are given.
    """
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, _REGISTRY, n=3) or sorted(_REGISTRY)
        raise UsageError(f"no task {name!r}; there is {', '.join(near)}")
    return _REGISTRY[name]
