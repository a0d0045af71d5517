"""Detection. B images of a batch, N of a split, M places for objects and D for detections of an image, K classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from dataset.feed.stored import in_stored_pixels
from evaluation.box_precision import COCO_IOUS, COCO_SIZES, Detections, Objects, coco_precision, voc_precision
from evaluation.class_table import Row, mean, table, write_table
from evaluation.coco_files import write_detections
from evaluation.contract import Metrics, check_seen
from utils.distributed import gather

if TYPE_CHECKING:
    from dataset.feed.batch import Batch
    from models.outputs import Outputs

KINDS = ("coco", "voc", "voc07")
_AT_50, _AT_75 = COCO_IOUS.index(0.5), COCO_IOUS.index(0.75)
_OF_OBJECTS = ("classes", "original_boxes", "areas", "crowd", "difficult")
_FOUND = ("boxes", "scores", "classes")
_Part = tuple[np.ndarray, Objects, Detections]  # of a batch: the numbers of its images, int64 [B], and what is in them
_Copying = tuple[dict[str, torch.Tensor], torch.cuda.Event | None]  # and when it is there


class _Seen(NamedTuple):
    images: np.ndarray  # int64 [N], rising
    objects: Objects
    detections: Detections
    precision: np.ndarray  # float64 [T, 101, K, A], by `coco_precision`
    voc: np.ndarray | None  # float64 [K], by `voc_precision`


class Detection(Metrics):
    """Average precision of boxes in percent, over the images of all ranks.

    It is computed in pixels of the stored images, so that it depends neither on the size that a network sees nor on the
    batches: it is bit for bit the same for any order of the images and any split over ranks. In `compute` each rank
    holds all of them: of COCO's validation split 500,000 detections at most, 26 MB, and for a few seconds, as Python
    objects, 1.2 GB.

    Args:
        device: of the outputs and batches.
        classes: K names.
        kind: `coco`, or `voc` or `voc07`, PASCAL VOC's from 2010 on and before. Of difficult objects none counts; see
            `coco_precision` and `voc_precision`.
    """

    def __init__(self, device: torch.device, classes: Sequence[str], *, kind: str = "coco") -> None:
        assert kind in KINDS, kind
        self._device, self._classes, self._kind = device, classes, kind
        self._copying: _Copying | None = None  # the last batch, on its way to the host
        self._parts: list[_Part] = []  # of this rank, those before it
        self._seen: _Seen | None = None  # of all ranks

    @torch.no_grad()
    def add(self, outputs: Outputs, batch: Batch) -> None:
        """Add detections for the objects of a batch of views that are not mirrored; no image may stand on two ranks.

        Args:
            outputs: of `predict`: `boxes` [B, D, 4], pixels of the canvas, `scores` [B, D], and `classes` [B, D], -1
                where there is none; best first.
            batch: with `sizes`, `index` and the targets `classes` [B, M], -1 where there is none, `original_boxes`
                [B, M, 4], `areas`, `crowd` and `difficult` [B, M], and `windows` [B, 4].
        """
        found = {f"found_{name}": outputs.context[name] for name in _FOUND}
        known = {name: batch.targets[name] for name in ("windows", *_OF_OBJECTS)}
        found["found_scores"] = found["found_scores"].float()  # NumPy has no bfloat16
        kept = {**found, **known, "index": batch.index, "sizes": batch.sizes}
        self._take_copied()  # meanwhile the GPU works on this batch
        copies = {name: tensor.to("cpu", non_blocking=True, copy=True) for name, tensor in kept.items()}
        done = torch.cuda.Event() if self._device.type == "cuda" else None
        if done is not None:
            done.record()
        self._copying = copies, done

    def _take_copied(self) -> None:
        if self._copying is not None:
            copies, done = self._copying
            if done is not None:
                done.synchronize()
            self._parts.append(_flat({name: tensor.numpy() for name, tensor in copies.items()}))
            self._copying = None

    def compute(self) -> dict[str, float]:
        """AP, AP50, AP75, APs, APm, APl, images; of VOC's kinds AP50, AP, images, of which AP50 is VOC's and AP COCO's.

        AP is the mean over the IoUs 0.5, 0.55, ..., 0.95; APs, APm and APl are of small, medium and large objects.
        Classes without objects are left out; a score is NaN where no class has any.

        Raises:
            DataError: there is not one image; on every rank.
        """
        self._take_copied()
        parts = [part for rank in gather(self._parts) for part in rank]
        check_seen(sum(len(images) for images, _, _ in parts))
        images = np.sort(np.concatenate([part[0] for part in parts]))
        objects = Objects(*_by_image([part[1] for part in parts]))
        detections = Detections(*_by_image([part[2] for part in parts]))
        count = len(self._classes)
        precision = coco_precision(detections, objects, images, count)
        voc = None if self._kind == "coco" else voc_precision(detections, objects, count, self._kind)
        self._seen = _Seen(images, objects, detections, precision, voc)
        scores = {"AP": precision[..., 0], "AP50": precision[_AT_50, ..., 0], "AP75": precision[_AT_75, ..., 0]}
        scores |= {f"AP{size[0]}": precision[..., number] for number, size in enumerate(COCO_SIZES) if number}
        if voc is not None:
            scores = {"AP50": voc, "AP": scores["AP"]}
        return {**{name: 100 * mean(values) for name, values in scores.items()}, "images": len(images)}

    def rows(self) -> list[Row]:
        """A row a class, after `compute`; the last one has the means over the classes, which it counts in its name.

        Columns: class; objects, and ignored, which are the difficult ones and the crowds; AP, AP50 and AP75, the
        primary one first, percent, None for a class without objects. AP50 is VOC's with VOC's kinds.
        """
        seen, count = self._after_compute(), len(self._classes)
        precision = seen.precision[..., 0]  # [T, 101, K]
        parts = {"AP": precision, "AP50": precision[_AT_50], "AP75": precision[_AT_75]}
        shares = {name: np.array([mean(part[..., place]) for place in range(count)]) for name, part in parts.items()}
        if seen.voc is not None:
            shares = {"AP50": seen.voc, "AP": shares["AP"], "AP75": shares["AP75"]}
        ignored = seen.objects.difficult | seen.objects.crowd
        objects, others = (np.bincount(seen.objects.classes[some], minlength=count) for some in (~ignored, ignored))
        return table(self._classes, {"objects": objects, "ignored": others}, shares, int((objects > 0).sum()))

    def write(self, folder: Path) -> None:
        """Write `per_class.csv`: what `rows` gives, for people, spreadsheets and `figures.per_class`.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        write_table(folder / "per_class.csv", self.rows())

    def write_predictions(self, folder: Path, keys: Sequence[str]) -> None:
        """Write the detections to `detections.json`, in the format of COCO's results.

        Args:
            folder: where to.
            keys: of the samples, by their index.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        write_detections(folder / "detections.json", self._after_compute().detections, self._classes, keys)

    def _after_compute(self) -> _Seen:
        assert self._seen is not None, "compute() first"
        return self._seen


def _flat(part: dict[str, np.ndarray]) -> _Part:
    """Without the places where there is nothing; detections in pixels of the stored images."""
    index, known, found = part["index"], part["classes"] >= 0, part["found_classes"] >= 0  # [B], [B, M], [B, D]
    objects = Objects(
        np.repeat(index, known.sum(1)),
        part["classes"][known],
        part["original_boxes"][known],
        part["areas"][known],
        part["crowd"][known],
        part["difficult"][known],
    )
    boxes = in_stored_pixels(part["found_boxes"], part["windows"], part["sizes"])[found]
    labels, scores = part["found_classes"][found], part["found_scores"][found]
    detections = Detections(np.repeat(index, found.sum(1)), labels, boxes, scores)
    return index, objects, detections


def _by_image(parts: Sequence[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """Columns of all parts, whose first one is the image, by rising image."""
    columns = [np.concatenate(column) for column in zip(*parts)]
    order = np.argsort(columns[0], kind="stable")
    return [column[order] for column in columns]
