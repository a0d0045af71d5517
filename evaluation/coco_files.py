"""Result files of detection as COCO has them: a JSON list with an object a detection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dataset.sources.coco import COCO_NAMES
from evaluation.box_precision import Detections
from utils.files import write_atomically
from utils.text import in_utf8

_NOT_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # of COCO's 1 to 90
_COCO_IDS = dict(zip(COCO_NAMES, (number for number in range(1, 91) if number not in _NOT_IDS)))


def write_detections(path: Path, detections: Detections, classes: Sequence[str], keys: Sequence[str]) -> None:
    """Write `[{"image_id", "category_id", "bbox": [x, y, width, height], "score", "index", "key"}, ...]`.

    Pixels are those of the stored image. `index` and `key` are the image's number and path in its split; tools that do
    not know them pass over them.

    Args:
        path: JSON file to write.
        detections: of any images.
        classes: K names.
        keys: of all samples, by their index; where there are none, no `key` is written.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    images, categories, names = image_numbers(keys), category_ids(classes), [in_utf8(key) for key in keys]
    x, y, right, bottom = detections.boxes.T
    columns = (x, y, right - x, bottom - y, detections.scores, detections.classes, detections.images)
    rows = [
        {
            "image_id": images[index] if images else index,
            "category_id": categories[label],
            "bbox": box,
            "score": score,
            "index": index,
            **({"key": names[index]} if names else {}),
        }
        for *box, score, label, index in zip(*(column.tolist() for column in columns))
    ]
    write_atomically(path, json.dumps(rows).encode())


def image_numbers(keys: Sequence[str]) -> list[int]:
    """COCO's ids of images, the numbers that are their file names; else, or where two share one, the index of each.

    Args:
        keys: paths below the folder of the split.
    """
    stems = [PurePosixPath(key).stem for key in keys]
    numbers = [int(stem) for stem in stems if stem.isascii() and stem.isdecimal()]
    return numbers if len(set(numbers)) == len(keys) else list(range(len(keys)))


def category_ids(classes: Sequence[str]) -> list[int]:
    """COCO's ids of the classes where all are COCO's, else 1 to K."""
    if all(name in _COCO_IDS for name in classes):
        return [_COCO_IDS[name] for name in classes]
    return list(range(1, len(classes) + 1))
