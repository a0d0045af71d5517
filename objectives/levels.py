"""Objectives on the levels of detectors: the maps that their heads look at.

Levels of student and teacher come in pairs of one stride. B images, C channels, H x W locations. Whole maps are
compared, as published: also the zeros that surround images which are smaller than others of their batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from objectives.contract import POSITIVE, SHARE, objective
from objectives.layers import Maps, conv1x1, generator, resized, same_size, where_channels_differ
from objectives.numerics import centred, in_float64, summed, unit


@objective(reads="levels")
def pkd(student: Maps, teacher: Maps) -> Tensor:
    """One minus the Pearson correlation of each channel, averaged over channels and summed over levels.

    Over all locations of the batch: equal to half the mean squared distance of channels with mean 0 and standard
    deviation 1. Cao et al., NeurIPS 2022, arXiv 2207.02039, section 3. A channel that is constant correlates
    with nothing and has no gradient; it counts 1/2 beside one that is not. Published on COCO, for the first four levels
    of each detector: weight 6 where the teacher has two stages, 10 where it has one.

    Args:
        student: maps [B, C, H, W], brought to the teacher's size by bilinear interpolation where that is another one.
        teacher: maps [B, C, H', W'].

    Returns:
        Scalar.

    Raises:
        ValueError: the channels differ.
    """
    channels = [(s.shape[1], t.shape[1]) for s, t in zip(student, teacher)]
    if any(ours != theirs for ours, theirs in channels):
        raise ValueError(
            f"pkd compares levels of equal channels, not {channels} of student and teacher: cwd, mgd, fgd and "
            f"reviewkd_levels bring them together"
        )
    pairs = ((_standard(resized(s, t)), _standard(t)) for s, t in zip(student, teacher))
    return summed((s - t).square().sum() / (2 * t.shape[1]) for s, t in pairs)


def _standard(x: Tensor) -> Tensor:
    """Each channel of a map [B, C, H, W] with mean 0 and length 1."""
    over = (0, 2, 3)
    return unit(centred(x, over), over)


@objective(reads="levels", temperature=POSITIVE)
class Cwd(nn.Module):
    """Channel-wise: divergence of each channel's softmax over locations from the teacher's, times T^2.

    Averaged over images and channels, summed over levels. Shu et al., ICCV 2021, arXiv 2011.13256, section 3.2.
    A 1 x 1 convolution brings the student's maps to the teacher's channels where those differ; the larger of a pair is
    average-pooled to the smaller. Published on COCO: T = 1, weight 10.

    Args:
        student: an example of the maps [B, C_s, H, W].
        teacher: likewise [B, C_t, H', W'].
        temperature: T.
    """

    def __init__(self, student: Maps, teacher: Maps, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.connectors = where_channels_differ(student, teacher, conv1x1)
        self.temperature = temperature

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        pairs = (same_size(connector(s), t) for s, t, connector in zip(student, teacher, self.connectors))
        return summed(_divergence(s, t, self.temperature) for s, t in pairs)


@in_float64
def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Of two maps [B, C, H, W]; scalar."""
    s, t = (x / temperature - (x / temperature).logsumexp((2, 3), keepdim=True) for x in (student, teacher))
    return temperature**2 * (t.exp() * (t - s)).sum((2, 3)).mean()


@objective(reads="levels", masked=SHARE)
class Mgd(nn.Module):
    """Masked generation: the teacher's map, made of a student's with locations missing at random.

    Squared distance of the maps, summed over channels, locations and levels, averaged over images. Two 3 x 3
    convolutions with a ReLU between them make the map. Yang et al., ECCV 2022, arXiv 2205.01529, section 3. A
    1 x 1 convolution brings the student's maps to the teacher's channels where those differ; the larger of a pair is
    average-pooled to the smaller. Published on COCO: weight 2e-5 for one-stage detectors; 5e-7 with 0.45 masked for
    two-stage ones.

    Args:
        student: an example of the maps [B, C_s, H, W].
        teacher: likewise [B, C_t, H', W'].
        masked: share of the locations that are missing, of all channels alike; drawn anew at each pass by torch.
    """

    def __init__(self, student: Maps, teacher: Maps, *, masked: float = 0.65) -> None:
        super().__init__()
        self.connectors = where_channels_differ(student, teacher, conv1x1)
        self.generators = nn.ModuleList(generator(t.shape[1]) for t in teacher)
        self.masked = masked

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        losses = []
        for s, t, connector, made in zip(student, teacher, self.connectors, self.generators):
            s, t = same_size(connector(s), t)
            kept = torch.rand_like(s[:, :1]) >= self.masked  # [B, 1, H, W]
            losses.append((made(s * kept) - t).square().sum() / len(t))
        return summed(losses)
