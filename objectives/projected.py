"""Objectives on the last features through a trained projection of the student's. B samples, C channels, K classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import Range, objective
from objectives.layers import check_head, perceptron, pointwise, resized, same_size
from objectives.numerics import mean_squared_distance, unit


@objective(reads="last")
class Srrl(nn.Module):
    """Softmax regression: the teacher's classifier on the student's features gives the teacher's logits.

    Mean squared distance of the pooled features, and of the logits that the teacher's classifier gives for both. Yang
    et al., ICLR 2021, Knowledge distillation via softmax regression representation learning, equations 2 and 5. A 1 x 1
    convolution, batch norm and ReLU bring the student's map to the teacher's channels.

    Args:
        student: an example of the last map [B, C_s, H, W].
        teacher: likewise [B, C_t, H', W'].
        teacher_head_weight: [K, C_t].

    Raises:
        ValueError: the teacher's classifier does not see its pooled map.
    """

    def __init__(self, student: Tensor, teacher: Tensor, teacher_head_weight: Tensor) -> None:
        super().__init__()
        check_head("srrl", teacher, teacher_head_weight)
        self.connector = pointwise(student.shape[1], teacher.shape[1], nn.ReLU())

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        teacher_head_weight: Tensor,
        teacher_head_bias: Tensor,
    ) -> Tensor:
        """Scalar, of maps [B, C, H, W], the teacher's classifier [K, C_t] and its biases [K]."""
        ours, theirs = (x.mean((2, 3)) for x in (self.connector(student), teacher))  # [B, C_t]
        logits = [F.linear(x, teacher_head_weight, teacher_head_bias) for x in (ours, theirs)]
        return F.mse_loss(ours, theirs) + F.mse_loss(logits[0], logits[1])


@objective(reads="last")
class SimKd(nn.Module):
    """Mean squared distance of the last maps, of a student that ends with the teacher's classifier.

    Chen et al., Knowledge distillation with the reused teacher classifier, CVPR 2022, arXiv 2203.14001, equation 2;
    alone, without cross-entropy. `student.head.name=reused` gives the student the classifier and the projector in front
    of it. The larger map is average-pooled to the size of the smaller.

    Args:
        student: an example of the last map [B, C, H, W].
        teacher: likewise [B, C, H', W'].
        student_head_weight: [K, C].
        teacher_head_weight: [K, C].

    Raises:
        ValueError: the student's classifier is another one, or the teacher's does not see its pooled map.
    """

    def __init__(
        self, student: Tensor, teacher: Tensor, student_head_weight: Tensor, teacher_head_weight: Tensor
    ) -> None:
        super().__init__()
        check_head("simkd", teacher, teacher_head_weight)
        if student.shape[1] != teacher.shape[1] or not torch.equal(student_head_weight, teacher_head_weight):
            raise ValueError("simkd needs a student with the teacher's classifier: set student.head.name=reused")

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        return mean_squared_distance(*same_size(student, teacher))


@objective(reads="last")
class Ickd(nn.Module):
    """Inter-channel correlation: squared distance of the normalised Gram matrices of the channels, over C.

    Liu et al., ICCV 2021, Exploring inter-channel correlation for diversity-preserved knowledge distillation, equations
    2 to 4. A 1 x 1 convolution and batch norm bring the student's map to the teacher's channels. Rows have length one;
    averaged over B.

    Args:
        student: an example of the last map [B, C_s, H, W].
        teacher: likewise [B, C_t, H', W'].
    """

    def __init__(self, student: Tensor, teacher: Tensor) -> None:
        super().__init__()
        self.connector = pointwise(student.shape[1], teacher.shape[1])

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        student, teacher = same_size(self.connector(student), teacher)
        ours, theirs = (x.flatten(2) @ x.flatten(2).mT for x in (student, teacher))  # [B, C, C]
        ours, theirs = unit(ours, 2, least=1e-5), unit(theirs, 2)  # batch norm enlarges the rounding of constant maps
        return (ours - theirs).square().sum((1, 2)).mean() / ours.shape[1]


