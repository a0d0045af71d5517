"""Knowledge review. B samples, C channels, H x W pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import COUNT, objective
from objectives.layers import Maps, normalised
from objectives.numerics import summed


@objective(reads="stages", channels=COUNT)
class ReviewKD(nn.Module):
    """The student's deep stages are fused into its shallow ones, and each fusion is compared with the teacher's stage.

    Chen et al., CVPR 2021, arXiv 2104.09044, sections 3.2 (attention based fusion) and 3.3 (`hcl`). The levels are the
    paired stages and the pooled features. Published: on CIFAR-100 weight 5 for most pairs, from 0.6 to 8, growing over
    20 epochs; on ImageNet `reviewkd_pre`, weight 1 (R34 to R18) or 8 with `channels` 256 (R50 to MobileNetV1).

    Args:
        student: an example of the maps [B, C_s, H_s, W_s], shallow to deep.
        student_pooled: an example [B, D_s].
        teacher_stages_pre: an example of the maps before their ReLUs, [B, C_t, H_t, W_t].
        teacher_pooled: an example [B, D_t].
        channels: most inside a fusion.
    """

    def __init__(
        self,
        student: Maps,
        student_pooled: Tensor,
        teacher_stages_pre: Maps,
        teacher_pooled: Tensor,
        *,
        channels: int = 512,
    ) -> None:
        super().__init__()
        middle = min(channels, student_pooled.shape[1])
        self.fusions = _fusions([*student, student_pooled], [*teacher_stages_pre, teacher_pooled], middle)

    def forward(
        self, student: Maps, student_pooled: Tensor, teacher_stages_pre: Maps, teacher_pooled: Tensor
    ) -> Tensor:
        """Scalar, of maps [B, C, H, W] and pooled features [B, D]."""
        ours = [*student, student_pooled[:, :, None, None]]
        theirs = [*teacher_stages_pre, teacher_pooled[:, :, None, None]]
        return _reviewed(self.fusions, ours, theirs)


@objective("reviewkd_pre", reads="stages_pre", channels=COUNT)
class ReviewKDPre(ReviewKD):
    """`ReviewKD` of the student's maps before their ReLUs, as its ImageNet recipes have it."""


@objective("reviewkd_levels", reads="levels", channels=COUNT)
class ReviewKDLevels(nn.Module):
    """`ReviewKD` over the levels of detectors in place of stages, without pooled features.

    Chen et al., CVPR 2021, arXiv 2104.09044, section 4.2. Whole maps are compared, with the zeros that surround images
    of a batch. Published for COCO (MDistiller): weight 1.2 for R101 to R18, 1 for R101 to R50 and 2 for R50 to
    MobileNetV2.

    Args:
        student: an example of the maps [B, C_s, H, W], by rising stride.
        teacher: likewise [B, C_t, H', W'].
        channels: inside a fusion.
    """

    def __init__(self, student: Maps, teacher: Maps, *, channels: int = 256) -> None:
        super().__init__()
        self.fusions = _fusions(student, teacher, channels)

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        return _reviewed(self.fusions, student, teacher)


def hcl(student: Maps, teacher: Maps) -> Tensor:
    """Hierarchical context loss: mean squared distances of the maps and of their averages over 4 x 4, 2 x 2 and 1 x 1.

    Chen et al., CVPR 2021, arXiv 2104.09044, section 3.3. Levels of the pyramid have weights 1, 1/2, 1/4, 1/8 of those
    that are smaller than the map, divided by their sum; stages are summed.

    Args:
        student: maps [B, C, H, W].
        teacher: maps of the same shapes.

    Returns:
        Scalar.
    """

    def pyramid(s: Tensor, t: Tensor) -> Tensor:
        gap = s - t
        gaps = [gap, *(F.adaptive_avg_pool2d(gap, size) for size in (4, 2, 1) if size < s.shape[2])]
        weights = [0.5**number for number in range(len(gaps))]
        return summed(weight * x.square().sum() / x.numel() for weight, x in zip(weights, gaps)) / sum(weights)

    return summed(pyramid(s, t) for s, t in zip(student, teacher))


def _fusions(student: Maps, teacher: Maps, middle: int) -> nn.ModuleList:
    """One for each level, of examples [B, C, ...] of what comes in and of what it is compared with."""
    deepest = len(student) - 1
    return nn.ModuleList(
        Fusion(s.shape[1], middle, t.shape[1], deepest=number == deepest)
        for number, (s, t) in enumerate(zip(student, teacher))
    )


def _reviewed(fusions: nn.ModuleList, student: Maps, teacher: Maps) -> Tensor:
    """The student's maps [B, C, H, W] fused from the deepest up, each compared with the teacher's; scalar."""
    fused, compared = None, []
    for x, t, fusion in reversed(list(zip(student, teacher, fusions))):
        fused, output = fusion(x, fused, t.shape[2:])
        compared.append(output)
    return hcl(compared, teacher[::-1])


class Fusion(nn.Module):
    """One level: its map and what came from the deeper one, weighted by attention; then the teacher's channels."""

    def __init__(self, channels_in: int, middle: int, channels: int, *, deepest: bool) -> None:
        super().__init__()
        narrow = nn.Conv2d(channels_in, middle, 1, bias=False)
        widen = nn.Conv2d(middle, channels, 3, padding=1, bias=False)
        for conv in (narrow, widen):
            nn.init.kaiming_uniform_(conv.weight, a=1)
        self.enter = normalised(narrow)
        self.attention = None if deepest else nn.Conv2d(2 * middle, 2, 1)
        self.leave = normalised(widen)

    def forward(self, x: Tensor, deeper: Tensor | None, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """x: [B, C, H, W]; deeper: [B, middle, H', W'], none at the deepest; size: of the teacher's map.

        Returns:
            What goes on to the next level, [B, middle, *size], and what is compared, [B, channels, *size].
        """
        x = self.enter(x)
        if self.attention is not None and deeper is not None:
            x = _attended(x, deeper, self.attention)
        if x.shape[2:] != size:
            x = F.interpolate(x, tuple(size), mode="nearest")
        return x, self.leave(x)


def _attended(x: Tensor, deeper: Tensor, attention: nn.Conv2d) -> Tensor:
    """Sum of x [B, C, H, W] and deeper [B, C, H', W'], enlarged, weighted by the attention to both; [B, C, H, W].

    The attention is a 1 x 1 convolution of the two side by side; what it makes of the deeper one is enlarged, not that.
    """
    to_x, to_deeper = attention.weight.chunk(2, 1)  # [2, C, 1, 1]
    deeper_logits = F.interpolate(F.conv2d(deeper, to_deeper), x.shape[2:], mode="nearest")
    weights = (F.conv2d(x, to_x, attention.bias) + deeper_logits).sigmoid()  # [B, 2, H, W]
    return torch.addcmul(x * weights[:, :1], F.interpolate(deeper, x.shape[2:], mode="nearest"), weights[:, 1:])
