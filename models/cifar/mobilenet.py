"""MobileNetV2 for small images (Sandler et al., CVPR 2018, arXiv 1801.04381), at half width.

Module names are those of the RepDistiller and MDistiller model zoos. B samples, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from models.outputs import Body, Outputs

_GROUPS = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STAGE_ENDS = {1: 1, 2: 2, 4: 3, 6: 4}  # group: the stage that it ends


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = channels_in * expansion
        self.conv = nn.Sequential(
            *(nn.Conv2d(channels_in, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()),
            *(nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False), nn.BatchNorm2d(middle), nn.ReLU()),
            *(nn.Conv2d(middle, channels, 1, bias=False), nn.BatchNorm2d(channels)),
        )
        self.residual = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W]."""
        return x + self.conv(x) if self.residual else self.conv(x)


class CifarMobileNetV2(Body):
    """``width`` times the published channels, and 1280 before the classifier."""

    features = (*(f"stage{n}{side}" for n in (1, 2, 3, 4) for side in ("", "_pre")), "last")

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        channels = int(32 * width)
        self.conv1 = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.blocks = nn.ModuleList()
        for expansion, published, count, stride in _GROUPS:
            group = []
            for number in range(count):
                group.append(_Block(channels, int(published * width), stride if number == 0 else 1, expansion))
                channels = int(published * width)
            self.blocks.append(nn.Sequential(*group))
        self.conv2 = nn.Sequential(nn.Conv2d(channels, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(1280, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # of depthwise ones PyTorch counts the fan of a single group
                nn.init.normal_(module.weight, 0, (2 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W] -> logits [B, K]; stages 1 to 4 at strides 2, 4, 8 and 16.

        A stage of this network ends without a ReLU, so `stageN_pre` is `stageN`.
        """
        x = self.conv1(images)  # [B, C, H, W]
        features: dict[str, Tensor] = {}
        for number, group in enumerate(self.blocks):
            x = group(x)
            if stage := _STAGE_ENDS.get(number):
                x = self.ending(f"stage{stage}", x)
                features |= {f"stage{stage}": x, f"stage{stage}_pre": x}
        x = self.conv2(x)
        features["last"] = x
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)  # [B, C]
        return Outputs(self.classifier(pooled), features)


MOBILENETS: dict[str, Callable[..., Body]] = {"cifar_mobilenetv2": partial(CifarMobileNetV2, 0.5)}
