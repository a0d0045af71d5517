"""Average precision of detections: COCO's, and PASCAL VOC's. O objects and D detections of a split, K classes.

Boxes are x1, y1, x2, y2, edges and not pixels: the width is x2 - x1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from evaluation.average_precision import interpolated

COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())  # T thresholds
COCO_SIZES = ("all", "small", "medium", "large")  # A: below 32 x 32 pixels, up to 96 x 96, and above
_NEVER = -1.0  # an area that is in no range of sizes


class Objects(NamedTuple):
    """The objects of a split, by rising image."""

    images: np.ndarray  # int64 [O]
    classes: np.ndarray  # int64 [O]
    boxes: np.ndarray  # float64 [O, 4]
    areas: np.ndarray  # float64 [O], of the mask or of the box
    crowd: np.ndarray  # bool [O]
    difficult: np.ndarray  # bool [O]


class Detections(NamedTuple):
    """The detections of a split, by rising image, and those of an image by falling score."""

    images: np.ndarray  # int64 [D]
    classes: np.ndarray  # int64 [D]
    boxes: np.ndarray  # float64 [D, 4]
    scores: np.ndarray  # float32 [D]


def coco_precision(detections: Detections, objects: Objects, images: np.ndarray, classes: int) -> np.ndarray:
    """COCO's interpolated precision at 101 recalls, 0 to 1, float64 [T, 101, K, A]; NaN for a class without objects.

    COCO's average precision is its mean over whatever is asked for. Of an image the 100 highest scores of each class
    count. A crowd takes any number of detections, and is what they lie in, not what they share with it. A difficult
    object, which COCO does not have, takes one detection, and neither of them counts.

    Lin et al., ECCV 2014, and cocodataset.org; faster-coco-eval computes it.

    Args:
        detections: of those images.
        objects: of those images.
        images: their numbers, rising, int64 [N].
        classes: K.
    """
    areas = np.where(objects.difficult, _NEVER, objects.areas)  # COCO ignores what is of another size
    truth = _as_coco(
        images, classes, objects.images, objects.classes, objects.boxes, area=areas, iscrowd=objects.crowd.astype(int)
    )
    boxes = detections.boxes
    covered = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    found = _as_coco(
        images, classes, detections.images, detections.classes, boxes, area=covered, score=detections.scores
    )
    evaluation = COCOeval_faster(truth, found, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"], np.float64)[..., -1]  # the last: of 100 detections
    return np.where(precision < 0, np.nan, precision)


def _as_coco(
    images: np.ndarray, count: int, image: np.ndarray, classes: np.ndarray, boxes: np.ndarray, **columns: np.ndarray
) -> COCO:
    """Annotations in the library's form; a column a field."""
    corner, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    columns = {"image_id": image, "category_id": classes, "bbox": np.concatenate([corner, size], 1), **columns}
    rows = zip(*(column.tolist() for column in columns.values()))
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number} for number in images.tolist()],
        "categories": [{"id": place} for place in range(count)],
        "annotations": [{"id": number, **dict(zip(columns, row))} for number, row in enumerate(rows, 1)],
    }
    coco.createIndex()
    return coco


def voc_precision(detections: Detections, objects: Objects, classes: int, kind: str) -> np.ndarray:
    """VOC's average precision of each class at IoU 0.5, 0 to 1, float64 [K]; NaN for a class without objects.

    By falling score, and of equal ones by image, each detection is compared with the one object of its class that it
    overlaps most, taken or not. It is right where that is at least 0.5 and nobody took the object before, and wrong
    where somebody did. Where the object is difficult (or a crowd) neither counts. Everingham et al., IJCV 2010,
    section 4.4, as the devkit does it (`VOCevaldet.m`). That counts pixels, xmin to xmax with both, xmax - xmin + 1
    wide; the same box has the edges x1 = xmin - 1 and x2 = xmax, so that no 1 is added here.

    Args:
        detections: of all images.
        objects: of the same images.
        classes: K.
        kind: of the average: `voc` or `voc07`, as `evaluation.average_precision` has them.
    """
    ignored = objects.difficult | objects.crowd
    best, overlap = _best_object(detections, objects)
    hits, result = overlap >= 0.5, np.full(classes, np.nan)
    falling = np.argsort(-detections.scores, kind="stable")
    for label in range(classes):
        count = int(((objects.classes == label) & ~ignored).sum())
        if not count:
            continue
        mine = falling[detections.classes[falling] == label]
        mine = mine[~(hits[mine] & ignored[best[mine]])]
        right = np.zeros(len(mine), bool)
        hit = np.flatnonzero(hits[mine])
        right[hit[np.unique(best[mine[hit]], return_index=True)[1]]] = True  # the first one that takes an object
        precision = right.cumsum() / np.arange(1, len(mine) + 1)
        result[label] = interpolated(precision[right], count, kind)
    return result


def _best_object(detections: Detections, objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Of each detection the object of its image and class that it overlaps most, and their IoU; [D] each.

    Of equal ones it is the first; where there is none, 0, and an IoU of 0.
    """
    most = 1 + max((int(part.max()) for part in (objects.classes, detections.classes) if len(part)), default=0)
    groups = objects.images * most + objects.classes
    order = np.argsort(groups, kind="stable")
    wanted = detections.images * most + detections.classes
    first, end = (np.searchsorted(groups[order], wanted, side) for side in ("left", "right"))
    pairs = end - first  # objects that each detection is compared with, [D]
    of = np.repeat(np.arange(len(wanted)), pairs)  # the detection of each pair, [P]
    starts = np.cumsum(pairs) - pairs
    other = order[np.arange(len(of)) - starts[of] + first[of]]  # its object, [P]
    shared = _overlap(detections.boxes[of], objects.boxes[other])
    best, overlap = np.zeros(len(wanted), np.int64), np.zeros(len(wanted))
    by_overlap = np.lexsort((-shared, of))
    some = pairs > 0
    highest = by_overlap[starts[some]]
    best[some], overlap[some] = other[highest], shared[highest]
    return best, overlap


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes [P, 4] in pairs, [P]; 0 where they do not meet."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    meet = sides.clip(0).prod(1)
    both = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - meet
    return np.divide(meet, both, out=np.zeros_like(meet), where=meet > 0)
