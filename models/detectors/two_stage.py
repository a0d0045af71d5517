"""Faster R-CNN (arXiv 1506.01497; with FPN 1612.03144) and the box part of Mask R-CNN, on torchvision's modules.

B images, R regions of all of them, K classes without background, A anchors of an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.detectors.detector import Detector, Found, Seen, flat
from models.detectors.objects import Objects, in_ignored, objects_of
from models.detectors.sampling import ANCHORS, REGIONS, priorities, sampled
from models.outputs import FOUND, Outputs, Scene
from utils.errors import UsageError

_SMOOTH = 1 / 9  # where the smooth L1 loss turns linear, as torchvision has it


class Proposed(NamedTuple):
    """What a region proposal network gives.

    Attributes:
        boxes: proposals of each image, [P, 4].
        anchors: of an image, [A, 4].
        objectness: of each, [B, A].
        deltas: the proposals, encoded, [B, A, 4].
    """

    boxes: list[Tensor]
    anchors: Tensor
    objectness: Tensor
    deltas: Tensor


class TwoStage(Detector):
    """A detector that proposes regions, and looks at each by itself."""

    logits_for = "softmax"
    gives = ("logits", "pooled", "regions", "labels", "box_deltas", "box_targets")

    def forward(self, images: Tensor, scene: Scene | None = None) -> Outputs:
        """As `Detector`: logits [R, K + 1] of the regions, sampled ones, the student's, or its own."""
        seen = self._look(images, scene)
        if self._taught_by(seen.scene):
            return self._taught(seen)
        if self._learns(seen.scene):
            return self._learned(seen)
        return self._on(seen, self._proposed(seen).boxes)

    def _detected(self, seen: Seen) -> Outputs:
        proposals = self._proposed(seen).boxes
        outputs = self._on(seen, proposals)
        heads = self.body.roi_heads
        with torch.autocast(outputs.logits.device.type, enabled=False):
            deltas = outputs.context["box_deltas"].flatten(1)
            parts = heads.postprocess_detections(outputs.logits.float(), deltas, proposals, seen.sizes)
        found = [Found(boxes, scores, labels - 1) for boxes, scores, labels in zip(*parts)]
        return self._with_detections(outputs, found, heads.detections_per_img)

    @property
    def classifier(self) -> nn.Linear:
        """The layer that gives the logits of regions."""
        return self.body.roi_heads.box_predictor.cls_score

    def _of_classifier(self) -> dict[str, Tensor]:
        return {"head_weight": self.classifier.weight, "head_bias": self.classifier.bias}

    def _numbered(self, _levels: Iterable[int]) -> list[str]:
        return []

    def _taught(self, seen: Seen) -> Outputs:
        """What a teacher gives for the regions of its student; its own are not computed, but where it finds objects."""
        if self._reads_only():
            return self._given(seen, None, {}, {})
        found = self._detected(seen) if self._finds() else None
        if found and self._reads_only(beside=FOUND):
            return found
        assert seen.scene.student is not None
        regions = seen.scene.student.context.get("regions")
        if regions is None:
            raise UsageError(
                f"{self._name}: a two-stage teacher looks at the regions of its student, which has none; from such a "
                "student it is read for its maps alone (fpn*, stage*)"
            )
        counts = regions[:, 0].long().bincount(minlength=len(seen.sizes)).tolist()
        outputs = self._on(seen, list(regions[:, 1:].split(counts)))
        if found:
            outputs.context.update((name, found.context[name]) for name in FOUND)
        return outputs

    def _learned(self, seen: Seen) -> Outputs:
        """What it gives for sampled regions, and its four losses, also on other targets."""
        proposed = self._proposed(seen)
        device = proposed.objectness.device.type
        precision = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)

        def losses_on(targets: Mapping[str, Tensor]) -> Tensor:
            with torch.autocast(device, *precision):
                return self._of_targets(seen, proposed, targets).context["losses"]

        if "losses_on" in self._reads and self._reads_only(beside=["losses_on"]):
            outputs = self._given(seen, None, {}, {})
        else:
            outputs = self._of_targets(seen, proposed, seen.scene.targets)
        outputs.losses_on = losses_on
        return outputs

    def _of_targets(self, seen: Seen, proposed: Proposed, targets: Mapping[str, Tensor]) -> Outputs:
        """What it gives for regions that are sampled by ``targets``, and its losses on these."""
        objects = objects_of(targets)
        regions, labels, box_targets = self._sampled(proposed.boxes, objects, seen.scene)
        outputs = self._on(seen, regions)
        with torch.autocast(labels.device.type, enabled=False):
            context = outputs.context
            image = context["regions"][:, 0].long()
            shares = _shares(image, len(objects))
            of_regions = region_losses(outputs.logits.float(), context["box_deltas"], labels, box_targets, shares)
            of_proposals = proposal_losses(self.body.rpn, *proposed[1:], objects, seen.scene)
        zero = of_regions[0].new_zeros(())
        losses = torch.stack([*of_regions, zero, *of_proposals])
        context |= {"labels": labels, "box_targets": box_targets, "losses": losses}
        return outputs

    def _proposed(self, seen: Seen) -> Proposed:
        """Proposals, as torchvision filters them."""
        rpn = self.body.rpn
        maps = list(seen.pyramid.values())
        scores, shifts = rpn.head(maps)
        with torch.autocast(maps[0].device.type, enabled=False):
            per_level = [one[0].numel() for one in scores]
            objectness = torch.cat([flat(one, 1) for one in scores], 1).squeeze(2)  # [B, A]
            deltas = torch.cat([flat(one, 4) for one in shifts], 1)  # [B, A, 4]
            anchors = self._anchors(rpn.anchor_generator, seen)
            count = len(seen.sizes)
            decoded = rpn.box_coder.decode(deltas.detach(), [anchors] * count).view(count, -1, 4)
            proposals, _ = rpn.filter_proposals(decoded, objectness, seen.sizes, per_level)
        return Proposed(proposals, anchors, objectness, deltas)

    def _on(self, seen: Seen, boxes: list[Tensor]) -> Outputs:
        """What the box head gives for regions of each image, [n, 4]."""
        heads = self.body.roi_heads
        pooled = heads.box_head(heads.box_roi_pool(seen.pyramid, boxes, [seen.canvas] * len(boxes)))  # [R, D]
        logits, deltas = heads.box_predictor(pooled)
        image = torch.cat([one.new_full((len(one), 1), number) for number, one in enumerate(boxes)])
        context = {
            "regions": torch.cat([image, torch.cat(boxes)], 1),
            "box_deltas": deltas.unflatten(1, (-1, 4)).float(),
        }
        return self._given(seen, logits, {"pooled": pooled}, context)

    @torch.no_grad()
    def _sampled(
        self, proposals: list[Tensor], objects: list[Objects], scene: Scene
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Regions of each image to learn from, among proposals and objects: boxes, labels [R], targets [R, 4]."""
        heads = self.body.roi_heads
        candidates = [torch.cat([mine, one.boxes]) for mine, one in zip(proposals, objects)]
        boxes, numbers = [one.boxes for one in objects], [one.labels for one in objects]
        matches, kinds = heads.assign_targets_to_proposals(candidates, boxes, numbers)
        regions, labels, targets = [], [], []
        sampler = heads.fg_bg_sampler
        for image, (candidate, match, kind, one) in enumerate(zip(candidates, matches, kinds, objects)):
            kind = torch.where((kind == 0) & in_ignored(candidate, one.ignored), -1, kind)
            priority = priorities(scene.index[image : image + 1], scene.epoch, len(candidate), REGIONS)
            parts = sampled(kind[None], sampler.batch_size_per_image, sampler.positive_fraction, priority)
            chosen = (parts[0] | parts[1])[0].nonzero()[:, 0]
            region, label = candidate[chosen], kind[chosen]
            truth = one.boxes if len(one.boxes) else one.boxes.new_zeros(1, 4)
            encoded = heads.box_coder.encode_single(truth[match[chosen]], region)
            regions.append(region)
            labels.append(label)
            targets.append(torch.where((label > 0)[:, None], encoded, 0.0))
        return regions, torch.cat(labels), torch.cat(targets)


def region_losses(
    logits: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor, shares: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and smooth L1 loss of the box head (Fast R-CNN, arXiv 1504.08083, equation 1).

    Both are divided by the regions of each image, then averaged over images: torchvision's where all have as many.

    Args:
        logits: [R, K + 1].
        deltas: [R, K + 1, 4], predicted.
        labels: int64 [R], 0 for background.
        targets: [R, 4], encoded.
        shares: [R], what each counts.
    """
    classes = (F.cross_entropy(logits, labels, reduction="none") * shares).sum()
    positive = (labels > 0).nonzero()[:, 0]
    distance = F.smooth_l1_loss(deltas[positive, labels[positive]], targets[positive], beta=_SMOOTH, reduction="none")
    return classes, (distance.sum(1) * shares[positive]).sum()


def _shares(image: Tensor, images: int) -> Tensor:
    """What each region counts, [R], in an average over the regions of each image and then over images."""
    return 1 / (image.bincount(minlength=images)[image] * images)


def proposal_losses(
    rpn: Any, anchors: Tensor, objectness: Tensor, deltas: Tensor, objects: list[Objects], scene: Scene
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and smooth L1 loss of sampled anchors (Faster R-CNN, equation 1), by image as above.

    Args:
        rpn: torchvision's, which matches anchors and says how many are sampled.
        anchors: [A, 4].
        objectness: [B, A].
        deltas: [B, A, 4], predicted.
        objects: of each image.
        scene: whose samples and epoch say which anchors are sampled.
    """
    with torch.no_grad():
        boxes = [{"boxes": one.boxes} for one in objects]
        labels, matched = map(torch.stack, rpn.assign_targets_to_anchors([anchors] * len(objects), boxes))
        ignored = torch.stack([in_ignored(anchors, one.ignored) for one in objects])
        labels[(labels == 0) & ignored] = -1  # [B, A]
        sampler = rpn.fg_bg_sampler
        priority = priorities(scene.index, scene.epoch, len(anchors), ANCHORS)
        positive, background = sampled(labels, sampler.batch_size_per_image, sampler.positive_fraction, priority)
        taken = positive | background
        count = taken.sum(1).clamp(min=1)  # [B]
        image, number = positive.nonzero(as_tuple=True)
        targets = rpn.box_coder.encode_single(matched[image, number], anchors[number])
    entropy = F.binary_cross_entropy_with_logits(objectness, labels.clamp(min=0), reduction="none")
    distance = F.smooth_l1_loss(deltas[image, number], targets, beta=_SMOOTH, reduction="none").sum(1)
    return ((entropy * taken).sum(1) / count).mean(), (distance / count[image]).sum() / len(objects)
