"""ResNets for small images: 6n + 2 layers in three stages (He et al., CVPR 2016, arXiv 1512.03385, section 4.2).

Shortcuts that change shape are 1 x 1 convolutions, and module names those of the RepDistiller and MDistiller model
zoos, so that their checkpoints load. B samples, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from models.outputs import Outputs


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The sum before its ReLU; the caller rectifies."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut


class CifarResNet(nn.Module):
    """depth = 6n + 2 layers; ``widths`` are the channels of the stem and the three stages."""

    def __init__(self, depth: int, widths: tuple[int, int, int, int], num_classes: int) -> None:
        super().__init__()
        assert (depth - 2) % 6 == 0
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[1], blocks, 1)
        self.layer2 = _stage(widths[1], widths[2], blocks, 2)
        self.layer3 = _stage(widths[2], widths[3], blocks, 2)
        self.fc = nn.Linear(widths[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W] -> logits [B, K]; stage1..3 and stage1..3_pre at strides 1, 2 and 4; pooled [B, C]."""
        x = F.relu(self.bn1(self.conv1(images)))  # [B, C, H, W]
        features: dict[str, Tensor] = {}
        for number, stage in enumerate((self.layer1, self.layer2, self.layer3), start=1):
            for block in stage:
                before = block(x)
                x = F.relu(before)
            features |= {f"stage{number}_pre": before, f"stage{number}": x}
        features["pooled"] = F.adaptive_avg_pool2d(x, 1).flatten(1)  # [B, C]
        return Outputs(self.fc(features["pooled"]), features)


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = _Block(channels_in, channels, stride)
    return nn.Sequential(first, *(_Block(channels, channels, 1) for _ in range(blocks - 1)))


FEATURES = (*(f"stage{number}{side}" for number in (1, 2, 3) for side in ("", "_pre")), "pooled")

_THIN, _WIDE = (16, 16, 32, 64), (32, 64, 128, 256)

RESNETS: dict[str, Callable[..., nn.Module]] = {
    **{f"cifar_resnet{depth}": partial(CifarResNet, depth, _THIN) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"cifar_resnet{depth}x4": partial(CifarResNet, depth, _WIDE) for depth in (8, 32)},
}
