"""How what a detector finds in a view is kept: records of equal size. n views, N detections of each, K classes.

A record has the largest coordinate of the view in float32, the number of its detections, and of each the box, four
numbers of 65,535 equal steps from 0 to that coordinate, the score, one of as many from 0 to 1, and the class: 6 + 11 N
bytes, with more than 256 classes 6 + 12 N. A coordinate is off by 1/131,070 of the largest, 0.01 of 1,333 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stored.layouts import bytes_of, numbers_of

_LEVELS = 65_535  # of two bytes
_HEAD = 6  # bytes before the detections


@dataclass(frozen=True)
class BoxLayout:
    """From detections to records and back, each row for itself.

    Attributes:
        most: N, of a view.
        classes: K.
    """

    most: int
    classes: int

    @property
    def size(self) -> int:
        """Bytes of a record."""
        return _HEAD + self.most * (10 + self._of_class)

    def encode(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
        """Records of views.

        Args:
            boxes: [n, D, 4] in pixels, none below 0; best first, at least N with those that are none.
            scores: [n, D], above 0 of those that are there.
            classes: int64 [n, D], from 0.

        Returns:
            uint8 [n, size].
        """
        count = (scores[:, : self.most] > 0).sum(1, keepdim=True)  # [n, 1]
        kept = torch.arange(self.most, device=scores.device) < count  # [n, N]
        boxes = torch.where(kept[..., None], boxes[:, : self.most], 0).double()
        largest = boxes.amax((1, 2)).float()[:, None]  # [n, 1]
        levels = boxes.flatten(1) / largest.double() * _LEVELS
        parts = [
            bytes_of(largest),
            _packed(count),
            _packed(levels.nan_to_num()),  # 0 where there is none
            _packed(torch.where(kept, scores[:, : self.most], 0).double() * _LEVELS),
            _packed(torch.where(kept, classes[:, : self.most], 0), self._of_class),
        ]
        return torch.cat(parts, 1)

    def decode(self, records: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detections of views, uint8 [n, size] -> boxes float32 [n, N, 4], scores [n, N], classes int64 [n, N].

        Best first; class -1 and zeros where there is none.
        """
        widths = [4, 2, 8 * self.most, 2 * self.most, self._of_class * self.most]
        largest, count, levels, scores, classes = records.split(widths, 1)
        kept = torch.arange(self.most, device=records.device) < _unpacked(count)
        boxes = _unpacked(levels).double() / _LEVELS * numbers_of(largest, torch.float32).double()
        return (
            boxes.float().unflatten(1, (self.most, 4)) * kept[..., None],
            (_unpacked(scores).double() / _LEVELS).float() * kept,
            torch.where(kept, _unpacked(classes, self._of_class), -1),
        )

    @property
    def _of_class(self) -> int:
        """Bytes of a class."""
        return 1 if self.classes <= 256 else 2


def _packed(numbers: Tensor, width: int = 2) -> Tensor:
    """Numbers [n, k], rounded, in ``width`` bytes each, the lowest first; uint8 [n, width * k]."""
    whole = numbers.round().long().clamp(0, _LEVELS)
    shifts = 8 * torch.arange(width, device=numbers.device)
    return (whole[..., None] >> shifts & 255).to(torch.uint8).flatten(1)


def _unpacked(packed: Tensor, width: int = 2) -> Tensor:
    """The inverse: uint8 [n, width * k] -> int64 [n, k]."""
    shifts = 8 * torch.arange(width, device=packed.device)
    return (packed.unflatten(1, (-1, width)).long() << shifts).sum(2)
