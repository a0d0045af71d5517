"""ShuffleNets for small images: V1 with three groups (Zhang et al., CVPR 2018, arXiv 1707.01083) and V2 at width 1
(Ma et al., ECCV 2018, arXiv 1807.11164).

Module names are those of the RepDistiller and MDistiller model zoos. B samples, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.outputs import Body, Outputs

_STAGES = (*(f"stage{n}{side}" for n in (1, 2, 3) for side in ("", "_pre")), "last")


class _BlockV1(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int, groups: int, first: bool) -> None:
        super().__init__()
        self.stride, self.groups = stride, 1 if first else groups
        made = channels - channels_in if stride == 2 else channels  # the rest is the pooled shortcut
        middle = made // 4
        self.conv1 = nn.Conv2d(channels_in, middle, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, made, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(made)

    def forward(self, x: Tensor) -> Tensor:
        """The sum or concatenation before its ReLU; the caller rectifies. x: [B, C, H, W]."""
        y = F.channel_shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1) if self.stride == 2 else y + x


class CifarShuffleNetV1(Body):
    """Stages of 240, 480 and 960 channels."""

    features = _STAGES

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        before = 24
        for number, (channels, count) in enumerate(((240, 4), (480, 8), (960, 4)), start=1):
            blocks = [_BlockV1(before, channels, 2, 3, first=number == 1)]
            blocks += [_BlockV1(channels, channels, 1, 3, first=False) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            before = channels
        self.linear = nn.Linear(before, num_classes)

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W] -> logits [B, K]; stages 1 to 3 at strides 2, 4 and 8."""
        x = F.relu(self.bn1(self.conv1(images)))  # [B, C, H, W]
        features: dict[str, Tensor] = {}
        for number in (1, 2, 3):
            for block in self.get_submodule(f"layer{number}").children():
                before = block(x)
                x = F.relu(before)
            x = self.ending(f"stage{number}", x)
            features |= {f"stage{number}_pre": before, f"stage{number}": x}
        features["last"] = x
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)  # [B, C]
        return Outputs(self.linear(pooled), features)


class _BlockV2(nn.Module):
    """Half of the channels pass through."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, C, H, W] -> the halves side by side before the last ReLU, and after it."""
        passed, x = x.chunk(2, 1)
        before = self.bn3(self.conv3(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))))
        return torch.cat([passed, before], 1), torch.cat([passed, F.relu(before)], 1)


class _DownV2(nn.Module):
    """Halves the resolution; both halves are made of all channels."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, 2, 1, groups=channels_in, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv2 = nn.Conv2d(channels_in, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(channels_in, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `_BlockV2.forward`."""
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        right = self.bn5(self.conv5(self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))))
        before = torch.cat([left, right], 1)
        return before, F.relu(before)


class CifarShuffleNetV2(Body):
    """Stages of 116, 232 and 464 channels, and 1024 before the classifier."""

    features = _STAGES

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        before = 24
        for number, (channels, count) in enumerate(((116, 3), (232, 7), (464, 3)), start=1):
            blocks = [_DownV2(before, channels), *(_BlockV2(channels) for _ in range(count))]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            before = channels
        self.conv2 = nn.Conv2d(before, 1024, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1024)
        self.linear = nn.Linear(1024, num_classes)

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W] -> logits [B, K]; stages 1 to 3 at strides 2, 4 and 8."""
        x = F.relu(self.bn1(self.conv1(images)))  # [B, C, H, W]
        features: dict[str, Tensor] = {}
        for number in (1, 2, 3):
            for block in self.get_submodule(f"layer{number}").children():
                before, x = block(x)
                x = F.channel_shuffle(x, 2)
            x = self.ending(f"stage{number}", x)
            features |= {f"stage{number}_pre": before, f"stage{number}": x}
        x = F.relu(self.bn2(self.conv2(x)))
        features["last"] = x
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)  # [B, C]
        return Outputs(self.linear(pooled), features)


SHUFFLENETS: dict[str, Callable[..., Body]] = {
    "cifar_shufflenetv1": CifarShuffleNetV1,
    "cifar_shufflenetv2": CifarShuffleNetV2,
}
