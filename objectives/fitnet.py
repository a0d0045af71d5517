"""Hints (FitNets). B samples, C channels, H x W pixels."""

from __future__ import annotations

from torch import Tensor, nn

from objectives.contract import COUNT, objective
from objectives.layers import Maps, normalised
from objectives.numerics import mean_squared_distance


@objective(reads="stages", hint=COUNT)
class FitNet(nn.Module):
    """Mean squared distance of one stage of the teacher and a regression of the student's.

    Romero et al., ICLR 2015, arXiv 1412.6550, equation 3. The regressor is a convolution that fits the sizes, batch
    norm and ReLU, as in RepDistiller and MDistiller, whose weight is 100 beside cross-entropy in a single run. The
    paper trains up to the hint first, and then with KD.

    Args:
        student: an example of the maps [B, C_s, H_s, W_s], shallow to deep.
        teacher: likewise.
        hint: number of the pair of stages, from 1; the deepest where there are fewer.

    Raises:
        ValueError: the student's map is smaller than the teacher's, and not by half.
    """

    def __init__(self, student: Maps, teacher: Maps, *, hint: int = 2) -> None:
        super().__init__()
        self.pair = min(hint, len(student)) - 1
        self.regressor = regressor(student[self.pair], teacher[self.pair])

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        return mean_squared_distance(self.regressor(student[self.pair]), teacher[self.pair])


def regressor(student: Tensor, teacher: Tensor) -> nn.Sequential:
    """A convolution from the student's shape [B, C_s, H_s, W_s] to the teacher's, batch norm and ReLU.

    Raises:
        ValueError: the student's map is smaller than the teacher's, and not by half.
    """
    channels, ours, theirs = (student.shape[1], teacher.shape[1]), student.shape[2], teacher.shape[2]
    conv: nn.Conv2d | nn.ConvTranspose2d
    if ours == 2 * theirs:
        conv = nn.Conv2d(*channels, 3, 2, 1)
    elif 2 * ours == theirs:
        conv = nn.ConvTranspose2d(*channels, 4, 2, 1)
    elif ours >= theirs:
        conv = nn.Conv2d(*channels, 1 + ours - theirs)
    else:
        raise ValueError(f"a map of {ours} x {ours} pixels cannot be brought to {theirs} x {theirs}")
    return normalised(conv, nn.ReLU())
