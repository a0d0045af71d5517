"""Averages of a student's weights: one that moves with every step, and one of some epochs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from models.zoo import Network
from utils.errors import UsageError, in_one_line

Tensors = tuple[Tensor, ...] | list[Tensor]


class Average(AveragedModel):
    """A copy of a network that averages its weights and statistics; what is counted, as batches are, is the latest.

    Args:
        network: a copy is made of.
        decay: of a moving average; of all values when not given.

    Raises:
        UsageError: the network holds something that cannot be copied.
    """

    module: Network

    def __init__(self, network: Network, decay: float | None = None) -> None:
        @torch.no_grad()
        def update(averages: Tensors, values: Tensors, count: Tensor | int) -> None:  # all of one type
            if averages[0].is_floating_point():
                torch._foreach_lerp_(averages, values, 1 / (int(count) + 1) if decay is None else 1 - decay)
            else:
                torch._foreach_copy_(averages, values)

        try:
            super().__init__(network, multi_avg_fn=update, use_buffers=True)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except (RuntimeError, TypeError) as error:  # one of the user's own holds a lock, a generator, ...
            raise UsageError(
                "train_params.ema_decay and average_last need a copy of the student, which cannot be copied "
                f"({in_one_line(error)}): set neither, or hold nothing of the kind in it"
            ) from None
        self.eval()
