"""Expandable residual approximation, on pooled features. B samples, C channels, K classes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import COUNT, NOT_NEGATIVE, SHARE, objective
from objectives.numerics import summed


@objective(reads="pooled", branches=COUNT, depth=COUNT, feature=NOT_NEGATIVE, decay=SHARE)
class Era(nn.Module):
    """Expandable residual approximation: branches of the student's features add up to what the teacher's have more.

    feature |x - t|^2 + CE(x) + the mean over branches i, from 0, of decay^i (|d_i - r_i|^2 + CE(x + d_0 + ... + d_i)).
    x are the student's features, t the teacher's, squares means over B and C; d_i what branch i makes of the student's
    features, r_i = t - x - d_0 - ... - d_(i - 1) without a gradient; CE the cross-entropy of the labels with what the
    teacher's classifier gives. A branch is ``depth`` linear layers with batch norm, a ReLU between two; where C differs
    a linear layer brings x, and each d_i, to the teacher's. Yan et al., TNNLS 2025, arXiv 2508.16050, as the authors'
    code has it for R34 to R18 on ImageNet, beside `cross_entropy` and twice `kd` at T = 1. Their code also scores
    mixtures of the student's logits with those of the teacher's classifier on x and the branches, at 0, 0.1, 0.3, 0.5
    and 1 of these; here the student is what remains, at 0.

    Args:
        student: an example [B, C_s].
        teacher: likewise [B, C_t].
        branches: how many.
        depth: linear layers of each.
        feature: weight of the distance of x and t.
        decay: weight of a branch, of that before it.
    """

    def __init__(
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        branches: int = 4,
        depth: int = 2,
        feature: float = 5.0,
        decay: float = 0.5,
    ) -> None:
        super().__init__()
        channels, wanted = student.shape[1], teacher.shape[1]

        def lift() -> nn.Module:
            return nn.Identity() if channels == wanted else nn.Linear(channels, wanted)

        self.lift = lift()
        self.branches = nn.ModuleList(nn.Sequential(_layers(channels, depth), lift()) for _ in range(branches))
        self.feature, self.decay = feature, decay
        for module in self.branches.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        teacher_head_weight: Tensor,
        teacher_head_bias: Tensor,
        labels: Tensor,
    ) -> Tensor:
        """Scalar, of features [B, C], the teacher's classifier [K, C_t] and its biases [K], and labels int64 [B]."""

        def hard(features: Tensor) -> Tensor:
            return F.cross_entropy(F.linear(features, teacher_head_weight, teacher_head_bias), labels)

        made = self.lift(student)
        losses = [self.feature * F.mse_loss(made, teacher) + hard(made)]
        for number, branch in enumerate(self.branches):
            step = branch(student)
            residual = (teacher - made).detach()
            made = made + step
            losses.append(self.decay**number / len(self.branches) * (F.mse_loss(step, residual) + hard(made)))
        return summed(losses)


def _layers(channels: int, depth: int) -> nn.Sequential:
    """[B, C] -> [B, C]."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(channels, channels), nn.BatchNorm1d(channels), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
