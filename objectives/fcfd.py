"""Stages as the later layers of both networks read them. B samples, C channels, H x W pixels, K classes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import COUNT, NOT_NEGATIVE, POSITIVE, objective
from objectives.layers import Maps, normalised
from objectives.logits import kd
from objectives.numerics import mean_squared_distance, summed

Rest = Callable[[int, Tensor], tuple[list[Tensor], Tensor, Tensor]]


class _Path(NamedTuple):
    """From one network through a bridge to the later layers of the other."""

    to: Literal["student", "teacher"]
    stage: int  # that the bridge stands behind


@objective(reads="stages", paths=COUNT, temperature=POSITIVE, maps=NOT_NEGATIVE, warmup=NOT_NEGATIVE)
class Fcfd(nn.Module):
    """Function-consistent: the student's maps must do for the teacher's later layers, and the teacher's for its own.

    Liu et al., ICLR 2023, arXiv 2304.11832, with the bridges, the sums and the draws of the authors' code. A bridge, a
    3 x 3 convolution with batch norm, brings each stage of the student, and its last map, to the teacher's shape; mean
    squared distances are added up. In each step ``paths`` of the ways through both networks are drawn: a bridged stage
    of the student goes through the teacher's later layers, whose maps are compared likewise, or one of the teacher's
    through the student's. Last maps are also compared as they are pooled. To that, times ``maps``, `kd` of the logits
    at the end of each path with the teacher's is added. A leaky ReLU ends the bridges to maps without negative numbers.

    Later batch norms of the student go by the statistics of what they are given, as the authors' do, and keep what
    they follow for themselves. Published beside cross-entropy and `kd` of the same T, weight 1 each: on ImageNet T = 1,
    ``warmup`` 5, ``maps`` 0.02 (ResNet-18) or 5 (MobileNetV1); on CIFAR-100 T = 4, ``maps`` 5, between thin ResNets
    0.02, for ShuffleNets T = 8.

    Args:
        student: an example of the stages [B, C_s, H, W], shallow to deep.
        teacher: likewise [B, C_t, H', W'], as large, or larger or smaller by a whole factor.
        student_last: likewise of the map that is pooled.
        teacher_last: likewise.
        paths: drawn in each step, alike on all ranks.
        direction: of the paths that may be drawn: `to_teacher`, `to_student` or `both`.
        temperature: T.
        maps: weight of the distances beside the divergences.
        warmup: epochs in which that grows to its value.

    Raises:
        ValueError: there are fewer paths, ``direction`` is another one, or maps do not fit.
    """

    def __init__(
        self,
        student: Maps,
        teacher: Maps,
        student_last: Tensor,
        teacher_last: Tensor,
        *,
        paths: int = 2,
        direction: str = "both",
        temperature: float = 4.0,
        maps: float = 5.0,
        warmup: float = 20.0,
    ) -> None:
        super().__init__()
        both = [*zip(student, teacher)]
        if both and (_same(student[-1], student_last) or _same(teacher[-1], teacher_last)):
            both.pop()  # nothing but the classifier is behind it
        self.to_teacher = nn.ModuleList(_bridge(s, t) for s, t in both)
        self.to_student = nn.ModuleList(_bridge(t, s) for s, t in both if direction != "to_teacher")
        self.last = _bridge(student_last, teacher_last)
        directions: dict[str, tuple[Literal["student", "teacher"], ...]] = {
            "both": ("teacher", "student"),
            "to_teacher": ("teacher",),
            "to_student": ("student",),
        }
        if direction not in directions:
            raise ValueError(f"direction={direction}: one of {', '.join(directions)}")
        self.known = [_Path(to, stage) for to in directions[direction] for stage in range(len(both))]
        if paths > len(self.known):
            raise ValueError(f"paths={paths}: there are {len(self.known)}, through stages before the last map")
        self.paths, self.temperature, self.maps, self.warmup = paths, temperature, maps, warmup
        self.set_seed(0)
        self.set_epoch(1)

    def set_epoch(self, epoch: float) -> None:
        """Let the weight of the distances grow."""
        self.share = min(1.0, epoch / self.warmup) if self.warmup else 1.0

    def set_seed(self, seed: int) -> None:
        """Draw the paths of a step."""
        self.drawn = Random(seed).sample(self.known, self.paths)

    @torch.compiler.disable  # which layers run changes from step to step
    def forward(
        self,
        student: Maps,
        teacher: Maps,
        student_last: Tensor,
        teacher_last: Tensor,
        teacher_logits: Tensor,
        student_rest: Rest,
        teacher_rest: Rest,
    ) -> Tensor:
        """Scalar.

        Args:
            student: maps [B, C_s, H, W].
            teacher: likewise.
            student_last: [B, C, H, W].
            teacher_last: likewise.
            teacher_logits: [B, K].
            student_rest: from the number of a stage and a map in its place to the stages behind, `last`, and logits.
            teacher_rest: likewise.
        """
        stages = teacher[: len(self.to_teacher)]
        bridged = [bridge(s) for bridge, s in zip(self.to_teacher, student)]
        distances = [mean_squared_distance(b, t) for b, t in zip(bridged, stages)]
        distances.append(_distance_of_last(self.last(student_last), teacher_last))
        divergences = []
        for path in self.drawn:
            if path.to == "teacher":
                behind, last, logits = teacher_rest(path.stage, bridged[path.stage])
                distances += [mean_squared_distance(x, t) for x, t in zip(behind, stages[path.stage + 1 :])]
                distances.append(_distance_of_last(last, teacher_last))
            else:
                _, _, logits = student_rest(path.stage, self.to_student[path.stage](stages[path.stage]))
            divergences.append(kd(logits, teacher_logits, temperature=self.temperature))
        # All parameters have a gradient, as ranks expect, though some bridges are on no path.
        nothing = 0 * summed(parameter.sum() for parameter in self.to_student.parameters()) if self.to_student else 0
        return summed(divergences) + self.share * self.maps * summed(distances) + nothing


def _same(stage: Tensor, last: Tensor) -> bool:
    return stage.shape == last.shape and torch.equal(stage, last)


def _bridge(one: Tensor, other: Tensor) -> nn.Sequential:
    """Layers from the shape of a map [B, C, H, W] to that of another.

    Raises:
        ValueError: none is a whole number of times as large.
    """
    channels, (size, wanted) = (one.shape[1], other.shape[1]), (one.shape[2], other.shape[2])
    conv: nn.Conv2d | nn.ConvTranspose2d
    if size % wanted == 0:
        conv = nn.Conv2d(*channels, 3, size // wanted, 1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    elif wanted % size == 0:
        times = wanted // size
        conv = nn.ConvTranspose2d(*channels, times + 2 * (times // 2), times, times // 2, bias=False)
    else:
        raise ValueError(f"a map of {size} x {size} pixels cannot be brought to {wanted} x {wanted}")
    return normalised(conv, nn.LeakyReLU(0.1)) if bool((other >= 0).all()) else normalised(conv)


def _distance_of_last(x: Tensor, y: Tensor) -> Tensor:
    """Of two maps [B, C, H, W], and of what they are pooled to."""
    return mean_squared_distance(x, y) + mean_squared_distance(*(F.avg_pool2d(F.relu(z), z.shape[2:]) for z in (x, y)))
