"""A student that ends with its teacher's classifier (SimKD). B samples, C channels, H x W pixels, K classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.outputs import Body, Outputs

_HEAD = "teacher_classifier"


class Reused(Body):
    """The student's layers up to the last map, a projector to the teacher's channels, the teacher's classifier at rest.

    Chen et al., Knowledge distillation with the reused teacher classifier, CVPR 2022, arXiv 2203.14001, section 3.2 and
    figure 4: convolutions of 1 x 1, 3 x 3 and 1 x 1 pixels with batch norm and ReLU, half as wide between as behind.

    Args:
        body: images -> `last` among its features; what stands behind that map, its own classifier, is at rest too.
        channels: of the teacher's last map, C_t.
        num_classes: K.
        side: of the images, pixels.
    """

    features = ("last", "pooled")

    def __init__(self, body: Body, channels: int, num_classes: int, side: int) -> None:
        super().__init__()
        self.body = body
        between = max(1, channels // 2)
        own = _cut_behind_last(body, side)
        self.projector = nn.Sequential(
            *_layer(own, between, 1), *_layer(between, between, 3), *_layer(between, channels, 1)
        )
        self.teacher_classifier = nn.Linear(channels, num_classes).requires_grad_(False)

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W] -> logits [B, K]; last [B, C_t, H', W'], projected, and pooled [B, C_t]."""
        last = self.projector(self.body(images).features["last"])
        pooled = last.mean((2, 3))
        return Outputs(self.teacher_classifier(pooled), {"last": last, "pooled": pooled})

    def reuse(self, head: nn.Linear) -> None:
        """Take over a teacher's classifier [K, C_t]."""
        with torch.no_grad():
            self.teacher_classifier.weight.copy_(head.weight)
            self.teacher_classifier.bias.copy_(0 if head.bias is None else head.bias)


def reused_channels(state: Mapping[str, Tensor]) -> int | None:
    """Channels of the teacher's last map in a state dict of `Reused`, None in others."""
    return state[f"{_HEAD}.weight"].shape[1] if f"{_HEAD}.weight" in state else None


def _cut_behind_last(body: Body, side: int) -> int:
    """Put the parameters that the last map does not depend on at rest; returns its channels."""
    training = body.training
    last = body.eval()(torch.zeros(1, 3, side, side)).features["last"]
    body.train(training)
    parameters = [parameter for parameter in body.parameters() if parameter.requires_grad]
    for parameter, gradient in zip(parameters, torch.autograd.grad(last.sum(), parameters, allow_unused=True)):
        parameter.requires_grad_(gradient is not None)
    return last.shape[1]


def _layer(channels_in: int, channels: int, size: int) -> tuple[nn.Module, ...]:
    """[B, channels_in, H, W] -> [B, channels, H, W]."""
    conv = nn.Conv2d(channels_in, channels, size, padding=size // 2, bias=False)
    return conv, nn.BatchNorm2d(channels), nn.ReLU()
