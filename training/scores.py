"""The scores that networks reach on the validation batches, in the precision that they are trained in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dataset.feed.batch import Batch
from dataset.loader import EvalLoader
from models.outputs import Outputs, Scene
from tasks import Metrics, Task
from teachers import scene_of
from training.settings import TrainConfig
from training.step import autocast
from utils.console import progress
from utils.distributed import Ranks


class Scorer:
    """The scores of a task over the validation batches of all ranks, of whatever gives outputs for images.

    Args:
        validation: batches of this rank.
        task: whose scores they are.
        params: how networks compute.
        classes: names of those that targets are of.
        ranks: this one among all.
    """

    _metrics: Metrics | None = None  # those of the last call

    def __init__(
        self, validation: EvalLoader, task: Task, params: TrainConfig, classes: Sequence[str], ranks: Ranks
    ) -> None:
        self._validation, self._task, self._params = validation, task, params
        self._classes, self._ranks = classes, ranks

    @torch.no_grad()
    def __call__(self, predict: Callable[[Tensor, Scene], Outputs], places: Tensor | None = None) -> dict[str, float]:
        """The scores of ``predict``, uint8 images [B, 3, H, W] and what is known of them -> outputs; on every rank.

        Where it knows some of the classes alone, ``places`` says which, int64 [K], in the order of its outputs.
        """
        known = self._classes if places is None else [self._classes[place] for place in places.tolist()]
        metrics = self._task.metrics(self._ranks.device, known)
        for batch in self._batches():
            with autocast(self._params, self._ranks.device):
                outputs = predict(batch.images["weak"], scene_of(batch))
            metrics.add(outputs, batch if places is None else batch.of_classes(places))
        self._metrics = metrics
        return metrics.compute()

    @torch.no_grad()
    def look(self, predict: Callable[[Tensor, Scene], object]) -> int:
        """Call ``predict`` for the images without scoring what it gives; how many there are on this rank."""
        images = 0
        for batch in self._batches():
            with autocast(self._params, self._ranks.device):
                predict(batch.images["weak"], scene_of(batch))
            images += len(batch.index)
        return images

    def _batches(self) -> Iterable[Batch]:
        bar = {"desc": "validation", "unit": "batch", "leave": False, "disable": not self._ranks.first}
        return progress(iterable=self._validation, total=len(self._validation), **bar)

    def write(self, folder: Path) -> None:
        """Write tables of the scores that were computed last to ``folder``, where the task has any."""
        assert self._metrics is not None
        self._metrics.write(folder)

    def write_predictions(self, folder: Path) -> None:
        """Write those tables, and what was predicted for each sample."""
        self.write(folder)
        assert self._metrics is not None
        self._metrics.write_predictions(folder, self._validation.samples.keys())
