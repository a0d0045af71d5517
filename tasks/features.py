"""Features that are learned from a teacher's, without labels. B samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.contract import task
from tasks.single_label import SingleLabel
from utils.settings import Range

if TYPE_CHECKING:
    from torch import Tensor, device

    from dataset.feed.batch import Batch
    from evaluation.neighbours import Neighbours
    from models.outputs import Outputs


@task("features", nearest=Range(1))
@dataclass(frozen=True, kw_only=True)
class Features(SingleLabel):
    """How well the nearest neighbours of an image tell its class; the classifier of the student stays as it began.

    Labels are for the score alone, and of validation images; without them there is none, and the last student is the
    best.

    Attributes:
        nearest: how many neighbours vote.
    """

    nearest: int = 20
    primary = "knn"
    running_scores = ()
    reads = ("pooled",)

    def metrics(self, device: device, classes: Sequence[str]) -> Neighbours:
        """Top-1 of a vote of the nearest neighbours."""
        from evaluation.neighbours import Neighbours

        return Neighbours(device, self.nearest)

    def running(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Nothing: a batch is too few to look for neighbours in."""
        return {}
