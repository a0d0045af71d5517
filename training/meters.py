"""Running sums on the device, read only when they are shown, so that no step waits for the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dataset.feed.batch import Batch
from knowledge_distiller import Distilled
from tasks import Task
from utils.distributed import all_sum, any_rank, gather
from utils.errors import Diverged


class Meters:
    """Means of the loss, its terms and the task's scores since they were last read, and the first step that diverged.

    Args:
        terms: their names.
        task: whose running scores are kept.
        device: where the sums are.
    """

    def __init__(self, terms: Sequence[str], task: Task, device: torch.device) -> None:
        self._terms, self._task, self._scores = ["loss", *terms], task, tuple(task.running_scores)
        self._sums = torch.zeros(len(self._terms) + len(self._scores) + 1, dtype=torch.float64, device=device)
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self._bad_values = torch.zeros(len(self._terms), device=device)
        self._sound: dict[str, Tensor] = {}  # whether what each teacher gave was finite then

    @torch.no_grad()
    def add(self, given: Distilled, batch: Batch, step: int) -> None:
        """Add what the facade gave for a batch."""
        values = torch.stack([value.detach().float() for value in (given.loss, *given.values.values())])
        scores = self._task.running(given.student, batch)
        images = torch.full((), len(batch.index), device=values.device)
        self._sums += torch.cat(
            [values.double() * images, torch.stack([*(scores[name] for name in self._scores), images])]
        )
        first = (self._bad_step < 0) & ~values[0].isfinite()
        self._bad_values = torch.where(first, values, self._bad_values)
        for name, sound in given.sound.items():
            self._sound[name] = torch.where(first, sound, self._sound.get(name, sound))
        self._bad_step = torch.where(first, step, self._bad_step)

    def state(self) -> Tensor:
        """The sums over all ranks, to be saved."""
        return all_sum(self._sums.clone()).cpu()

    def restore(self, sums: Tensor, rank: int) -> None:
        """Restore saved sums; rank 0 holds those of all."""
        self._sums.copy_(sums if rank == 0 else torch.zeros_like(sums))

    def read(self) -> dict[str, float]:
        """The means over all ranks, scores in percent; starts afresh."""
        *sums, images = all_sum(self._sums.clone()).tolist()
        self._sums.zero_()
        terms, scores = sums[: len(self._terms)], sums[len(self._terms) :]
        means = {name: value / images for name, value in zip(self._terms, terms)}
        return {**means, **{name: 100 * value / images for name, value in zip(self._scores, scores)}}

    def raise_if_diverged(self) -> None:
        """Agree over the ranks whether the loss was always finite.

        Raises:
            Diverged: naming the first bad step and its terms.
        """
        step = int(self._bad_step)
        if not any_rank(step >= 0):
            return
        shown = [f"{name} {value:g}" for name, value in zip(self._terms, self._bad_values.tolist())]
        broken = [f"teachers.{name}" for name, sound in self._sound.items() if not sound]
        reports = [report for report in gather((step, ", ".join(shown), broken)) if report[0] >= 0]
        step, values, broken = min(reports)
        if broken:
            raise Diverged(
                f"{' and '.join(broken)} gives outputs that are not finite at step {step}: check its weights, mean and "
                "std, or use bf16 in place of fp16"
            )
        raise Diverged(
            f"the loss is not finite at step {step}: {values}. The last checkpoint, if there is one, is from before. "
            "Resume with train_params.amp=bf16 where it is fp16, or begin a new run with a lower optim.init_lr, more "
            "optim.warmup_epochs, or an optim.grad_clip"
        )
