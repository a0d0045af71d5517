"""Wide ResNets for small images (Zagoruyko and Komodakis, BMVC 2016, arXiv 1605.07146).

Pre-activation networks: a stage ends with a sum, and the norm and ReLU that belong to it begin what follows. Module
names are those of the RepDistiller and MDistiller model zoos. B samples, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from models.outputs import Body, Outputs


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.convShortcut: nn.Module | None = None
        if channels_in != channels:
            self.convShortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor, active: Tensor) -> Tensor:
        """x: [B, C, H, W], the sum before; active: the same after `bn1` and a ReLU."""
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        return self.conv2(F.relu(self.bn2(self.conv1(active)))) + shortcut


class _Stage(nn.Module):
    def __init__(self, channels_in: int, channels: int, blocks: int, stride: int) -> None:
        super().__init__()
        first = _Block(channels_in, channels, stride)
        self.layer = nn.ModuleList([first, *(_Block(channels, channels, 1) for _ in range(blocks - 1))])


class WideResNet(Body):
    """depth = 6n + 4 layers, stages of 16, 32 and 64 times ``width`` channels."""

    features = (*(f"stage{n}{side}" for n in (1, 2, 3) for side in ("", "_pre", "_sum")), "last")

    def __init__(self, depth: int, width: int, num_classes: int) -> None:
        super().__init__()
        assert (depth - 4) % 6 == 0
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = _Stage(16, 16 * width, blocks, 1)
        self.block2 = _Stage(16 * width, 32 * width, blocks, 2)
        self.block3 = _Stage(32 * width, 64 * width, blocks, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W] -> logits [B, K]; stages 1 to 3 at strides 1, 2 and 4.

        `stageN_sum` is what a stage ends with and what MDistiller's methods read; `stageN_pre` the norm after it.
        """
        x = self.conv1(images)  # [B, C, H, W]
        features: dict[str, Tensor] = {}

        def normed(x: Tensor, norm: nn.Module, ends: int | None) -> Tensor:
            before = norm(x)
            active = F.relu(before)
            if ends:
                features.update({f"stage{ends}": active, f"stage{ends}_pre": before, f"stage{ends}_sum": x})
            return active

        for number, stage in enumerate((self.block1, self.block2, self.block3)):
            for position, block in enumerate(stage.layer.children()):
                x = block(x, normed(x, block.get_submodule("bn1"), number if position == 0 else None))
            x = self.ending(f"stage{number + 1}_sum", x)
        x = normed(x, self.bn1, 3)
        features["last"] = x
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)  # [B, C]
        return Outputs(self.fc(pooled), features)


WIDE_RESNETS: dict[str, Callable[..., Body]] = {
    f"cifar_wrn_{depth}_{width}": partial(WideResNet, depth, width) for depth in (16, 40) for width in (1, 2)
}
