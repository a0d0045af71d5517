"""Activation boundaries. B samples, C channels, H x W pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from objectives.contract import NOT_NEGATIVE, objective
from objectives.maps import Maps, boundary_distance, same_size


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
        self.connectors = nn.ModuleList(
            nn.Identity()
            if s.shape[1] == t.shape[1]
            else nn.Sequential(nn.Conv2d(s.shape[1], t.shape[1], 1, bias=False), nn.BatchNorm2d(t.shape[1]))
            for s, t in zip(student, teacher)
        )

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        pairs = [same_size(connector(s), t) for connector, s, t in zip(self.connectors, student, teacher)]
        losses = [boundary_distance(s, t, self.margin) for s, t in pairs]
        return torch.stack([loss / 2 ** (len(losses) - 1 - number) for number, loss in enumerate(losses)]).sum()
