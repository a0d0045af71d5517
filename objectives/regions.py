"""Objectives that apply the classifiers to the last feature maps. B samples, K classes, C channels, H x W pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import COUNT, POSITIVE, Range, objective
from objectives.layers import check_head
from objectives.logits import divergence
from objectives.numerics import in_float64, unit


@objective(reads="last", scales=Range(1, 8), temperature=POSITIVE)
class Sdd(nn.Module):
    """Scale decoupled distillation: `kd` for each region of the image, twice where it disagrees with the whole.

    A region's logits are the classifier's on its average features; the weight is 2 where the teacher is right on the
    region and wrong on the whole image, or the reverse. Wei et al., CVPR 2024, arXiv 2403.13512, equations 3 to 8.

    Args:
        student: an example of the last map [B, C_s, H_s, W_s].
        teacher: likewise.
        student_head_weight: an example [K, C_s].
        teacher_head_weight: an example [K, C_t].
        scales: the image is cut into 1, 2 x 2, 4 x 4, ... regions, so many times.
        temperature: T.

    Raises:
        ValueError: a network's classifier does not see its pooled map.
    """

    def __init__(
        self,
        student: Tensor,
        teacher: Tensor,
        student_head_weight: Tensor,
        teacher_head_weight: Tensor,
        *,
        scales: int = 3,
        temperature: float = 4.0,
    ) -> None:
        super().__init__()
        check_head("sdd", student, student_head_weight)
        check_head("sdd", teacher, teacher_head_weight)
        self.sizes = [2**scale for scale in range(scales)]
        self.temperature = temperature

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        student_head_weight: Tensor,
        student_head_bias: Tensor,
        teacher_head_weight: Tensor,
        teacher_head_bias: Tensor,
        labels: Tensor,
    ) -> Tensor:
        """Scalar, of maps [B, C, H, W], the classifiers' weights [K, C] and biases [K], and labels int64 [B]."""
        ours = self._logits(student, student_head_weight, student_head_bias)
        theirs = self._logits(teacher, teacher_head_weight, teacher_head_bias)
        return regional_kd(ours, theirs, labels, temperature=self.temperature)

    def _logits(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K, R], the whole image first."""
        pooled = torch.cat([F.adaptive_avg_pool2d(x, size).flatten(2) for size in self.sizes], 2)  # [B, C, R]
        return weight @ pooled + bias[:, None]


@in_float64
def regional_kd(student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL of each region, weighted as in `Sdd`, averaged over B and R.

    Args:
        student: logits [B, K, R], the whole image first.
        teacher: likewise.
        labels: int64 [B].
        temperature: T.

    Returns:
        Scalar.
    """
    right = teacher.argmax(1) == labels[:, None]  # [B, R]
    weight = 1 + (right != right[:, :1]).to(student.dtype)
    log_p, log_q = (F.log_softmax(z / temperature, 1) for z in (teacher, student))  # [B, K, R]
    return temperature**2 * (weight * divergence(log_p, log_q)).mean()


@objective(reads="last", resolution=COUNT)
class CatKD(nn.Module):
    """Mean squared distance of the class activation maps, average-pooled.

    Guo et al., CVPR 2023, Class attention transfer based knowledge distillation, equations 3 and 4; ``normalize``
    divides each class's map by its length. The authors' weights go from 0.5 to 600 by pair, for maps of 2 or 4 pixels a
    side, which they normalise where the networks differ in kind.

    Args:
        student: an example of the last map [B, C_s, H_s, W_s].
        teacher: likewise.
        student_head_weight: an example [K, C_s].
        teacher_head_weight: an example [K, C_t].
        resolution: of the pooled maps, pixels a side.
        normalize: compare directions.

    Raises:
        ValueError: a network's classifier does not see its pooled map.
    """

    def __init__(
        self,
        student: Tensor,
        teacher: Tensor,
        student_head_weight: Tensor,
        teacher_head_weight: Tensor,
        *,
        resolution: int = 2,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        check_head("catkd", student, student_head_weight)
        check_head("catkd", teacher, teacher_head_weight)
        self.resolution, self.normalize = resolution, normalize

    def forward(
        self, student: Tensor, teacher: Tensor, student_head_weight: Tensor, teacher_head_weight: Tensor
    ) -> Tensor:
        """Scalar, of maps [B, C, H, W] and the classifiers' weights [K, C]."""
        ours = torch.einsum("kc,bchw->bkhw", student_head_weight, student)
        theirs = torch.einsum("kc,bchw->bkhw", teacher_head_weight, teacher)
        return activation_distance(ours, theirs, resolution=self.resolution, normalize=self.normalize)


def activation_distance(student: Tensor, teacher: Tensor, *, resolution: int, normalize: bool) -> Tensor:
    """Of class activation maps, each [B, K, H, W] -> scalar; see `CatKD`."""
    ours, theirs = (F.adaptive_avg_pool2d(x, resolution).flatten(2) for x in (student, teacher))  # [B, K, pixels]
    if normalize:
        ours, theirs = unit(ours, 2), unit(theirs, 2)
    return F.mse_loss(ours, theirs)
