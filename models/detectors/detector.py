"""What all detectors have in common as networks. B images, K classes without background, H x W the canvas."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.detectors.backbones import Backbone
from models.outputs import FOUND, Normalization, Outputs, Scene, in_float32
from models.taps import expanded
from models.zoo import Network
from utils.errors import UsageError

LOSSES = ("classes", "boxes", "centerness", "objectness", "proposals")  # in the order of `losses`
NORM_EPSILON = "norm_epsilon"  # a note beside the classes: that of the batch norms, where it is not PyTorch's
_MAPS = r"(fpn|stage)\d+"


@dataclass(frozen=True)
class Seen:
    """What the backbone gives for a batch.

    Attributes:
        scene: what is known of the images.
        canvas: H and W.
        sizes: of each image within it.
        stages: the body's maps [B, C, h, w], by name.
        pyramid: those that heads look at, by torchvision's names; empty where nothing of them is read.
    """

    scene: Scene
    canvas: tuple[int, int]
    sizes: list[tuple[int, int]]
    stages: dict[str, Tensor]
    pyramid: OrderedDict[str, Tensor]


@dataclass(frozen=True)
class Found:
    """Detections of an image, best first: boxes [D, 4], scores [D] and classes int64 [D] from 0."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor


class Detector(Network):
    """A detector of torchvision that normalises for itself, and gives what is asked for.

    Args:
        body: torchvision's `FasterRCNN`, `RetinaNet` or `FCOS`, with a `Backbone`.
        normalization: of its input.
        num_classes: K.
        reads: features and context that are read.
        name: for messages.

    Raises:
        UsageError: it cannot give one of ``reads``; what it gives is named.
    """

    takes_scene = True
    body: Any
    gives: Collection[str]  # what it can give beside maps, losses, and what it finds

    def __init__(
        self, body: nn.Module, normalization: Normalization, num_classes: int, reads: Iterable[str], name: str
    ) -> None:
        super().__init__(body, normalization, num_classes)
        self._name = name
        self._classifier = ""
        backbone: Backbone = self.body.backbone
        levels = dict.fromkeys(backbone.levels)
        with torch.no_grad():
            body.eval()
            stages = backbone.stages(torch.zeros(1, 3, 32, 32))
            body.train()
        known = [*(f"fpn{level}" for level in levels), *(stage for stage in stages if re.fullmatch(_MAPS, stage))]
        known += self._numbered(levels)
        gives = [*self.gives, *FOUND, "losses", "losses_on"]
        self._reads = expanded(reads, [*known, *gives])
        if unknown := sorted(self._reads - {*known, *gives}):
            raise UsageError(f"{name} gives no {', '.join(unknown)}; it gives {', '.join([*gives, *known])}")

    def normalize(self, images: Tensor, scene: Scene | None = None) -> Tensor:
        """As of every network; zeros are put beyond the sizes of the images, as torchvision pads."""
        normalised = super().normalize(images)
        if scene is not None:
            for image, (height, width) in zip(normalised, scene.sizes.tolist()):
                image[:, height:], image[:, :, width:] = 0, 0
        return normalised

    @property
    def network(self) -> nn.Module:
        """torchvision's module: its state dict has torchvision's names."""
        return self.body

    @abstractmethod
    def forward(self, images: Tensor, scene: Scene | None = None) -> Outputs:
        """What it gives for normalised images [B, 3, H, W].

        In training, with targets, the losses, also on other targets, and what they come of; with a student in ``scene``
        what a teacher gives for what the student looks at, and of that what is read, and what it finds by itself where
        that is; else what it gives by itself.

        Raises:
            UsageError: student and teacher do not go together.
        """

    def predict(self, images: Tensor, scene: Scene | None = None) -> Outputs:
        """What it finds in uint8 images [B, 3, H, W]: `boxes` [B, D, 4] in pixels of the canvas, `scores` [B, D] and
        `classes` int64 [B, D] in the context, best first; class -1 and zeros where there is none.
        """
        return self._detected(self._look(self.normalize(images, scene), scene))

    @abstractmethod
    def _detected(self, seen: Seen) -> Outputs:
        """What it gives by itself, with what it finds."""

    @abstractmethod
    def _numbered(self, levels: Iterable[int]) -> list[str]:
        """Names of the features by level that it gives beside `fpn*`."""

    def _look(self, images: Tensor, scene: Scene | None) -> Seen:
        """What the backbone gives for normalised images."""
        height, width = images.shape[2:]
        if scene is None:
            sizes = torch.tensor([[height, width]] * len(images), device=images.device)
            scene = Scene(sizes, {}, torch.arange(len(images), device=images.device))
            shapes = [(height, width)] * len(images)
        else:
            shapes = [(row[0], row[1]) for row in scene.sizes.tolist()]
        backbone: Backbone = self.body.backbone
        stages = backbone.stages(images)
        only_stages = self._taught_by(scene) and self._reads_only(r"stage\d+")
        return Seen(scene, (height, width), shapes, stages, OrderedDict() if only_stages else backbone.pyramid(stages))

    def _learns(self, scene: Scene) -> bool:
        """Whether there are losses."""
        return self.training and "learned" in scene.targets

    def _taught_by(self, scene: Scene) -> bool:
        """Whether it is the teacher of a student that has looked already."""
        return scene.student is not None

    def _finds(self) -> bool:
        """Whether what it finds is read."""
        return not self._reads.isdisjoint(FOUND)

    def _reads_only(self, pattern: str = _MAPS, beside: Iterable[str] = ()) -> bool:
        """Whether nothing is read but features whose names are like ``pattern``, and what stands ``beside`` them."""
        return bool(self._reads) and all(re.fullmatch(pattern, name) for name in self._reads - {*beside})

    def _given(
        self, seen: Seen, logits: Tensor | None, features: Mapping[str, Tensor], context: Mapping[str, Tensor]
    ) -> Outputs:
        """The outputs, with those of the maps and of ``features`` that are read."""
        pyramid: dict[str, Tensor] = {}
        for level, value in zip(self.body.backbone.levels, seen.pyramid.values()):
            pyramid.setdefault(f"fpn{level}", value)  # of two at a stride the one that regions are pooled from
        every = {**seen.stages, **pyramid, **features}
        kept = {name: value for name, value in every.items() if name in self._reads}
        empty = next(iter(seen.stages.values())).new_zeros(0)
        return Outputs(empty if logits is None else logits, kept, {**context, **self._of_classifier()})

    @abstractmethod
    def _of_classifier(self) -> dict[str, Tensor]:
        """`head_weight` and `head_bias`."""

    def _anchors(self, generator: Any, seen: Seen) -> Tensor:
        """Those of an image, [A, 4]; levels one behind the other, in float32 whatever the maps are in."""
        return torch.cat(anchors_of(generator, seen.canvas, [*seen.pyramid.values()]))

    def _with_detections(self, outputs: Outputs, found: list[Found], most: int) -> Outputs:
        """``outputs`` with the detections of each image, filled up to ``most``."""

        def stacked(values: list[Tensor], filler: float) -> Tensor:
            return torch.stack(
                [F.pad(one, (0, 0) * (one.ndim - 1) + (0, most - len(one)), value=filler) for one in values]
            )

        detections = {
            "boxes": stacked([one.boxes for one in found], 0),
            "scores": stacked([one.scores for one in found], 0),
            "classes": stacked([one.classes for one in found], -1),
        }
        return Outputs(outputs.logits, outputs.features, {**outputs.context, **detections})


def anchors_of(generator: Any, canvas: Sequence[int], maps: Sequence[Tensor]) -> list[Tensor]:
    """The anchors of an image by level, [A, 4]; canvas: H and W; maps: [B, C, h, w]."""
    grids = [value.shape[2:] for value in maps]
    strides = [[length // cells for length, cells in zip(canvas, grid)] for grid in grids]
    generator.set_cell_anchors(torch.float32, maps[0].device)
    return generator.grid_anchors(grids, strides)


def flat(values: Tensor, numbers: int) -> Tensor:
    """What a head gives for a map, [B, A * numbers, h, w] -> [B, h * w * A, numbers], in float32 at least."""
    return in_float32(values.unflatten(1, (-1, numbers)).permute(0, 3, 4, 1, 2).flatten(1, 3))
