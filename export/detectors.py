"""A detector as a program: sizes depend on the canvas alone, so that exporters can follow. After the papers and the
steps of torchvision's detectors, whose modules do what has such sizes.

B images, N candidates and D detections of an image, P proposals, K classes without background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional as F
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.ops import roi_align

from models.detectors.detector import anchors_of, flat
from models.zoo import Network

_LEAST_SIDE = 1e-2  # of a detection of a two-stage detector, pixels


class Candidates(NamedTuple):
    """Boxes [B, N, 4], scores [B, N], -inf where there is none, and int64 [B, N], of which only equal ones compete."""

    boxes: Tensor
    scores: Tensor
    kinds: Tensor


class DetectorProgram(nn.Module):
    """A detector that normalises for itself, and finds what `predict` finds, for any B and canvas.

    Args:
        network: a detector of `models.detectors`, in eval mode.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        if isinstance(network.body, FasterRCNN):  # whose pooling learns its scales from the first images
            network.predict(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is found, best first.

        Args:
            images: uint8 [B, 3, H, W].
            sizes: int64 [B, 2], height and width of each, from the top left corner.

        Returns:
            boxes [B, D, 4], x1, y1, x2, y2 in pixels of the canvas, scores [B, D] and classes int64 [B, D]; zeros and
            class -1 where there is none.
        """
        canvas = images.shape[2:]
        rows, columns = torch.arange(canvas[0]), torch.arange(canvas[1])
        inside = (rows[:, None] < sizes[:, :1, None]) & (columns < sizes[:, 1:, None])  # [B, H, W]
        normalised = torch.where(inside[:, None], self.network.normalize(images), 0)
        body: Any = self.network.body
        maps = body.backbone(normalised)
        limits = sizes.flip(1).repeat(1, 2)[:, None].to(normalised.dtype)  # [B, 1, 4]
        if isinstance(body, FasterRCNN):
            found, settings = _of_regions(body, maps, _proposed(body.rpn, maps, canvas, limits), limits), body.roi_heads
        else:
            found, settings = _at_anchors(body, maps, canvas, limits), body
        boxes, scores, classes = best(found, settings.nms_thresh, settings.detections_per_img)
        there = scores.isfinite()
        return (
            torch.where(there[..., None], boxes, 0),
            torch.where(there, scores, 0),
            torch.where(there, classes, -1),
        )


def best(candidates: Candidates, overlap: float, most: int) -> Candidates:
    """Those that do not overlap a better one of their kind by an IoU above ``overlap``, ``most`` at most, best first.

    It is what `torchvision.ops.batched_nms` keeps, one after the other: in each step the best that is left goes, with
    all that overlap it. Of equal scores the first is the best.
    """
    boxes, scores, kinds = candidates
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(2)
    limit = _float32_below(overlap)

    def step(left: Tensor, _number: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        score, place = left.max(1, keepdim=True)  # [B, 1]
        box = _at(boxes, place)
        low, high = torch.maximum(boxes[..., :2], box[..., :2]), torch.minimum(boxes[..., 2:], box[..., 2:])
        shared = (high - low).clamp(min=0).prod(2)
        overlaps = shared / (areas.gather(1, place) + areas - shared) > limit
        gone = overlaps & (kinds == kinds.gather(1, place))
        left = torch.where(gone, -torch.inf, left).scatter(1, place, -torch.inf)
        return left, (place[:, 0], score[:, 0])

    _, steps = scan(step, scores, torch.arange(most))
    places, scores = (one.T for one in steps)  # [most, B] each
    return Candidates(_at(boxes, places), scores, kinds.gather(1, places))


def _float32_below(value: float) -> float:
    """The largest float32 that is not above ``value``: torchvision compares with a float64, a program with this."""
    rounded = np.float32(value)
    return float(rounded if float(rounded) <= value else np.nextafter(rounded, np.float32(-1)))


def _at_anchors(body: Any, maps: Mapping[str, Tensor], canvas: Sequence[int], limits: Tensor) -> Candidates:
    """The best classes and boxes of each level of a RetinaNet or FCOS."""
    levels = [*maps.values()]
    heads = body.head(levels)
    scores = heads["cls_logits"][..., 1:].sigmoid()  # [B, A, K]
    if isinstance(body, FCOS):
        scores = (scores * heads["bbox_ctrness"].sigmoid()).sqrt()
    scores = torch.where(scores > body.score_thresh, scores, -torch.inf)
    anchors, classes = anchors_of(body.anchor_generator, canvas, levels), scores.shape[2]
    counts = [classes * one.shape[0] for one in anchors]
    scores, places, _ = _best_of_levels(scores.flatten(1), counts, body.topk_candidates)
    numbers = places // classes
    deltas, own = _at(heads["bbox_regression"], numbers), torch.cat(anchors)[numbers]
    boxes = body.box_coder.decode(deltas, own) if isinstance(body, FCOS) else _decoded(body.box_coder, deltas, own)
    return Candidates(_clipped(boxes, limits), scores, places % classes)


def _proposed(rpn: Any, maps: Mapping[str, Tensor], canvas: Sequence[int], limits: Tensor) -> Candidates:
    """The proposals of a Faster R-CNN."""
    levels = [*maps.values()]
    objectness, deltas = (
        torch.cat([flat(one, numbers) for one in given], 1) for given, numbers in zip(rpn.head(levels), (1, 4))
    )
    anchors = anchors_of(rpn.anchor_generator, canvas, levels)
    counts = [one.shape[0] for one in anchors]
    scores, places, kinds = _best_of_levels(objectness.squeeze(2), counts, rpn.pre_nms_top_n())
    boxes = _clipped(_decoded(rpn.box_coder, _at(deltas, places), torch.cat(anchors)[places]), limits)
    scores = scores.sigmoid()
    taken = _is_as_large(boxes, rpn.min_size) & (scores >= rpn.score_thresh)
    found = Candidates(boxes, torch.where(taken, scores, -torch.inf), kinds)
    return best(found, rpn.nms_thresh, rpn.post_nms_top_n())


def _of_regions(body: Any, maps: Mapping[str, Tensor], proposed: Candidates, limits: Tensor) -> Candidates:
    """The classes and boxes of proposals."""
    heads, regions = body.roi_heads, proposed.boxes.flatten(0, 1)  # [B * P, 4]
    count = proposed.boxes.shape[1]
    logits, deltas = heads.box_predictor(heads.box_head(_pooled(heads.box_roi_pool, maps, proposed.boxes)))
    boxes = heads.box_coder.decode_single(deltas, regions).unflatten(1, (-1, 4))[:, 1:]  # [B * P, K, 4]
    scores = F.softmax(logits, 1)[:, 1:]
    classes = torch.arange(scores.shape[1]).expand_as(scores)
    boxes, scores, classes = (one.unflatten(0, (-1, count)).flatten(1, 2) for one in (boxes, scores, classes))
    boxes = _clipped(boxes, limits)
    there = proposed.scores.isfinite().repeat_interleave(logits.shape[1] - 1, 1)
    taken = there & (scores > heads.score_thresh) & _is_as_large(boxes, _LEAST_SIDE)
    return Candidates(boxes, torch.where(taken, scores, -torch.inf), classes)


def _pooled(pool: Any, maps: Mapping[str, Tensor], boxes: Tensor) -> Tensor:
    """The map of each region, [B * P, C, S, S], as torchvision's `MultiScaleRoIAlign` pools those of lists of boxes."""
    image = torch.arange(boxes.shape[0])[:, None, None].expand(-1, boxes.shape[1], 1)
    regions = torch.cat([image.to(boxes.dtype), boxes], 2).flatten(0, 1)  # [B * P, 5]
    fed = [maps[name] for name in pool.featmap_names]

    def aligned(number: int, some: Tensor) -> Tensor:
        return roi_align(fed[number], some, pool.output_size, pool.scales[number], pool.sampling_ratio)

    if len(fed) == 1:
        return aligned(0, regions)
    levels = pool.map_levels([regions[:, 1:]])
    pooled = regions.new_zeros(regions.shape[0], fed[0].shape[1], *pool.output_size)
    for number in range(len(fed)):
        (places,) = torch.where(levels == number)
        pooled = pooled.index_put((places,), aligned(number, regions[places]))
    return pooled


def _best_of_levels(scores: Tensor, counts: Sequence[int], most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each level the ``most`` best, or all.

    Args:
        scores: [B, A], levels one behind the other.
        counts: of each level.
        most: of a level.

    Returns:
        Scores [B, N], their places among all and the numbers of their levels, int64 [B, N].
    """
    parts, begin = [], 0
    for level, count in enumerate(counts):
        score, place = scores[:, begin : begin + count].topk(torch.sym_min(most, count), 1)
        parts.append((score, place + begin, torch.full_like(place, level)))
        begin += count
    scores, places, levels = (torch.cat(values, 1) for values in zip(*parts))
    return scores, places, levels


def _at(values: Tensor, places: Tensor) -> Tensor:
    """[B, A, 4] and int64 [B, N] -> [B, N, 4]."""
    return values.gather(1, places[..., None].expand(-1, -1, 4))


def _decoded(coder: Any, deltas: Tensor, anchors: Tensor) -> Tensor:
    """Encoded boxes as boxes, both [B, N, 4]."""
    return coder.decode_single(deltas.flatten(0, 1), anchors.flatten(0, 1)).view_as(deltas)


def _clipped(boxes: Tensor, limits: Tensor) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), limits)


def _is_as_large(boxes: Tensor, side: float) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2] >= side).all(2)
