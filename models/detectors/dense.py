"""Which anchors or locations learn from which objects in one-stage detectors, and the losses.

B images, K classes without background, A anchors of an image (of FCOS its locations), N objects of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import _box_loss
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from models.detectors.objects import Objects, centre_in_ignored, in_ignored
from utils.distributed import all_sum

BACKGROUND, IGNORED = -1, -2  # as torchvision's matcher has them


@torch.no_grad()
def matched(network: Any, anchors: Tensor, objects: list[Objects]) -> Tensor:
    """The object of each anchor of a RetinaNet, BACKGROUND, or IGNORED between the thresholds; int64 [B, A].

    Args:
        network: torchvision's, with its matcher.
        anchors: [A, 4].
        objects: of each image.
    """
    rows = []
    for one in objects:
        row = anchors.new_full((len(anchors),), BACKGROUND, dtype=torch.int64)
        if len(one.boxes):
            row = network.proposal_matcher(box_iou(one.boxes, anchors))
        rows.append(torch.where((row == BACKGROUND) & in_ignored(anchors, one.ignored), IGNORED, row))
    return torch.stack(rows)


@torch.no_grad()
def located(anchors: Tensor, levels: list[int], objects: list[Objects], radius: float) -> Tensor:
    """The object of each location of an FCOS, BACKGROUND, or IGNORED; int64 [B, L].

    A location learns from a box that it lies in, near its centre (FCOS, arXiv 2006.09214, section 3.3), where the
    farthest side of the box is 4 to 8 strides away (arXiv 1904.01355, section 3.2), the finest level takes all that is
    nearer and the coarsest all that is farther; of several boxes from the smallest.

    Args:
        anchors: [L, 4], squares of one stride around locations.
        levels: locations of each level.
        objects: of each image.
        radius: around the centre of a box, in strides.
    """
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2  # [L, 2]
    stride = anchors[:, 2] - anchors[:, 0]
    nearest, farthest = 4 * stride, 8 * stride
    nearest[: levels[0]], farthest[-levels[-1] :] = 0, torch.inf
    rows = []
    for one in objects:
        row = anchors.new_full((len(anchors),), BACKGROUND, dtype=torch.int64)
        if len(one.boxes):
            sides = torch.cat([centre[:, None] - one.boxes[:, :2], one.boxes[:, 2:] - centre[:, None]], 2)  # [L, N, 4]
            off = (centre[:, None] - (one.boxes[:, :2] + one.boxes[:, 2:]) / 2).abs().amax(2)  # [L, N]
            reach = sides.amax(2)
            fits = (sides.amin(2) > 0) & (off < radius * stride[:, None])
            fits &= (reach > nearest[:, None]) & (reach < farthest[:, None])
            area = (one.boxes[:, 2:] - one.boxes[:, :2]).prod(1)  # [N]
            smallest, row = torch.where(fits, area, torch.inf).min(1)
            row = torch.where(smallest.isfinite(), row, BACKGROUND)
        rows.append(torch.where((row == BACKGROUND) & centre_in_ignored(anchors, one.ignored), IGNORED, row))
    return torch.stack(rows)


def positives(matches: Tensor) -> Tensor:
    """Anchors that learn from an object, of a rank on the average over ranks, and of all ranks one at least; scalar.

    A sum that is divided by it has the mean over ranks of one over all of them.

    Args:
        matches: int64 [B, A], of this rank.
    """
    own = (matches >= 0).sum().float()
    counts = all_sum(torch.stack([own, torch.ones_like(own)]))
    return counts[0].clamp(min=1) / counts[1]


def retinanet_losses(
    network: Any, heads: Mapping[str, Tensor], anchors: Tensor, matches: Tensor, objects: list[Objects]
) -> tuple[Tensor, Tensor]:
    """Focal loss (arXiv 1708.02002, equation 5) and the loss of boxes, over the positive anchors of each image.

    Args:
        network: torchvision's, whose kind of loss for boxes it is: L1, or GIoU of the second version.
        heads: `cls_logits` [B, A, K + 1] and `bbox_regression` [B, A, 4].
        anchors: [A, 4].
        matches: int64 [B, A].
        objects: of each image.
    """
    positive = (matches >= 0).sum(1).clamp(min=1)  # [B]
    classes = (_focal(heads["cls_logits"], matches, objects) / positive).mean()
    kind = network.head.regression_head._loss_type
    boxes = []
    for deltas, match, one in zip(heads["bbox_regression"], matches, objects):
        places = (match >= 0).nonzero()[:, 0]
        boxes.append(
            _box_loss(kind, network.box_coder, anchors[places], one.boxes[match[places]], deltas[places])
            / max(1, len(places))
        )
    return classes, torch.stack(boxes).mean()


def fcos_losses(
    network: Any,
    heads: Mapping[str, Tensor],
    anchors: Tensor,
    matches: Tensor,
    objects: list[Objects],
    count: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Focal loss, GIoU loss and cross-entropy of centerness (FCOS, arXiv 1904.01355, equations 2 and 3).

    All are divided by the positive locations of the batches of all ranks; the mean over ranks is then exact.

    Args:
        network: torchvision's, whose coder of boxes it is.
        heads: `cls_logits` [B, L, K + 1], `bbox_regression` [B, L, 4] and `bbox_ctrness` [B, L, 1].
        anchors: [L, 4].
        matches: int64 [B, L].
        objects: of each image.
        count: of positive locations, as `positives` counts them.
    """
    image, place = (matches >= 0).nonzero(as_tuple=True)  # [P]
    truth = _of_objects(matches, [one.boxes for one in objects])[image, place]  # [P, 4]
    points = anchors[place]
    deltas = heads["bbox_regression"][image, place]
    boxes = generalized_box_iou_loss(network.box_coder.decode(deltas, points), truth, reduction="sum")
    left, top, right, bottom = network.box_coder.encode(points, truth).unbind(1)
    across, down = torch.stack([left, right], 1), torch.stack([top, bottom], 1)
    centred = (across.amin(1) / across.amax(1) * (down.amin(1) / down.amax(1))).sqrt()
    centerness = F.binary_cross_entropy_with_logits(heads["bbox_ctrness"][image, place, 0], centred, reduction="sum")
    classes = _focal(heads["cls_logits"], matches, objects).sum()
    return classes / count, boxes / count, centerness / count


def _focal(logits: Tensor, matches: Tensor, objects: list[Objects]) -> Tensor:
    """The focal loss of each image, summed over anchors that are not ignored and over classes; [B]."""
    labels = _of_objects(matches, [one.labels for one in objects])
    labels = torch.where(matches >= 0, labels, 0)
    ones = (matches >= 0).to(logits.dtype)
    target = torch.zeros_like(logits).scatter(2, labels[..., None], ones[..., None])
    losses = sigmoid_focal_loss(logits, target, reduction="none").sum(2)
    return (losses * (matches != IGNORED)).sum(1)


def _of_objects(matches: Tensor, values: list[Tensor]) -> Tensor:
    """What belongs to the object of each anchor, [B, A, ...]; anything where there is none."""
    filled = [one if len(one) else one.new_zeros(1, *one.shape[1:]) for one in values]
    return torch.stack([one[match.clamp(min=0)] for one, match in zip(filled, matches)])
