"""What a task is, how it is declared and found.

A task is a class in a file of its own, whose options are the keyword-only parameters of its constructor::

    @task("multi_label", threshold=Range(0, 1))
    @dataclass(frozen=True, kw_only=True)
    class MultiLabel(Task):
        threshold: float = 0.5

B samples of a batch, N of a split.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from dataset.feed.targets import Targets
from evaluation.contract import Metrics
from utils.registry import Registry, Value

if TYPE_CHECKING:
    from torch import Tensor, device

    from dataset.config import DataConfig
    from dataset.feed.batch import Batch
    from models.outputs import Outputs


class Task(ABC):
    """A task.

    Attributes:
        primary: the score by which the best student is chosen and teachers are checked, percent; higher is better.
        hard_loss: the objective that learns from the targets alone.
        running_scores: names of what `running` gives.
        logits: what turns them into probabilities: `softmax` for one class an image, `sigmoid` for each class by
            itself, `any` where the networks say it. Objectives for others are refused.
        of_outputs: targets that are no part of a batch, for the student's outputs bring them.
        detects: whether its networks are detectors.
        reads: features of a network that its metrics read, beside the logits; with some, teachers are not scored.
    """

    primary: str
    hard_loss: str
    running_scores: tuple[str, ...]
    logits: Literal["softmax", "sigmoid", "any"] = "softmax"
    of_outputs: tuple[str, ...] = ()
    detects: bool = False
    reads: tuple[str, ...] = ()

    @abstractmethod
    def targets(self, classes: Sequence[str]) -> Targets:
        """How targets that name some of the ``classes`` become arrays."""

    @abstractmethod
    def metrics(self, device: device, classes: Sequence[str]) -> Metrics:
        """Scores that are added up on ``device``, of networks that know the ``classes`` of the data."""

    @abstractmethod
    def running(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Scores of a training batch, cheap ones: scalar sums over its samples, of 0 to 1 each, by name."""

    def check(self, labels: np.ndarray, split: str) -> None:
        """See that the samples of a split with these ``labels`` (of `Samples`) are of this task.

        Raises:
            UsageError: they are not; with what to set.
        """

    def check_data(self, data: DataConfig) -> None:
        """See that images are shown as the task can follow.

        Raises:
            UsageError: they are not; with what to set.
        """

    @abstractmethod
    def chance(self, labels: np.ndarray) -> float:
        """The primary score of a network that guesses, for samples with these ``labels`` (of `Samples`), percent."""


_REGISTRY: Registry[Task] = Registry("task")
task = _REGISTRY.register


def get(name: str, options: Mapping[str, Value] | None = None) -> Task:
    """The task called ``name`` with its ``options``.

    Raises:
        UsageError: there is none, near names are given; or it has no such options.
    """
    return _REGISTRY.made(name, options or {}, name_key="task", options_key="task_options")
