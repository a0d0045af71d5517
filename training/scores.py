"""The scores that networks reach on the validation batches, in the precision that they are trained in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dataset.loader import EvalLoader
from models.outputs import Outputs
from tasks import Task
from training.settings import TrainConfig
from training.step import autocast
from utils.console import progress
from utils.distributed import Ranks

Scorer = Callable[[Callable[[Tensor], Outputs]], dict[str, float]]  # (uint8 images -> outputs) -> scores of the task


def scorer(validation: EvalLoader, task: Task, params: TrainConfig, ranks: Ranks) -> Scorer:
    """The scores of ``task`` over the ``validation`` batches of all ranks, of whatever gives outputs for images."""

    @torch.no_grad()
    def scores_of(predict: Callable[[Tensor], Outputs]) -> dict[str, float]:
        metrics = task.metrics(ranks.device)
        bar = {"desc": "validation", "unit": "batch", "leave": False, "disable": not ranks.first}
        for batch in progress(iterable=validation, total=len(validation), **bar):
            with autocast(params, ranks.device):
                outputs = predict(batch.images["weak"])
            metrics.add(outputs, batch)
        return metrics.compute()

    return scores_of
