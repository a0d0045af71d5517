"""What the scores of a task are. A task of your own derives its metrics from `Metrics`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import DataError

if TYPE_CHECKING:
    from dataset.feed.batch import Batch
    from models.outputs import Outputs


def check_seen(images: float) -> None:
    """Raises DataError where not one of the images of all ranks was seen."""
    if not images:
        raise DataError("not one validation image could be read: check the split with dataset/inspect_lmdb.py")


class Metrics(ABC):
    """Scores of a network, exact on any number of ranks: every sample counts once."""

    @abstractmethod
    def add(self, outputs: Outputs, batch: Batch) -> None:
        """Add what a network gives for a batch of this rank."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The scores over all ranks, the primary one first, and how many `images` they are of.

        Raises:
            DataError: there was not one image; on every rank.
        """

    def write(self, folder: Path) -> None:
        """Write tables of the scores that were computed last, such as those of each class; rank 0 calls it."""

    def write_predictions(self, folder: Path, keys: Sequence[str]) -> None:
        """Write what the network predicted for each sample, for tools of others; rank 0 calls it.

        Args:
            folder: where to.
            keys: of the samples, by their index.
        """
