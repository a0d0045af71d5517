"""Detectors as torchvision's own classes, so that names of state dicts are theirs. K classes, without background."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from models.detectors.backbones import backbone_of
from models.detectors.names import Named
from models.detectors.settings import DetectorConfig
from utils.errors import UsageError

_POOLED = 7  # side of the map that is pooled for a region
_GROUPS = 32  # of group norms
_RATIOS = (0.5, 1.0, 2.0)  # height over width of anchors
_SCORES = {"fcos": (0.2, 0.6)}  # lowest score, and overlap; of the others (0.05, 0.5)


def made(named: Named, config: DetectorConfig, num_classes: int) -> nn.Module:
    """The detector with random weights: torchvision's `FasterRCNN`, `RetinaNet` or `FCOS`, with K + 1 outputs.

    Raises:
        UsageError: a setting does not go with it.
    """
    if named.two_stage:
        return _two_stage(named, config, num_classes)
    return _one_stage(named, config, num_classes)


class Layer4(nn.Module):
    """The box head of a C4: the last layer of the ResNet on the map of each region, averaged."""

    def __init__(self, layer4: nn.Module) -> None:
        super().__init__()
        self.layer4 = layer4

    def forward(self, regions: Tensor) -> Tensor:
        """regions: [R, 1024, 14, 14] -> [R, 2048]; 256 and 512 channels of ResNet-18 and 34."""
        return self.layer4(regions).mean((2, 3))


def _two_stage(named: Named, config: DetectorConfig, num_classes: int) -> nn.Module:
    backbone, layer4 = backbone_of(named, config.channels)
    channels, second = backbone.out_channels, named.second
    pooled, width = _POOLED, config.representation
    if layer4 is not None:
        pooled, head = 2 * _POOLED, Layer4(layer4)  # which halves it
        width = _width(layer4)
    elif second:
        head = FastRCNNConvFCHead((channels, _POOLED, _POOLED), [channels] * 4, [width], norm_layer=nn.BatchNorm2d)
    else:
        head = TwoMLPHead(channels * _POOLED**2, width)
    finest = config.anchor_size or (32 if named.plain or named.is_mobile else 8 * 2 ** backbone.levels[0])
    sizes = [(finest * 2**level,) for level in range(len(backbone.levels))]
    if named.plain or named.is_mobile:
        sizes = [tuple(finest * 2**level for level in range(5))] * len(sizes)
    anchors = AnchorGenerator(tuple(sizes), (_RATIOS,) * len(sizes))
    fed = [str(number) for number in range(len(backbone.fed))]
    before = config.proposals_before_nms or (2000, 150 if named.neck == "320_fpn" else 1000)
    after = config.proposals_after_nms or (2000, 150 if named.neck == "320_fpn" else 1000)
    threshold, overlap = _detection(named, config)
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(channels, anchors.num_anchors_per_location()[0], conv_depth=2 if second else 1),
        rpn_pre_nms_top_n_train=before[0],
        rpn_pre_nms_top_n_test=before[1],
        rpn_post_nms_top_n_train=after[0],
        rpn_post_nms_top_n_test=after[1],
        rpn_score_thresh=0.05 if named.is_mobile else 0.0,
        box_roi_pool=MultiScaleRoIAlign(fed, pooled, sampling_ratio=2),
        box_head=head,
        box_predictor=FastRCNNPredictor(width, num_classes + 1),
        box_score_thresh=threshold,
        box_nms_thresh=overlap,
        box_detections_per_img=config.detections,
        box_batch_size_per_image=config.regions,
        box_positive_fraction=config.positive_share,
    )


def _one_stage(named: Named, config: DetectorConfig, num_classes: int) -> nn.Module:
    fcos = named.detector == "fcos"
    if (fcos or named.second) and config.channels % _GROUPS:
        raise UsageError(f"detector.channels={config.channels}: {named.name} wants a multiple of {_GROUPS}")
    if fcos and config.anchor_size is not None:
        raise UsageError(f"detector.anchor_size: {named.name} has no anchors: leave it out")
    backbone, _ = backbone_of(named, config.channels)
    threshold, overlap = _detection(named, config)
    kept: dict[str, Any] = {
        "score_thresh": threshold,
        "nms_thresh": overlap,
        "detections_per_img": config.detections,
    }
    if fcos:
        points = AnchorGenerator(tuple((2**level,) for level in backbone.levels), ((1.0,),) * len(backbone.levels))
        return FCOS(backbone, num_classes + 1, anchor_generator=points, **kept)
    finest = config.anchor_size or (32 if named.plain else 4 * 2 ** backbone.levels[0])
    octaves = [_octave(finest * 2**level) for level in range(5 if named.plain else len(backbone.levels))]
    sizes = (sum(octaves, ()),) if named.plain else tuple(octaves)
    anchors = AnchorGenerator(sizes, (_RATIOS,) * len(sizes))
    norm = _group_norm if named.second else None
    count = anchors.num_anchors_per_location()[0]
    head = RetinaNetHead(backbone.out_channels, count, num_classes + 1, norm_layer=norm)
    if named.second:
        head.regression_head._loss_type = "giou"  # as torchvision's builder says it
    return RetinaNet(backbone, num_classes + 1, anchor_generator=anchors, head=head, **kept)


def _octave(size: int) -> tuple[int, ...]:
    """Three sizes of anchors between one and its double, as RetinaNet has them (arXiv 1708.02002, section 4)."""
    return tuple(int(size * 2 ** (third / 3)) for third in range(3))


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(_GROUPS, channels)


def _detection(named: Named, config: DetectorConfig) -> tuple[float, float]:
    """Lowest score of a detection, and the overlap of two of a class from which the worse one is dropped."""
    threshold, overlap = _SCORES.get(named.detector, (0.05, 0.5))
    return (
        threshold if config.score_threshold is None else config.score_threshold,
        overlap if config.nms is None else config.nms,
    )


def _width(layer: nn.Module) -> int:
    """Channels that a stage of a ResNet gives."""
    return [one for one in layer.modules() if isinstance(one, nn.Conv2d)][-1].out_channels