@objective(reads="pooled", power=Range(1))
class Srd(nn.Module):
    """Log of the summed powers of the distances between a projection and the teacher's features, both batch-normalised.

    Miles and Mikolajczyk, AAAI 2024, Understanding the role of the projector in knowledge distillation, arXiv
    2303.11098, section 3: log sum |z_s - z_t|^4. Published on ImageNet: weight 2 beside `cross_entropy` and `kd` at
    T = 1.

    Args:
        student: an example [B, D_s].
        teacher: likewise [B, D_t].
        power: of the distances.
    """

    def __init__(self, student: Tensor, teacher: Tensor, *, power: float = 4.0) -> None:
        super().__init__()
        self.projector = nn.Linear(student.shape[1], teacher.shape[1])
        self.norms = nn.ModuleList(nn.BatchNorm1d(teacher.shape[1], eps=1e-4, affine=False) for _ in range(2))
        self.power = power

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar, of [B, D_s] and [B, D_t]."""
        distances = (self.norms[0](self.projector(student)) - self.norms[1](teacher)).abs()
        return distances.pow(self.power).sum().clamp(min=1e-8).log()  # whose gradient has no bound at zero


@objective("feature_distance", reads="pooled")
class FeatureDistance(nn.Module):
    """Distance of a projection of the pooled features to the teacher's, without labels and without logits.

    Ranzinger et al., AM-RADIO, CVPR 2024, arXiv 2312.06709, section 3: the cosine distance 1 - cos(f(z_s), z_t) of what
    sums up an image, averaged over B; `mse` is the mean squared distance in its place. f is linear, or `mlp`: two
    linear layers with layer norm and GELU between them, as wide as the teacher's features.

    Args:
        student: an example [B, D_s].
        teacher: likewise [B, D_t].
        distance: cosine or mse.
        projector: linear or mlp.

    Raises:
        ValueError: there is no such distance or projector.
    """

    def __init__(
        self, student: Tensor, teacher: Tensor, *, distance: str = "cosine", projector: str = "linear"
    ) -> None:
        super().__init__()
        self.distance = _distance(distance)
        self.projector = _projector(projector, student.shape[1], teacher.shape[1])

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar, of [B, D_s] and [B, D_t]."""
        return self.distance(self.projector(student), teacher)


@objective("map_distance", reads="last")
class MapDistance(FeatureDistance):
    """As `feature_distance`, of the last maps, at each location of the teacher's, such as the patches of a transformer.

    Ranzinger et al., AM-RADIO, CVPR 2024, arXiv 2312.06709, section 3. The student's map is projected, and brought to
    the height and width of the teacher's by bilinear interpolation.

    Args:
        student: an example of the last map [B, C_s, H, W].
        teacher: likewise [B, C_t, H', W'].
        distance: cosine or mse.
        projector: linear or mlp.

    Raises:
        ValueError: there is no such distance or projector.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar, of maps [B, C_s, H, W] and [B, C_t, H', W']."""
        projected = self.projector(student.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # [B, C_t, H, W]
        return self.distance(resized(projected, teacher).permute(0, 2, 3, 1), teacher.permute(0, 2, 3, 1))


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """1 - cos of vectors [..., D], on the average; scalar."""
    return 1 - (unit(x, -1) * unit(y, -1)).sum(-1).mean()


_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": _cosine, "mse": mean_squared_distance}


def _distance(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    if name not in _DISTANCES:
        raise ValueError(f"distance={name}: expected {' or '.join(_DISTANCES)}")
    return _DISTANCES[name]


def _projector(name: str, channels_in: int, channels: int) -> nn.Module:
    """[..., channels_in] -> [..., channels]."""
    if name == "linear":
        return nn.Linear(channels_in, channels)
    if name != "mlp":
        raise ValueError(f"projector={name}: expected linear or mlp")
    return perceptron(channels_in, channels, channels)
