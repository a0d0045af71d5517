"""ImageNet's ResNets with a 3 x 3 stem and no pooling after it, for small images.

Module names are those of the RepDistiller and MDistiller model zoos, which call them ResNet18, ResNet50, ... B samples,
H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from models.outputs import Body, Outputs


class _Block(nn.Module):
    """Two 3 x 3 convolutions, or 1 x 1, 3 x 3 and 1 x 1 with four times the channels at its end."""

    def __init__(self, channels_in: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        channels = 4 * width if bottleneck else width
        plan = ((1, width), (3, width), (1, channels)) if bottleneck else ((3, width), (3, width))
        self.count, before = len(plan), channels_in
        for number, (kernel, after) in enumerate(plan, start=1):
            strides = kernel == 3 and (bottleneck or number == 1)
            conv = nn.Conv2d(before, after, kernel, stride if strides else 1, kernel // 2, bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(after))
            before = after
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """The sum before its ReLU; the caller rectifies. x: [B, C, H, W]."""
        y = x
        for number in range(1, self.count + 1):
            y = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(y))
            y = F.relu(y) if number < self.count else y
        return y + self.shortcut(x)


class CifarLargeResNet(Body):
    """``blocks`` in each of four stages."""

    features = (*(f"stage{n}{side}" for n in (1, 2, 3, 4) for side in ("", "_pre")), "last")

    def __init__(self, blocks: tuple[int, int, int, int], bottleneck: bool, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for number, count in enumerate(blocks, start=1):
            width, stage = 32 * 2**number, []
            for position in range(count):
                stage.append(_Block(channels, width, 2 if number > 1 and position == 0 else 1, bottleneck))
                channels = 4 * width if bottleneck else width
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        self.linear = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W] -> logits [B, K]; stages 1 to 4 at strides 1, 2, 4 and 8."""
        x = F.relu(self.bn1(self.conv1(images)))  # [B, C, H, W]
        features: dict[str, Tensor] = {}
        for number in (1, 2, 3, 4):
            for block in self.get_submodule(f"layer{number}").children():
                before = block(x)
                x = F.relu(before)
            x = self.ending(f"stage{number}", x)
            features |= {f"stage{number}_pre": before, f"stage{number}": x}
        features["last"] = x
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)  # [B, C]
        return Outputs(self.linear(pooled), features)


LARGE_RESNETS: dict[str, Callable[..., Body]] = {
    "cifar_resnet18": partial(CifarLargeResNet, (2, 2, 2, 2), False),
    "cifar_resnet34": partial(CifarLargeResNet, (3, 4, 6, 3), False),
    "cifar_resnet50": partial(CifarLargeResNet, (3, 4, 6, 3), True),
    "cifar_resnet101": partial(CifarLargeResNet, (3, 4, 23, 3), True),
    "cifar_resnet152": partial(CifarLargeResNet, (3, 8, 36, 3), True),
}
