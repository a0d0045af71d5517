"""Objectives that make the teacher's map of a part of the student's. B samples, C channels, H x W pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from objectives.contract import NOT_NEGATIVE, SHARE, Range, objective
from objectives.layers import Maps, conv1x1, generator, same_size, where_channels_differ
from objectives.numerics import summed


@objective("mgd_last", reads="last", masked=SHARE)
class MgdLast(nn.Module):
    """Masked generation for classifiers: the teacher's last map, made of the student's with channels missing at random.

    Squared distance of the maps, summed over channels and pixels, averaged over images. Two 3 x 3 convolutions with a
    ReLU between them make the map. Yang et al., ECCV 2022, arXiv 2205.01529, section 3; that channels are missing, and
    not pixels, is the authors' code for classifiers. `mgd` is that for detectors. A 1 x 1 convolution brings the
    student's map to the teacher's channels where those differ; the larger map is average-pooled to the smaller.
    Published on ImageNet: weight 7e-5.

    Args:
        student: an example of the last map [B, C_s, H, W].
        teacher: likewise [B, C_t, H', W'].
        masked: share of the channels that are missing, drawn anew at each pass by torch.
        by_pixels: pixels are missing, of all channels alike, as the paper has it.
    """

    def __init__(self, student: Tensor, teacher: Tensor, *, masked: float = 0.15, by_pixels: bool = False) -> None:
        super().__init__()
        self.connector = where_channels_differ([student], [teacher], conv1x1)[0]
        self.generator = generator(teacher.shape[1])
        self.masked, self.by_pixels = masked, by_pixels

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        student, teacher = same_size(self.connector(student), teacher)
        one_each = student[:, :1] if self.by_pixels else student[:, :, :1, :1]
        kept = torch.rand_like(one_each) >= self.masked
        return (self.generator(student * kept) - teacher).square().sum() / len(teacher)


@objective(reads="stages", masked=Range(above=0, most=1), generation=NOT_NEGATIVE)
class ViTKD(nn.Module):
    """Of transformers: shallow stages are mimicked, the deepest is made of the student's with tokens missing at random.

    Yang et al., 2022, ViTKD: practical guidelines for ViT feature knowledge distillation, arXiv 2209.02432. Squared
    distances of the shallow stages, summed over tokens and dimensions; plus, times ``generation`` and over the share
    that is missing, those of the missing tokens of the deepest one, which two 3 x 3 convolutions with a ReLU between
    them make, a trained token in place of each. Averaged over images; class tokens are left out. Linear layers bring
    the student's tokens to the teacher's dimensions where those differ. Published on ImageNet: weight 3e-5.

    The paper compares the first two blocks and the last: `taps` of both networks name those as stages, such as
    `{"stage1": "blocks.0", "stage2": "blocks.1"}` of timm's, and `stages` of the term leaves out the third quarter.

    Args:
        student: an example of the stages [B, C_s, H, W], shallow to deep.
        teacher: likewise [B, C_t, H', W'].
        masked: share of the tokens that are missing, drawn anew at each pass by torch.
        generation: weight of the deepest stage beside the shallow ones.
    """

    def __init__(self, student: Maps, teacher: Maps, *, masked: float = 0.5, generation: float = 0.1) -> None:
        super().__init__()
        channels = teacher[-1].shape[1]
        self.connectors = where_channels_differ(student, teacher, conv1x1)
        self.token = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.generator = generator(channels)
        self.masked, self.generation = masked, generation

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        pairs = [same_size(connector(s), t) for s, t, connector in zip(student, teacher, self.connectors)]
        ours, theirs = pairs.pop()
        missing = self.missing(ours)
        made = self.generator(torch.where(missing, self.token, ours))
        generated = ((made - theirs) * missing).square().sum() / self.masked
        mimicked = [(s - t).square().sum() for s, t in pairs]
        return summed([*mimicked, self.generation * generated]) / len(theirs)

    def missing(self, x: Tensor) -> Tensor:
        """Which tokens of [B, C, H, W] are missing, as many of each sample; bool [B, 1, H, W]."""
        tokens = x.shape[2] * x.shape[3]
        order = torch.rand(len(x), tokens, device=x.device).argsort(1).argsort(1)
        return (order >= int(round(tokens * (1 - self.masked), 6))).view(len(x), 1, *x.shape[2:])
