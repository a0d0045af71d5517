"""Flow of the solution procedure. B samples, C channels, H x W pixels."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from objectives.contract import objective
from objectives.layers import Maps, same_size, where_channels_differ
from objectives.numerics import summed


@objective(reads="stages")
class Fsp(nn.Module):
    """Mean squared distance of the Gram matrices between consecutive stages, summed.

    Yim et al., CVPR 2017, A gift from knowledge distillation, equations 1 and 2. Where a stage has other channels than
    the teacher's, which the paper leaves out, a 1 x 1 convolution brings it there. RepDistiller trains with this alone
    for 30 epochs, then with cross-entropy alone.

    Args:
        student: an example of the maps [B, C_s, H, W], shallow to deep.
        teacher: likewise.

    Raises:
        ValueError: there is one stage only.
    """

    def __init__(self, student: Maps, teacher: Maps) -> None:
        super().__init__()
        if len(student) < 2:
            raise ValueError("fsp compares consecutive stages: it needs two or more")
        self.connectors = where_channels_differ(student, teacher, partial(nn.Conv2d, kernel_size=1))

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        return flow_distance([connector(s) for connector, s in zip(self.connectors, student)], teacher)


def flow_distance(student: Maps, teacher: Maps) -> Tensor:
    """Mean squared distance of the Gram matrices between consecutive stages, summed; see `Fsp`.

    Args:
        student: maps [B, C, H, W].
        teacher: likewise, with the same channels.

    Returns:
        Scalar.
    """
    flows = ([_flow(*same_size(x, y)) for x, y in pairwise(maps)] for maps in (student, teacher))
    return summed((s - t).square().mean() for s, t in zip(*flows))


def _flow(x: Tensor, y: Tensor) -> Tensor:
    """[B, C, H, W], [B, D, H, W] -> [B, C, D]."""
    return x.flatten(2) @ y.flatten(2).mT / x[0, 0].numel()
