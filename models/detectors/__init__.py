"""Detectors by name: torchvision's Faster R-CNN, RetinaNet, FCOS and the box part of Mask R-CNN as networks."""

from models.detectors.names import is_detector
from models.detectors.settings import DetectorConfig

__all__ = ["DetectorConfig", "is_detector"]
