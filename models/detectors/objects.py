"""The objects of a batch that a detector learns from, and the places that it passes over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

_INSIDE = 0.7  # share of an anchor's or region's area in a box to be ignored from which it does not count


class Objects(NamedTuple):
    """Those of an image.

    Attributes:
        boxes: [N, 4], pixels of the canvas.
        labels: int64 [N], 1..K.
        ignored: boxes [I, 4] that are neither objects nor background.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor


def objects_of(targets: Mapping[str, Tensor]) -> list[Objects]:
    """The objects of each image; targets: `boxes` [B, M, 4], `classes` and `learned` [B, M], as a batch has them."""
    kinds = targets["learned"].cpu()
    device = targets["boxes"].device

    def places(kind: Tensor, value: int) -> Tensor:
        return (kind == value).nonzero()[:, 0].to(device)

    return [
        Objects(boxes[places(kind, 1)].float(), classes[places(kind, 1)] + 1, boxes[places(kind, -1)].float())
        for boxes, classes, kind in zip(targets["boxes"], targets["classes"], kinds)
    ]


def in_ignored(boxes: Tensor, ignored: Tensor) -> Tensor:
    """Which boxes lie in one that is ignored, by 70 % of their area; [N, 4] and [I, 4] -> bool [N]."""
    corner = torch.maximum(boxes[:, None, :2], ignored[None, :, :2])
    span = (torch.minimum(boxes[:, None, 2:], ignored[None, :, 2:]) - corner).clamp(min=0)  # [N, I, 2]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return (span.prod(2) >= _INSIDE * area[:, None]).any(1) & (area > 0)


def centre_in_ignored(boxes: Tensor, ignored: Tensor) -> Tensor:
    """Which boxes have their centre in one that is ignored; [N, 4] and [I, 4] -> bool [N]."""
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    return ((centre >= ignored[None, :, :2]) & (centre <= ignored[None, :, 2:])).all(2).any(1)
