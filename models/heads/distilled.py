"""The second classifier of DeiT, which a token of its own is behind. B samples, K classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from models.heads.contract import Backbone, Head, head
from models.outputs import Body, Outputs, Tap, Tapped
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
        if not hasattr(backbone.network, "head_dist"):
            raise UsageError(
                f"head.name=distilled: {type(backbone.network).__name__} has no distillation token, as "
                "timm/deit_tiny_distilled_patch16_224 has"
            )
        return TwoClassifiers(backbone.giving("last"))

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

    `token` [B, K] is what the second gives.

    Args:
        body: images -> the average of both.
    """

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.features = (*body.features, "token")
        self.body = Tapped(body, {"first": Tap("network.head"), "token": Tap("network.head_dist")})

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W] -> logits [B, K]; `token` [B, K] and the other features."""
        given = self.body(images)
        features = dict(given.features)
        first = features.pop("first")
        return Outputs(first if self.training else given.logits, features, given.context)
