"""The second classifier of DeiT, which a token of its own is behind. B samples, K classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from models.heads.contract import Backbone, Head, head
from models.outputs import Body, Outputs, Tap, Tapped
from models.taps import classifier_of
from utils.errors import UsageError

_INSIDE = "body.network.network."  # before the names that the network's library has


@head("distilled")
@dataclass(frozen=True, kw_only=True)
class Distilled(Head):
    """Both classifiers of timm's `deit_*_distilled_*`, each for itself in training.

    Touvron et al., ICML 2021, arXiv 2012.12877, section 4.
    """

    is_exported = False

    def attach(self, backbone: Backbone) -> nn.Module:
        """The network, which gives `token` too.

        Raises:
            UsageError: it has no second classifier.
        """
        if getattr(backbone.network, "head_dist", None) is None:
            raise UsageError(
                f"head.name=distilled: {type(backbone.network).__name__} has no distillation token, as "
                "timm/deit_tiny_distilled_patch16_224 has"
            )
        return TwoClassifiers(backbone.giving("last"), backbone.num_classes)

    def is_in(self, state: Mapping[str, Tensor]) -> bool:
        """Whether ``state`` is of such a network as it is trained."""
        return f"{_INSIDE}head_dist.weight" in state

    def exported(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict with the names that the network has in timm."""
        result = OrderedDict((name.removeprefix(_INSIDE), value) for name, value in state.items())
        result._metadata = getattr(state, "_metadata", {})  # type: ignore[attr-defined]
        return result


class TwoClassifiers(Body):
    """A network with two classifiers: the first gives the logits in training, the average of both in evaluation.

    `pooled` [B, C] is what the first is given, `token` [B, K] what the second gives.

    Args:
        body: images -> the average of both.
        num_classes: K.

    Raises:
        UsageError: the first is no linear layer.
    """

    def __init__(self, body: Body, num_classes: int) -> None:
        super().__init__()
        self.features = (*dict.fromkeys((*body.features, "pooled", "token")),)
        first = "network.head"
        found = classifier_of(body.get_submodule(first), num_classes)
        if found is None:
            raise UsageError("head.name=distilled: the first classifier of the network ends in no linear layer")
        linear = f"{first}.{found}".rstrip(".")
        taps = {"first": Tap(first), "pooled": Tap(linear, "input"), "token": Tap("network.head_dist")}
        self.body = Tapped(body, taps)
        self.classified_by = f"body.network.{linear}"

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W] -> logits [B, K]; `pooled` [B, C], `token` [B, K] and the other features."""
        given = self.body(images)
        features = dict(given.features)
        first = features.pop("first")
        return Outputs(first if self.training else given.logits, features, given.context)
