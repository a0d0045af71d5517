"""Several classes an image, or none. B samples, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from dataset.feed.targets import Present
from evaluation.average_precision import KINDS
from tasks.contract import Task, task
from utils.errors import UsageError
from utils.settings import Range

if TYPE_CHECKING:
    from torch import Tensor, device

    from dataset.feed.batch import Batch
    from evaluation.multi_label import MultiLabel as Scores
    from models.outputs import Outputs


@task("multi_label", threshold=Range(0, 1))
@dataclass(frozen=True, kw_only=True)
class MultiLabel(Task):
    """Mean average precision, and precision, recall and F1 at a threshold; binary cross-entropy.

    Attributes:
        threshold: probability from which a class counts as predicted.
        average_precision: which one: `step`, scikit-learn's; `positives`, the mean of the precision at each positive;
            `voc`, the area of VOC 2010 and later, or `voc07`, at eleven recalls: both without what is to be ignored.
    """

    primary: ClassVar[str] = "mAP"
    hard_loss: ClassVar[str] = "bce"
    running_scores: ClassVar[tuple[str, ...]] = ("F1",)
    logits: ClassVar[Literal["softmax", "sigmoid"]] = "sigmoid"
    threshold: float = 0.5
    average_precision: str = "step"

    def __post_init__(self) -> None:
        if self.average_precision not in KINDS:
            raise UsageError(f"task_options.average_precision={self.average_precision}: one of {', '.join(KINDS)}")

    def targets(self, classes: Sequence[str]) -> Present:
        """Which of the classes are present."""
        return Present(len(classes))

    def check(self, labels: np.ndarray, split: str) -> None:
        """Refuse a split that shows none of the classes."""
        if not (labels > 0 if labels.ndim == 2 else labels >= 0).any():
            raise UsageError(f"{split} shows none of the classes that are learned: nothing can be scored on it")

    def metrics(self, device: device, classes: Sequence[str]) -> Scores:
        """mAP, CF1, OF1 and what they are made of."""
        from evaluation.multi_label import MultiLabel as Scores

        return Scores(device, classes, threshold=self.threshold, average_precision=self.average_precision)

    def running(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """F1 of the classes of each image at the threshold; 1 where there are none and none is predicted."""
        predicted, present = outputs.logits.sigmoid() >= self.threshold, batch.targets["present"] != 0
        named = predicted.sum(1) + present.sum(1)  # [B]
        return {"F1": (2 * (predicted & present).sum(1) / named).nan_to_num(1).sum()}

    def chance(self, labels: np.ndarray) -> float:
        """The share of the images that show a class, averaged over the classes that occur."""
        shares = (_by_class(labels) != 0).mean(axis=0)
        return 100 * float(shares[shares > 0].mean()) if shares.any() else 0.0


def _by_class(labels: np.ndarray) -> np.ndarray:
    """[N, C] of labels [N], or as they are."""
    return labels if labels.ndim == 2 else labels[:, None] == np.unique(labels)
