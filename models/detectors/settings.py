"""Settings of detectors."""

from __future__ import annotations

from dataclasses import dataclass

from utils.settings import setting


@dataclass(frozen=True)
class DetectorConfig:
    """What a detector samples, proposes, keeps, and how large its parts are; classifiers have no use for it."""

    regions: int = setting(512, least=1, also=("box_batch_size_per_image",))
    """regions of an image that the box head of a two-stage detector learns from"""
    positive_share: float = setting(0.25, above=0, most=1, also=("box_positive_fraction",))
    """share of them that may lie on objects; background fills up"""
    proposals_before_nms: tuple[int, int] | None = setting(None, least=1)
    """proposals of each level, best first, of which those are taken that do not overlap: in training and in evaluation;
    those of torchvision's detector (2000,1000) when not given"""
    proposals_after_nms: tuple[int, int] | None = setting(None, least=1)
    """proposals of an image that are then kept, likewise"""
    detections: int = setting(100, least=1, also=("box_detections_per_img", "detections_per_img"))
    """detections of an image that are kept, best first; COCO counts 100"""
    score_threshold: float | None = setting(None, least=0, below=1, also=("box_score_thresh", "score_thresh"))
    """lowest score of a detection; that of torchvision's detector (0.05, FCOS 0.2) when not given"""
    nms: float | None = setting(None, above=0, most=1, also=("box_nms_thresh", "nms_thresh"))
    """overlap (IoU) of two detections of a class above which the worse one is dropped; that of torchvision's detector
    (0.5, FCOS 0.6) when not given"""
    anchor_size: int | None = setting(None, least=1)
    """side of the finest anchors, pixels of the canvas; each level doubles it. 8 times the stride of the finest level
    of a two-stage detector, 4 times that of RetinaNet, 32 without a pyramid, when not given, as torchvision has them;
    FCOS has no anchors"""
    channels: int = setting(256, least=1)
    """channels of the pyramid, and so of the towers; FCOS and fpn_v2 of RetinaNet want a multiple of 32"""
    representation: int = setting(1024, least=1)
    """numbers that the box head makes of a region, for the layers that predict its class and box"""
