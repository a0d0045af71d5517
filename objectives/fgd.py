"""Focal and global distillation of detectors.

B images, C channels, H x W locations, M places for objects of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from objectives.contract import NOT_NEGATIVE, POSITIVE, objective
from objectives.layers import Maps, conv1x1, same_size, where_channels_differ
from objectives.numerics import summed


@objective(
    reads="levels",
    temperature=POSITIVE,
    foreground=NOT_NEGATIVE,
    background=NOT_NEGATIVE,
    attention=NOT_NEGATIVE,
    relation=NOT_NEGATIVE,
)
class Fgd(nn.Module):
    """Where objects are and where they are not, each for itself, by the teacher's attention; and the maps' context.

    Yang et al., CVPR 2022, arXiv 2111.11837, section 3, of each level, summed over channels, locations and
    levels, averaged over images:

    - squared distances (f_s - f_t)^2 times the teacher's attention to the location and to the channel; inside objects
      over their area (of several the smallest), times ``foreground``; outside over the number of such locations, times
      ``background``. Attention is the softmax of the mean of |f| over T, times the number of locations or channels.
    - ``attention`` times the distance |a_s - a_t| of both attentions.
    - ``relation`` times the squared distance of the maps with their context added, by a trained block for each network
      (GcBlock, Cao et al., ICCV workshops 2019, arXiv 1904.11492).

    A 1 x 1 convolution brings the student's maps to the teacher's channels where those differ; the larger of a pair is
    average-pooled to the smaller. Maps are compared whole: the zeros that surround images are background. Published
    with weight 1: for one-stage detectors with anchors the defaults, in the authors' files with ``attention`` 5e-4;
    without anchors T 0.8, 1.6e-3, 8e-4, 8e-4 and 8e-6; for two-stage ones T 0.5, 5e-5, 2.5e-5, 5e-5 and 5e-7.

    Args:
        student: an example of the maps [B, C_s, H, W].
        teacher: likewise [B, C_t, H', W'].
        temperature: T.
        foreground: see above.
        background: see above.
        attention: see above.
        relation: see above.
    """

    def __init__(
        self,
        student: Maps,
        teacher: Maps,
        *,
        temperature: float = 0.5,
        foreground: float = 1e-3,
        background: float = 5e-4,
        attention: float = 1e-3,
        relation: float = 5e-6,
    ) -> None:
        super().__init__()
        self.connectors = where_channels_differ(student, teacher, conv1x1)
        self.student_contexts = nn.ModuleList(Context(t.shape[1]) for t in teacher)
        self.teacher_contexts = nn.ModuleList(Context(t.shape[1]) for t in teacher)
        self.temperature = temperature
        self.foreground, self.background, self.attention, self.relation = foreground, background, attention, relation

    def forward(
        self, student: Maps, teacher: Maps, boxes: Tensor, classes: Tensor, learned: Tensor, images: Tensor
    ) -> Tensor:
        """Scalar.

        Args:
            student: maps [B, C, H, W].
            teacher: likewise.
            boxes: [B, M, 4], x1, y1, x2, y2 in pixels of the images.
            classes: int64 [B, M], -1 where there is no object.
            learned: int8 [B, M], 1 for objects that are learned from; others are background.
            images: [B, 3, height, width] of which the maps are.
        """
        objects = [box[keep] for box, keep in zip(boxes, (classes >= 0) & (learned == 1))]  # [N, 4] of each image
        losses = []
        modules = zip(self.connectors, self.student_contexts, self.teacher_contexts)
        for s, t, (connector, of_student, of_teacher) in zip(student, teacher, modules):
            s, t = same_size(connector(s), t)
            inside, outside = regions(objects, images.shape[2:], t.shape[2:])  # [B, H, W]
            ours, theirs = (_attention(x, self.temperature) for x in (s, t))
            gap = ((s - t).square() * theirs.channels[:, :, None, None]).sum(1) * theirs.locations  # [B, H, W]
            focal = gap * (self.foreground * inside + self.background * outside)
            attention = summed((a - b).abs().sum() for a, b in zip(ours, theirs))
            relation = (of_student(s) - of_teacher(t)).square().sum()
            losses.append((focal.sum() + self.attention * attention + self.relation * relation) / len(t))
        return summed(losses)


@torch.no_grad()
def regions(objects: Sequence[Tensor], canvas: Sequence[int], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Weights of the locations inside objects and outside, [B, H, W] each.

    Inside they are one over the area of the smallest box there, in locations: those that it touches. Outside they are
    one over the number of such locations of the image.

    Args:
        objects: of each image boxes [N, 4] in pixels of the canvas.
        canvas: its height and width.
        size: H and W.
    """
    inside = torch.stack([_inside(boxes, canvas, size) for boxes in objects])  # [B, H, W]
    outside = (inside == 0).to(inside.dtype)
    return inside, outside / outside.sum((1, 2), keepdim=True).clamp(min=1)


def _inside(boxes: Tensor, canvas: Sequence[int], size: Sequence[int]) -> Tensor:
    """[N, 4] -> [H, W]."""
    touched = []
    for low, high, pixels, count in ((1, 3, canvas[0], size[0]), (0, 2, canvas[1], size[1])):
        scale, places = count / pixels, torch.arange(count, device=boxes.device)
        first = (boxes[:, low, None] * scale).floor().clamp(0, count - 1)
        last = (boxes[:, high, None] * scale).ceil().maximum(first + 1)
        touched.append((places >= first) & (places < last))  # [N, H], then [N, W]
    rows, columns = touched
    weight = 1 / (rows.sum(1) * columns.sum(1))[:, None, None]
    of_each = weight * (rows[:, :, None] & columns[:, None])  # [N, H, W]
    return torch.cat([of_each, of_each.new_zeros(1, *of_each.shape[1:])]).amax(0)


class _Attention(NamedTuple):
    """To the locations [B, H, W] and to the channels [B, C] of a map; 1 on average."""

    locations: Tensor
    channels: Tensor


def _attention(x: Tensor, temperature: float) -> _Attention:
    """[B, C, H, W] -> attention."""
    size = x.abs()
    locations, channels = size.mean(1), size.mean((2, 3))
    return _Attention(_softmax(locations, temperature), _softmax(channels, temperature))


def _softmax(x: Tensor, temperature: float) -> Tensor:
    """Of all but the first dimension, times the number of entries."""
    entries = (x / temperature).flatten(1)
    return (entries.shape[1] * entries.softmax(1)).view_as(x)


class Context(nn.Module):
    """A map with its context added: the average by attention to locations, transformed; [B, C, H, W], the same shape.

    The last layer begins at zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = max(channels // 2, 1)
        self.attention = nn.Conv2d(channels, 1, 1)
        last = nn.Linear(middle, channels)
        self.transform = nn.Sequential(nn.Linear(channels, middle), nn.LayerNorm(middle), nn.ReLU(), last)
        nn.init.kaiming_normal_(self.attention.weight)
        for zero in (self.attention.bias, last.weight, last.bias):
            assert zero is not None
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W]."""
        attention = self.attention(x)
        weights = attention.flatten(1).softmax(1).view_as(attention)  # [B, 1, H, W]
        context = (x * weights).sum((2, 3))  # [B, C]
        return x + self.transform(context)[:, :, None, None]
