"""The grammar of names: `{detector}_{backbone}_{neck}`, such as fasterrcnn_resnet50_fpn or retinanet_vgg16_c5."""

from __future__ import annotations

import difflib
from typing import NamedTuple

from torchvision.models import detection, list_models

from models.cifar.resnet import RESNETS
from utils.errors import UsageError

DETECTORS = ("fasterrcnn", "maskrcnn", "retinanet", "fcos")
_RESNETS = tuple(f"resnet{depth}" for depth in (18, 34, 50, 101, 152))
_VGGS = ("vgg11", "vgg11_bn", "vgg16", "vgg16_bn")
_MOBILENETS = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")


class Named(NamedTuple):
    """A name, in parts.

    Attributes:
        name: all of it.
        detector: one of DETECTORS.
        backbone: name of the classifier whose layers it is.
        neck: fpn, fpn_v2, 320_fpn, c4 or c5.
    """

    name: str
    detector: str
    backbone: str
    neck: str

    @property
    def two_stage(self) -> bool:
        """Whether it looks at regions that it proposes itself."""
        return self.detector in ("fasterrcnn", "maskrcnn")

    @property
    def second(self) -> bool:
        """Whether it is of the second version of torchvision's detectors."""
        return self.neck == "fpn_v2"

    @property
    def plain(self) -> bool:
        """Whether it has one map in place of a pyramid."""
        return self.neck in ("c4", "c5")

    @property
    def is_mobile(self) -> bool:
        """Whether it is one of the two that torchvision made for mobile use, each with a pyramid of its own kind."""
        return self.detector == "fasterrcnn" and self.backbone == "mobilenet_v3_large" and not self.second

    @property
    def is_resnet(self) -> bool:
        """Whether the backbone is a ResNet of torchvision."""
        return self.backbone in _RESNETS

    @property
    def is_published(self) -> bool:
        """Whether torchvision has a detector of this name, and so weights."""
        return self.name in list_models(module=detection)


def is_detector(name: str) -> bool:
    """Whether a network's name is that of a detector, or begins like one; import paths are of classifiers."""
    return ":" not in name and name.partition("_")[0] in DETECTORS


def parsed(name: str) -> Named:
    """A detector's name, in parts.

    Raises:
        UsageError: there is none of this name; near names are given.
    """
    known = _known()
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, n=3))
        raise UsageError(
            f"no detector {name!r}{near and f'; near: {near}'}. Names are DETECTOR_BACKBONE_NECK: one of "
            f"{', '.join(DETECTORS)}; one of {', '.join((*_RESNETS, *_MOBILENETS, *_VGGS))}, or a cifar_resnet; fpn, "
            "fpn_v2 (not of FCOS), and of ResNets and VGGs c4 or c5"
        )
    return known[name]


def _known() -> dict[str, Named]:
    """All that there are, by name."""
    found: dict[str, Named] = {}
    for detector in DETECTORS:
        for backbone in (*_RESNETS, *_MOBILENETS, *_VGGS, *RESNETS):
            necks = ["fpn"] if detector == "fcos" else ["fpn", "fpn_v2"]
            necks += ["c4", "c5"] if backbone in (*_RESNETS, *_VGGS) else []
            necks += ["320_fpn"] if (detector, backbone) == ("fasterrcnn", "mobilenet_v3_large") else []
            for neck in necks:
                name = f"{detector}_{backbone}_{neck}"
                found[name] = Named(name, detector, backbone, neck)
    return found
