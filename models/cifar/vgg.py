"""VGG with batch norm for small images (Simonyan and Zisserman, ICLR 2015, arXiv 1409.1556, table 1, one linear layer).

Module names are those of the RepDistiller and MDistiller model zoos, which call these vgg8_bn to vgg19_bn in code and
vgg8 to vgg19 in tables. B samples, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from models.outputs import Body, Outputs

_WIDTHS = (64, 128, 256, 512, 512)


class CifarVgg(Body):
    """Five blocks of 3 x 3 convolutions, ``convolutions`` in each; the pooling between the last two is left out."""

    features = (*(f"stage{n}{side}" for n in (1, 2, 3, 4) for side in ("", "_pre")), "last")

    def __init__(self, convolutions: tuple[int, int, int, int, int], num_classes: int) -> None:
        super().__init__()
        channels = 3
        for number, (count, width) in enumerate(zip(convolutions, _WIDTHS)):
            self.add_module(f"block{number}", _block(channels, width, count))
            channels = width
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W] -> logits [B, K]; stages 1 to 4 at strides 2, 4, 8 and 8."""
        x = F.relu(self.get_submodule("block0")(images))  # [B, C, H, W]
        features: dict[str, Tensor] = {}
        for number in (1, 2, 3, 4):
            before = self.get_submodule(f"block{number}")(F.max_pool2d(x, 2) if number < 4 else x)
            x = self.ending(f"stage{number}", F.relu(before))
            features |= {f"stage{number}_pre": before, f"stage{number}": x}
        features["last"] = x
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)  # [B, C]
        return Outputs(self.classifier(pooled), features)


def _block(channels_in: int, channels: int, count: int) -> nn.Sequential:
    """``count`` convolutions with norms, and ReLUs between them."""
    layers: list[nn.Module] = []
    for number in range(count):
        conv = nn.Conv2d(channels if number else channels_in, channels, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


VGGS: dict[str, Callable[..., Body]] = {
    "cifar_vgg8": partial(CifarVgg, (1, 1, 1, 1, 1)),
    "cifar_vgg11": partial(CifarVgg, (1, 1, 2, 2, 2)),
    "cifar_vgg13": partial(CifarVgg, (2, 2, 2, 2, 2)),
    "cifar_vgg16": partial(CifarVgg, (2, 2, 3, 3, 3)),
    "cifar_vgg19": partial(CifarVgg, (2, 2, 4, 4, 4)),
}
