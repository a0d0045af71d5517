"""A student that ends with its teacher's classifier (SimKD). B samples, C channels, H x W pixels, K classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.heads.contract import Backbone, Head, head
from models.outputs import Behind, Body, Outputs
from utils.errors import UsageError

_CLASSIFIER = "teacher_classifier.weight"  # [K, C_t]


@head("reused")
@dataclass(frozen=True, kw_only=True)
class Reused(Head):
    """A projector and a teacher's classifier, frozen.

    Attributes:
        teacher: its name.
    """

    teacher: str = "teacher"

    @property
    def takes(self) -> tuple[str, ...]:
        """The teacher."""
        return (self.teacher,)

    def attach(self, backbone: Backbone) -> nn.Module:
        """The network with the teacher's classifier, or shaped for the one in the state dict where there is no teacher.

        Raises:
            UsageError: there is neither, the teacher has no linear classifier, or one for other classes.
        """
        body, key = backbone.giving("last"), f"head.options.teacher={self.teacher}"
        teacher = backbone.others.get(self.teacher)
        if teacher is None:
            if not self.is_in(backbone.state):
                known = ", ".join(backbone.others) or "none"
                raise UsageError(f"{key}: no such teacher (there is {known}), and no weights that hold its classifier")
            return Projected(body, backbone.state[_CLASSIFIER].shape[1], backbone.num_classes, backbone.side)
        if teacher.classifier is None:
            raise UsageError(f"{key}: it has no linear classifier")
        if teacher.num_classes != backbone.num_classes:
            raise UsageError(f"{key}: it has {teacher.num_classes} outputs, the student {backbone.num_classes}")
        network = Projected(body, teacher.classifier.in_features, backbone.num_classes, backbone.side)
        network.reuse(teacher.classifier)
        return network

    def is_in(self, state: Mapping[str, Tensor]) -> bool:
        """Whether ``state`` holds a teacher's classifier."""
        return _CLASSIFIER in state


class Projected(Behind):
    """The student's layers up to the last map, a projector to the teacher's channels, and the teacher's classifier.

    Chen et al., Knowledge distillation with the reused teacher classifier, CVPR 2022, arXiv 2203.14001, section 3.2 and
    figure 4: convolutions of 1 x 1, 3 x 3 and 1 x 1 pixels with batch norm and ReLU, half as wide between as behind.

    Args:
        body: images -> `last` among its features.
        channels: of the teacher's last map, C_t.
        num_classes: K.
        side: of the images, pixels.
    """

    def __init__(self, body: Body, channels: int, num_classes: int, side: int) -> None:
        super().__init__(body, "last", side, gives=("last",))
        between = max(1, channels // 2)
        self.projector = nn.Sequential(
            *_layer(self.channels, between, 1), *_layer(between, between, 3), *_layer(between, channels, 1)
        )
        self.teacher_classifier = nn.Linear(channels, num_classes).requires_grad_(False)

    def behind(self, features: Mapping[str, Tensor]) -> Outputs:
        """last [B, C, H, W] -> logits [B, K]; last [B, C_t, H, W], projected."""
        last = self.projector(features["last"])
        return Outputs(self.teacher_classifier(last.mean((2, 3))), {"last": last})

    def reuse(self, classifier: nn.Linear) -> None:
        """Take over a teacher's classifier [K, C_t]."""
        with torch.no_grad():
            self.teacher_classifier.weight.copy_(classifier.weight)
            self.teacher_classifier.bias.copy_(0 if classifier.bias is None else classifier.bias)


def _layer(channels_in: int, channels: int, size: int) -> tuple[nn.Module, ...]:
    """[B, channels_in, H, W] -> [B, channels, H, W]."""
    conv = nn.Conv2d(channels_in, channels, size, padding=size // 2, bias=False)
    return conv, nn.BatchNorm2d(channels), nn.ReLU()
