"""What stands before the heads of a detector: the layers of a classifier, and a pyramid of its maps.

Stages are the last maps at a stride, as everywhere: `stage1`..`stage4` at strides 4 to 32, or `stage1`..`stage3` at
strides 1 to 4 of networks for small images. B images.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from models.cifar.resnet import RESNETS
from models.detectors.names import Named
from models.outputs import Body, Outputs

_SIDE = 64  # of the image that shows the stages, pixels
_FIRST = "first"  # a map of torchvision's mobile detectors beside the stages: the first block at stride 32


class Backbone(nn.Module):
    """Images -> the maps that heads look at. Parts have the names of torchvision's `BackboneWithFPN`.

    Args:
        body: images [B, 3, H, W] -> stages by name, or `Outputs` with them.
        fed: those that the pyramid is made of, fine to coarse; without one the single map that heads look at.
        fpn: the pyramid, or None.
        levels: log2 of the strides of the maps that heads look at.
        out_channels: of these.
    """

    def __init__(
        self,
        body: nn.Module,
        fed: tuple[str, ...],
        fpn: FeaturePyramidNetwork | None,
        levels: tuple[int, ...],
        out_channels: int,
    ) -> None:
        super().__init__()
        self.body = body
        self.fpn = fpn
        self.fed, self.levels, self.out_channels = fed, levels, out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """images: [B, 3, H, W] -> maps [B, C, h, w] by the names that torchvision gives them, fine to coarse."""
        return self.pyramid(self.stages(images))

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """images: [B, 3, H, W] -> the body's maps, by name."""
        made = self.body(images)
        return made.features if isinstance(made, Outputs) else dict(made)

    def pyramid(self, stages: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
        """The body's maps -> those that heads look at, as `forward` gives them."""
        fed = OrderedDict((str(number), stages[name]) for number, name in enumerate(self.fed))
        return fed if self.fpn is None else self.fpn(fed)


def backbone_of(named: Named, channels: int) -> tuple[Backbone, nn.Module | None]:
    """The backbone of a detector with random weights, ``channels`` wide; and the layers that a C4 leaves to its heads.

    A pyramid is made of the stages at strides 4 to 32 (CIFAR: 1 to 4), without the finest in one-stage detectors, as
    torchvision has it; two more levels are made by convolutions there, one by subsampling in two-stage detectors.
    """
    layers, rest = _layers(named)
    if isinstance(layers, Body):
        widths = _widths_of_small(layers)
        body: nn.Module = layers
    else:
        names, widths = _stages_of(layers, first=named.is_mobile)
        deepest = "stage3" if named.neck == "c4" else "stage4"
        body = IntermediateLayerGetter(layers, {path: one for path, one in names.items() if one <= deepest})
    if named.plain:
        level = {"c4": 4, "c5": 5}[named.neck]
        return Backbone(body, (deepest,), None, (level,), widths[deepest]), rest if named.neck == "c4" else None
    finest = 0 if isinstance(layers, Body) else 2
    fed = tuple(name for name in widths if name != _FIRST)
    levels = tuple(range(finest, finest + len(fed)))
    if named.is_mobile:
        fed, levels = (_FIRST, "stage4"), (5, 5)
    elif not named.two_stage:
        fed, levels = fed[1:], levels[1:]
    above: ExtraFPNBlock = LastLevelMaxPool()
    levels += (levels[-1] + 1,)
    if not named.two_stage:
        above = LastLevelP6P7(widths[fed[-1]] if named.second else channels, channels)
        levels += (levels[-1] + 1,)
    norm = nn.BatchNorm2d if named.two_stage and named.second else None
    fpn = FeaturePyramidNetwork([widths[name] for name in fed], channels, above, norm)
    return Backbone(body, fed, fpn, levels, channels), None


def _layers(named: Named) -> tuple[nn.Module, nn.Module | None]:
    """The layers of the classifier that give its maps, in order; and the last of a ResNet, or None."""
    if named.backbone in RESNETS:
        small = RESNETS[named.backbone](num_classes=1)
        setattr(small, "linear" if hasattr(small, "linear") else "fc", nn.Identity())
        return small, None
    if named.backbone.startswith("vgg"):
        return torchvision.models.get_model(named.backbone, weights=None).features, None
    norm = nn.BatchNorm2d  # MobileNetV3 too: as torchvision's detectors have it, with its usual epsilon
    network = torchvision.models.get_model(named.backbone, weights=None, norm_layer=norm)
    if named.is_resnet:
        kept = [(name, layer) for name, layer in network.named_children() if name not in ("avgpool", "fc")]
        return nn.Sequential(OrderedDict(kept)), network.layer4
    return network.features, None


@torch.no_grad()
def _stages_of(layers: nn.Module, *, first: bool) -> tuple[dict[str, str], dict[str, int]]:
    """Which layers give the stages, by their names, and the channels of these; with the ``first`` map at stride 32."""
    x = torch.zeros(1, 3, _SIDE, _SIDE)
    layers.eval()
    names: dict[str, str] = {}
    widths: dict[str, int] = {}
    for path, layer in layers.named_children():
        x = layer(x)
        if (level := (_SIDE // x.shape[2]).bit_length() - 1) < 2:
            continue
        if first and level == 5 and _FIRST not in widths:
            names[path], widths[_FIRST] = _FIRST, x.shape[1]
            continue
        stage = f"stage{level - 1}"
        names = {other: one for other, one in names.items() if one != stage} | {path: stage}
        widths[stage] = x.shape[1]
    layers.train()
    return names, widths


@torch.no_grad()
def _widths_of_small(network: Body) -> dict[str, int]:
    """The channels of the stages of a network for small images."""
    features = network.eval()(torch.zeros(1, 3, 8, 8)).features
    network.train()
    return {f"stage{number}": features[f"stage{number}"].shape[1] for number in (1, 2, 3)}
