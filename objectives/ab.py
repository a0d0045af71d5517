"""Activation boundaries. B samples, C channels, H x W pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from objectives.contract import NOT_NEGATIVE, objective
from objectives.layers import Maps, pointwise, same_size, where_channels_differ
from objectives.numerics import summed


@objective(reads="stages_pre", margin=NOT_NEGATIVE)
class Ab(nn.Module):
    """The student's neurons are active where the teacher's are; a stage counts half of the next one.

    Heo et al., AAAI 2019, arXiv 1811.03233, equation 6, on the maps before their ReLUs. A 1 x 1 convolution and batch
    norm bring the student to other channels. Averaged over B, summed over the rest. RepDistiller trains with 0.003
    times this alone for 30 epochs, then with cross-entropy alone.

    Args:
        student: an example of the maps [B, C_s, H, W], shallow to deep.
        teacher: likewise.
        margin: how far over the boundary a neuron should be.
    """

    def __init__(self, student: Maps, teacher: Maps, *, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin
        self.connectors = where_channels_differ(student, teacher, pointwise)

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        pairs = [same_size(connector(s), t) for connector, s, t in zip(self.connectors, student, teacher)]
        losses = [boundary_distance(s, t, self.margin) for s, t in pairs]
        return summed(loss / 2 ** (len(losses) - 1 - number) for number, loss in enumerate(losses))


def boundary_distance(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Squared distance to ``margin`` beyond zero where one of the two is active and the other not.

    Averaged over B, summed over the rest; see `Ab`.

    Args:
        student: [B, C, H, W], before its ReLU.
        teacher: likewise.
        margin: towards the teacher's side.

    Returns:
        Scalar.
    """
    with torch.no_grad():
        target = torch.where(teacher > 0, student.clamp(min=margin), student.clamp(max=-margin))
    return (student - target).square().sum() / len(student)
