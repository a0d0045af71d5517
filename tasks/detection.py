"""Objects in boxes. B images, K classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from dataset.feed.targets import Objects
from tasks.contract import Task, task
from utils.errors import UsageError
from utils.settings import Range

if TYPE_CHECKING:
    from torch import Tensor, device

    from dataset.config import DataConfig
    from dataset.feed.batch import Batch
    from evaluation.detection import Detection as Scores
    from models.outputs import Outputs

_SCORES = {"coco": "AP", "voc": "AP50", "voc07": "AP50"}  # and the primary one of each
_DIFFICULT = ("ignore", "remove", "learn")


@task("detection", least_shown=Range(0, 1), most_objects=Range(1, 100_000))
@dataclass(frozen=True, kw_only=True)
class Detection(Task):
    """Average precision of boxes, and the losses that detectors bring.

    Attributes:
        scores: coco, the mean over IoU 0.5 to 0.95; voc, at 0.5 by the area of VOC 2010 and later, or voc07, at eleven
            recalls. Crowds and difficult objects are ignored.
        difficult: what is learned of difficult objects: ignore, neither they nor background; remove, background where
            they are; learn, as of others.
        least_shown: share of an object's box that a crop must show for it to be learned; with less it is ignored.
        most_objects: of an image.
    """

    hard_loss: ClassVar[str] = "detection"
    running_scores: ClassVar[tuple[str, ...]] = ()
    logits: ClassVar[Literal["any"]] = "any"  # a detector says what its own are
    of_outputs: ClassVar[tuple[str, ...]] = ("labels",)  # of the regions that a student looks at
    detects: ClassVar[bool] = True
    scores: str = "coco"
    difficult: str = "ignore"
    least_shown: float = 0.1
    most_objects: int = 500

    def __post_init__(self) -> None:
        for name, known in (("scores", (*_SCORES,)), ("difficult", _DIFFICULT)):
            if (value := getattr(self, name)) not in known:
                raise UsageError(f"task_options.{name}={value}: one of {', '.join(known)}")

    @property
    def primary(self) -> str:  # type: ignore[override]
        """AP, or AP50."""
        return _SCORES[self.scores]

    def targets(self, classes: Sequence[str]) -> Objects:
        """Boxes, moved with the view."""
        return Objects(len(classes), most=self.most_objects, difficult=self.difficult, least_shown=self.least_shown)

    def check(self, labels: np.ndarray, split: str) -> None:
        """Refuse images of one class each."""
        if labels.ndim != 2:
            raise UsageError(f"{split} has no boxes: pack data that has some, with --boxes")
        if not (labels > 0).any():
            raise UsageError(f"{split} shows none of the classes that are learned, or difficult objects alone")

    def check_data(self, data: DataConfig) -> None:
        """Refuse what distorts or mixes images without their boxes."""
        for name in ("mixup", "cutmix", "randaugment", "strong_view", "auto_augment"):
            if getattr(data, name) not in (0, "none"):
                raise UsageError(f"data.{name} leaves boxes where they are: not with task=detection")

    def metrics(self, device: device, classes: Sequence[str]) -> Scores:
        """AP, at several overlaps and sizes."""
        from evaluation.detection import Detection as Scores

        return Scores(device, classes, kind=self.scores)

    def running(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """None: boxes are scored in validation."""
        return {}

    def chance(self, labels: np.ndarray) -> float:
        """One percent: no network that guesses has as much."""
        return 1.0
