"""ResNets for small images: 6n + 2 layers in three stages (He et al., CVPR 2016, arXiv 1512.03385, section 4.2).

Shortcuts that change shape are 1 x 1 convolutions, and module names those of the RepDistiller and MDistiller model
zoos, so that their checkpoints load. The `_a` networks have the paper's option A instead, shortcuts without parameters,
and the names of akamaster/pytorch_resnet_cifar10. B samples, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from models.outputs import Body, Outputs


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int, padded: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            grown = channels - channels_in
            self.downsample = _Padding(stride, grown) if padded else nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """The sum before its ReLU; the caller rectifies."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut


class _Padding(nn.Module):
    """A shortcut without parameters: every ``stride``-th pixel, and ``grown`` channels of zeros, half on each side."""

    def __init__(self, stride: int, grown: int) -> None:
        super().__init__()
        self.stride, self.side = stride, grown // 2

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W]."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.side, self.side))


class CifarResNet(Body):
    """depth = 6n + 2 layers; ``widths`` are the channels of the stem and the three stages."""

    features = (*(f"stage{n}{side}" for n in (1, 2, 3) for side in ("", "_pre")), "last")

    def __init__(
        self, depth: int, widths: tuple[int, int, int, int], num_classes: int, *, padded: bool = False
    ) -> None:
        super().__init__()
        assert (depth - 2) % 6 == 0
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[1], blocks, 1, padded)
        self.layer2 = _stage(widths[1], widths[2], blocks, 2, padded)
        self.layer3 = _stage(widths[2], widths[3], blocks, 2, padded)
        self.fc = nn.Linear(widths[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W] -> logits [B, K]; stage1..3 and stage1..3_pre at strides 1, 2 and 4."""
        x = F.relu(self.bn1(self.conv1(images)))  # [B, C, H, W]
        features: dict[str, Tensor] = {}
        for number, stage in enumerate((self.layer1, self.layer2, self.layer3), start=1):
            for block in stage:
                before = block(x)
                x = F.relu(before)
            x = self.ending(f"stage{number}", x)
            features |= {f"stage{number}_pre": before, f"stage{number}": x}
        features["last"] = x
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)  # [B, C]
        return Outputs(self.classify(pooled), features)

    def classify(self, pooled: Tensor) -> Tensor:
        """pooled: [B, C] -> logits [B, K]."""
        return self.fc(pooled)


class PaddedCifarResNet(CifarResNet):
    """With option A of the paper."""

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__(depth, _THIN, num_classes, padded=True)
        self.linear = self.fc
        del self.fc

    def classify(self, pooled: Tensor) -> Tensor:
        """pooled: [B, C] -> logits [B, K]."""
        return self.linear(pooled)


def _stage(channels_in: int, channels: int, blocks: int, stride: int, padded: bool) -> nn.Sequential:
    first = _Block(channels_in, channels, stride, padded)
    return nn.Sequential(first, *(_Block(channels, channels, 1, padded) for _ in range(blocks - 1)))


_THIN, _WIDE = (16, 16, 32, 64), (32, 64, 128, 256)

RESNETS: dict[str, Callable[..., Body]] = {
    **{f"cifar_resnet{depth}": partial(CifarResNet, depth, _THIN) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"cifar_resnet{depth}x4": partial(CifarResNet, depth, _WIDE) for depth in (8, 32)},
    **{f"cifar_resnet{depth}_a": partial(PaddedCifarResNet, depth) for depth in (20, 32, 44, 56, 110)},
}
