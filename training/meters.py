"""Running sums on the device, read only when they are shown, so that no step waits for the host."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.distributed import all_sum, any_rank, gather
from utils.errors import Diverged


class Meters:
    """Means of the loss, its terms and top-1 since they were last read, and the first step that was not finite."""

    def __init__(self, terms: list[str], device: torch.device) -> None:
        self._names = ["loss", *terms]
        self._sums = torch.zeros(len(self._names) + 2, dtype=torch.float64, device=device)  # ..., correct, images
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self._bad_values = torch.zeros(len(self._names), device=device)
        self._sound: dict[str, Tensor] = {}  # whether each teacher's logits were finite then

    @torch.no_grad()
    def add(self, outputs: dict[str, Tensor], labels: Tensor, step: int) -> None:
        """Take in the outputs of the facade for B samples; labels: int64 [B]."""
        values = torch.stack([outputs[name].detach().float() for name in self._names])
        correct = (outputs["logits"].argmax(1) == labels).sum()
        images = torch.full_like(correct, len(labels))
        self._sums += torch.cat([values.double() * len(labels), torch.stack([correct, images])])
        first = (self._bad_step < 0) & ~values[0].isfinite()
        self._bad_values = torch.where(first, values, self._bad_values)
        for name in (name for name in outputs if name.startswith("teachers.")):
            self._sound[name] = torch.where(first, outputs[name], self._sound.get(name, outputs[name]))
        self._bad_step = torch.where(first, step, self._bad_step)

    def state(self) -> Tensor:
        """The sums over all ranks, to be saved."""
        return all_sum(self._sums.clone()).cpu()

    def restore(self, sums: Tensor, rank: int) -> None:
        """Take up saved sums; rank 0 holds those of all."""
        self._sums.copy_(sums if rank == 0 else torch.zeros_like(sums))

    def read(self) -> dict[str, float]:
        """The means over all ranks; starts afresh."""
        *sums, correct, images = all_sum(self._sums.clone()).tolist()
        self._sums.zero_()
        return {**{name: value / images for name, value in zip(self._names, sums)}, "top1": 100 * correct / images}

    def raise_if_diverged(self) -> None:
        """Agree over the ranks whether the loss was always finite.

        Raises:
            Diverged: naming the first bad step and its terms.
        """
        step = int(self._bad_step)
        if not any_rank(step >= 0):
            return
        shown = [f"{name} {value:g}" for name, value in zip(self._names, self._bad_values.tolist())]
        broken = [name for name, sound in self._sound.items() if not sound]
        reports = [report for report in gather((step, ", ".join(shown), broken)) if report[0] >= 0]
        step, values, broken = min(reports)
        if broken:
            raise Diverged(
                f"{' and '.join(broken)} gives logits that are not finite at step {step}: check its weights, mean and "
                "std, or use bf16 in place of fp16"
            )
        raise Diverged(
            f"the loss is not finite at step {step}: {values}. The last checkpoint, if there is one, is from before. "
            "Go on with train_params.amp=bf16 in place of fp16, or with a lower optim.init_lr, optim.warmup_epochs or "
            "optim.grad_clip in a new run"
        )
