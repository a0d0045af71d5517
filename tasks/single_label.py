"""One class an image. B samples, K classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dataset.feed.targets import Labels
from dataset.store.record import UNLABELLED, is_unlabelled
from tasks.contract import Task, task
from utils.errors import UsageError
from utils.text import counted

if TYPE_CHECKING:
    from torch import Tensor, device

    from dataset.feed.batch import Batch
    from evaluation.topk import TopK
    from models.outputs import Outputs


@task("single_label")
class SingleLabel(Task):
    """Top-1 and top-5 accuracy; cross-entropy."""

    primary = "top1"
    hard_loss = "cross_entropy"
    running_scores = ("top1",)

    def targets(self, classes: Sequence[str]) -> Labels:
        """Labels below the number of classes."""
        return Labels(len(classes))

    def check(self, labels: np.ndarray, split: str) -> None:
        """Refuse images of several classes, and labels for some of the images alone."""
        if labels.ndim != 1:
            raise UsageError(
                f"{split} holds several classes an image: set task=multi_label, or task=detection where they are in "
                "boxes, or pack other data"
            )
        lacking = int((labels == UNLABELLED).sum())
        if 0 < lacking < len(labels):
            raise UsageError(
                f"{split}: {counted(lacking, 'image')} of {len(labels):,} without a label: all of a split have one, or "
                "none"
            )

    def metrics(self, device: device, classes: Sequence[str]) -> TopK:
        """Top-1, top-5 and cross-entropy."""
        from evaluation.topk import TopK

        return TopK(device)

    def running(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """How many are classified correctly; nan without labels."""
        if "labels" not in batch.targets:
            return {"top1": outputs.logits.new_full((), math.nan)}
        return {"top1": (outputs.logits.argmax(1) == batch.targets["labels"]).sum()}

    def chance(self, labels: np.ndarray) -> float:
        """One of the classes that occur; nan without labels."""
        return math.nan if is_unlabelled(labels) else 100 / len(np.unique(labels))
