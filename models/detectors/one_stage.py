"""RetinaNet (arXiv 1708.02002) and FCOS (1904.01355), on torchvision's modules.

B images, K classes without background, A anchors of an image (of FCOS its locations, L), C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSRegressionHead

from models.detectors import dense
from models.detectors.detector import LOSSES, Detector, Found, Seen, flat
from models.detectors.objects import objects_of
from models.outputs import Outputs, Scene
from utils.errors import UsageError

_CROSS = {"cross_logits": "cross_tower", "cross_boxes": "cross_box_tower"}  # what comes of which maps of the student


class Tower(NamedTuple):
    """The maps of a tower, by level: those at which CrossKD crosses, and the last."""

    crossed: list[Tensor]
    last: list[Tensor]


class OneStage(Detector):
    """A detector that predicts a class and a box at every anchor or location."""

    logits_for = "dense"
    gives = ("logits", "dense_boxes", "usable", "positives", *_CROSS)

    def forward(self, images: Tensor, scene: Scene | None = None) -> Outputs:
        """As `Detector`: logits [B, A, K + 1], of which column 0 is never a class."""
        seen = self._look(images, scene)
        if self._taught_by(seen.scene):
            return self._taught(seen)
        outputs, heads = self._all(seen)
        return self._learned(seen, outputs, heads) if self._learns(seen.scene) else outputs

    def _detected(self, seen: Seen) -> Outputs:
        outputs, heads = self._all(seen)
        with torch.autocast(outputs.logits.device.type, enabled=False):
            anchors = self._anchors(self.body.anchor_generator, seen)
            count = self.body.anchor_generator.num_anchors_per_location()[0]
            levels = [value.shape[2] * value.shape[3] * count for value in seen.pyramid.values()]
            scored = {**heads, "cls_logits": F.pad(heads["cls_logits"][..., 1:], (1, 0), value=-torch.inf)}
            parts = {name: value.split(levels, 1) for name, value in scored.items()}
            split = [anchors.split(levels)] * len(seen.sizes)
            detections = self.body.postprocess_detections(parts, split, seen.sizes)
        found = [Found(one["boxes"], one["scores"], one["labels"] - 1) for one in detections]
        return self._with_detections(outputs, found, self.body.detections_per_img)

    def _of_classifier(self) -> dict[str, Tensor]:
        last = self.body.head.classification_head.cls_logits
        return {"head_weight": last.weight.flatten(1), "head_bias": last.bias}

    def _numbered(self, levels: Iterable[int]) -> list[str]:
        return [f"{name}{level}" for name in ("tower", *_CROSS.values()) for level in levels]

    def _all(self, seen: Seen) -> tuple[Outputs, dict[str, Tensor]]:
        """What it gives by itself, and what its heads give, by torchvision's names."""
        maps = [*seen.pyramid.values()]
        head = self.body.head
        classes, boxes = _tower(head.classification_head, maps), _tower(head.regression_head, maps)
        heads = {"cls_logits": self._logits(classes.last), **self._boxes(boxes.last)}
        context: dict[str, Tensor] = {}
        if "cross_logits" in self._reads:  # across itself
            context["cross_logits"] = heads["cls_logits"]
        for name in {"dense_boxes", "cross_boxes"} & self._reads:
            context[name] = self._decoded(seen, heads["bbox_regression"])
        return self._given(seen, heads["cls_logits"], self._features(classes, boxes), context), heads

    def _taught(self, seen: Seen) -> Outputs:
        """What a teacher is read for; on maps of the student with gradients for these."""
        if self._reads_only():
            return self._given(seen, None, {}, {})
        if self._finds():
            own = self._detected(seen)
            own.context.update((name, self._across(name, seen, own.logits)) for name in _CROSS.keys() & self._reads)
            return own
        maps, head, reads = [*seen.pyramid.values()], self.body.head, self._reads
        classes = _tower(head.classification_head, maps)
        if self._reads_only(r"(fpn|stage|tower)\d+"):
            return self._given(seen, None, self._features(classes), {})
        logits, context = self._logits(classes.last), {}
        if "dense_boxes" in reads:
            deltas = self._boxes(_tower(head.regression_head, maps).last)["bbox_regression"]
            context["dense_boxes"] = self._decoded(seen, deltas)
        for name in _CROSS.keys() & reads:
            context[name] = self._across(name, seen, logits)
        return self._given(seen, logits, self._features(classes), context)

    def _features(self, classes: Tower, boxes: Tower | None = None) -> dict[str, Tensor]:
        """Maps of the towers, by name."""
        features: dict[str, Tensor] = {}
        named = {
            "tower": classes.last,
            "cross_tower": classes.crossed,
            "cross_box_tower": boxes.crossed if boxes else [],
        }
        for name, maps in named.items():
            features |= {f"{name}{level}": value for level, value in zip(self.body.backbone.levels, maps)}
        return features

    def _logits(self, maps: list[Tensor]) -> Tensor:
        """The last maps of the tower -> [B, A, K + 1]."""
        last = self.body.head.classification_head.cls_logits
        return torch.cat([flat(last(one), self.num_classes + 1) for one in maps], 1)

    def _boxes(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """The last maps of the other tower -> [B, A, 4] encoded boxes, and of FCOS [B, A, 1] centerness."""
        head = self.body.head.regression_head
        if not isinstance(self.body, FCOS):
            return {"bbox_regression": torch.cat([flat(head.bbox_reg(one), 4) for one in maps], 1)}
        return {
            "bbox_regression": torch.cat([flat(head.bbox_reg(one).relu(), 4) for one in maps], 1),
            "bbox_ctrness": torch.cat([flat(head.bbox_ctrness(one), 1) for one in maps], 1),
        }

    def _across(self, what: str, seen: Seen, own: Tensor) -> Tensor:
        """CrossKD (arXiv 2306.11369, section 3.2): the rest of a tower, and what follows, on maps of the student."""
        student = seen.scene.student
        assert student is not None
        head = self.body.head.classification_head if what == "cross_logits" else self.body.head.regression_head
        levels = self.body.backbone.levels
        names = [f"{_CROSS[what]}{level}" for level in levels]
        if lacking := [name for name in names if name not in student.features]:
            raise UsageError(
                f"{self._name}: {what} comes of {_CROSS[what]}* of its student, which gives no {', '.join(lacking)}: "
                "it must be a one-stage detector of the same levels, read for these"
            )
        maps = [student.features[name] for name in names]
        channels = next(one.in_channels for one in head.conv.modules() if isinstance(one, nn.Conv2d))
        if maps[0].shape[1] != channels:
            raise UsageError(
                f"{self._name}: {what}: its towers have {channels} channels, the student's {maps[0].shape[1]}: give "
                "both the same detector.channels"
            )
        if own.shape != student.logits.shape:
            (ours, outputs), (theirs, others) = own.shape[1:], student.logits.shape[1:]
            raise UsageError(
                f"{self._name}: {what}: its head has {ours} anchors and {outputs - 1} classes, the student's {theirs} "
                f"and {others - 1}: both must be the same detector on the same classes, with the same anchors"
            )
        with torch.enable_grad():
            last = [_rest(head)(one) for one in maps]
            if what == "cross_logits":
                return self._logits(last)
            return self._decoded(seen, self._boxes(last)["bbox_regression"])

    def _decoded(self, seen: Seen, deltas: Tensor) -> Tensor:
        """Encoded boxes [B, A, 4] as x1, y1, x2, y2 in pixels of the canvas."""
        with torch.autocast(deltas.device.type, enabled=False):
            anchors = self._anchors(self.body.anchor_generator, seen)
            if isinstance(self.body, FCOS):
                return self.body.box_coder.decode(deltas, anchors)
            every = anchors.repeat(len(deltas), 1)
            return self.body.box_coder.decode_single(deltas.flatten(0, 1), every).view_as(deltas)

    def _learned(self, seen: Seen, outputs: Outputs, heads: dict[str, Tensor]) -> Outputs:
        """``outputs`` with the losses, also on other targets, and which locations are usable."""
        context = self._of_targets(seen, heads, seen.scene.targets)
        return Outputs(
            outputs.logits,
            outputs.features,
            {**outputs.context, **context},
            lambda targets: self._of_targets(seen, heads, targets)["losses"],
        )

    def _of_targets(self, seen: Seen, heads: dict[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses on ``targets``, and which locations are usable."""
        objects = objects_of(targets)
        with torch.autocast(seen.scene.sizes.device.type, enabled=False):
            anchors = self._anchors(self.body.anchor_generator, seen)
            context: dict[str, Tensor] = {}
            losses: tuple[Tensor, ...]
            if isinstance(self.body, FCOS):
                levels = [value.shape[2] * value.shape[3] for value in seen.pyramid.values()]
                matches = dense.located(anchors, levels, objects, self.body.center_sampling_radius)
                context["positives"] = dense.positives(matches)
                losses = dense.fcos_losses(self.body, heads, anchors, matches, objects, context["positives"])
            else:
                matches = dense.matched(self.body, anchors, objects)
                losses = dense.retinanet_losses(self.body, heads, anchors, matches, objects)
                if "positives" in self._reads:
                    context["positives"] = dense.positives(matches)
        count = self.body.anchor_generator.num_anchors_per_location()[0]
        usable = (matches != dense.IGNORED).unflatten(1, (-1, count)).any(2)
        zero = losses[0].new_zeros(())
        return context | {"usable": usable, "losses": torch.stack([*losses, *[zero] * (len(LOSSES) - len(losses))])}


def _tower(head: Any, maps: list[Tensor]) -> Tower:
    """The convolutions of a head on each map, [B, C, h, w]."""
    crossed = [head.conv[: _crossing(head)](one) for one in maps]
    return Tower(crossed, [_rest(head)(one) for one in crossed])


def _rest(head: Any) -> nn.Sequential:
    return head.conv[_crossing(head) :]


def _crossing(head: Any) -> int:
    """How many modules of a tower come before the maps of CrossKD: those of FCOS's first two convolutions or
    RetinaNet's first three, of four (the authors' files)."""
    of_fcos = isinstance(head, FCOSClassificationHead | FCOSRegressionHead)
    return len(head.conv) * (2 if of_fcos else 3) // 4
