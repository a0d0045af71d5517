"""What of a teacher's outputs for a view a store keeps: bytes of a record, and outputs again.

n views, K classes, C channels; of detectors N detections of a view.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torchvision.ops import box_iou

from models.outputs import FOUND, Outputs, in_float32
from stored.boxes import BoxLayout
from stored.layouts import Layout


class Record(ABC):
    """From outputs to bytes and back, each view for itself.

    Attributes:
        size: bytes of a view.
        needs_prior: whether they are encoded with the prior of the image.
        competing: whether classes do, so that divergences of their probabilities say what is lost.
    """

    size: int
    needs_prior: bool
    competing: bool

    @abstractmethod
    def kept(self, outputs: Outputs) -> dict[str, Tensor]:
        """Of the ``outputs`` for n views what is kept, by name, [n, ...] each; zeros stand for what nothing is known
        of."""

    @abstractmethod
    def encode(self, kept: Mapping[str, Tensor], labels: Tensor | None, prior: Tensor | None) -> Tensor:
        """Records of n views, uint8 [n, size].

        Args:
            kept: as `kept` gives it.
            labels: true classes, int64 [n], where there are any.
            prior: int8 [n, K], where the record `needs_prior`.
        """

    @abstractmethod
    def decode(self, records: Tensor, prior: Tensor | None) -> Outputs:
        """What records, uint8 [n, size], hold; with the ``prior`` that they were encoded with."""

    @abstractmethod
    def apart(self, one: Outputs, other: Outputs) -> Tensor:
        """How far two outputs are from each other, of each of n views: from 0, the same, to 1; [n]."""

    @abstractmethod
    def nothing(self, images: Tensor) -> Outputs:
        """In the shapes of the outputs for images [n, 3, H, W], what says nothing of them."""


@dataclass(frozen=True)
class LogitsRecord(Record):
    """Logits of a classifier, and its pooled features where they are kept.

    Attributes:
        layout: of logits.
        classes: K, of the teacher.
        pooled: layout of the features before the classifier, and C; None where they are not kept.
        competing: whether the classes do.
    """

    layout: Layout
    classes: int
    pooled: tuple[Layout, int] | None
    competing: bool

    @property
    def size(self) -> int:  # type: ignore[override]
        """See `Record`."""
        return self.layout.size(self.classes) + (self.pooled[0].size(self.pooled[1]) if self.pooled else 0)

    @property
    def needs_prior(self) -> bool:  # type: ignore[override]
        """See `Record`."""
        return self.layout.needs_prior

    def kept(self, outputs: Outputs) -> dict[str, Tensor]:
        """Logits [n, K], and `pooled` [n, C]."""
        kept = {"logits": in_float32(outputs.logits)}
        return kept | ({"pooled": in_float32(outputs.features["pooled"])} if self.pooled else {})

    def encode(self, kept: Mapping[str, Tensor], labels: Tensor | None, prior: Tensor | None) -> Tensor:
        """See `Record.encode`."""
        parts = [self.layout.encode(kept["logits"], labels, prior)]
        if self.pooled:
            parts.append(self.pooled[0].encode(kept["pooled"], None, None))
        return torch.cat(parts, 1)

    def decode(self, records: Tensor, prior: Tensor | None) -> Outputs:
        """See `Record.decode`."""
        end, features = self.layout.size(self.classes), {}
        if self.pooled:
            features["pooled"] = self.pooled[0].decode(records[:, end:], self.pooled[1], None)
        return Outputs(self.layout.decode(records[:, :end], self.classes, prior), features)

    def apart(self, one: Outputs, other: Outputs) -> Tensor:
        """Total variation of the distributions; of label-wise probabilities the mean difference."""
        if self.competing:
            return (one.logits.softmax(1) - other.logits.softmax(1)).abs().sum(1) / 2
        return (one.logits.sigmoid() - other.logits.sigmoid()).abs().mean(1)

    def nothing(self, images: Tensor) -> Outputs:
        """See `Record.nothing`: zeros."""
        features = {"pooled": images.new_zeros(len(images), self.pooled[1])} if self.pooled else {}
        return Outputs(images.new_zeros(len(images), self.classes), features)


@dataclass(frozen=True)
class BoxesRecord(Record):
    """What a detector finds.

    Attributes:
        layout: of detections.
    """

    layout: BoxLayout
    needs_prior: ClassVar[bool] = False  # type: ignore[misc]
    competing: ClassVar[bool] = False  # type: ignore[misc]

    @property
    def size(self) -> int:  # type: ignore[override]
        """See `Record`."""
        return self.layout.size

    def kept(self, outputs: Outputs) -> dict[str, Tensor]:
        """`boxes` [n, D, 4], `scores` [n, D] and `classes` [n, D]."""
        return {name: outputs.context[name] for name in FOUND}

    def encode(self, kept: Mapping[str, Tensor], labels: Tensor | None, prior: Tensor | None) -> Tensor:
        """See `Record.encode`."""
        return self.layout.encode(*(kept[name] for name in FOUND))

    def decode(self, records: Tensor, prior: Tensor | None) -> Outputs:
        """See `Record.decode`."""
        return Outputs(records.new_zeros(0, dtype=torch.float32), {}, dict(zip(FOUND, self.layout.decode(records))))

    def apart(self, one: Outputs, other: Outputs) -> Tensor:
        """One less the agreement of detections, each weighed with its score.

        A detection agrees with that of its class in the other outputs with which IoU times the ratio of the lower score
        to the higher is largest, by as much.
        """
        pairs = zip(*([x.context[name] for name in FOUND] for x in (one, other)))
        rows = zip(*(zip(*pair) for pair in pairs))
        return torch.stack([_apart(*boxes, *scores, *classes) for boxes, scores, classes in rows])

    def nothing(self, images: Tensor) -> Outputs:
        """See `Record.nothing`: no detections."""
        return self.decode(images.new_zeros(len(images), self.size, dtype=torch.uint8), None)


def _apart(
    boxes: Tensor, others: Tensor, scores: Tensor, their_scores: Tensor, classes: Tensor, their_classes: Tensor
) -> Tensor:
    """Of one view, [D, 4], [D] and [D] each; scalar."""
    ours, theirs = scores[:, None], their_scores[None]
    agreement = box_iou(boxes, others) * torch.minimum(ours, theirs) / torch.maximum(ours, theirs)
    agreement = agreement.nan_to_num() * (classes[:, None] == their_classes)  # [D, D]; 0 where there is none
    agreeing = (agreement.amax(1) * scores).sum() + (agreement.amax(0) * their_scores).sum()
    total = scores.sum() + their_scores.sum()
    return torch.where(total > 0, 1 - agreeing / total, 0.0)
