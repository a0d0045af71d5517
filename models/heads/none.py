"""No classifier: a network that gives its features alone, for teachers such as DINOv2's. B samples, C channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from models.heads.contract import Backbone, Head, head
from models.outputs import Outputs
from models.taps import NoClassifier, classifier_of, run_once
from utils.errors import UsageError


@head("none")
@dataclass(frozen=True, kw_only=True)
class NoHead(Head):
    """What the network's own classifier would be given: `pooled` [B, C], and its maps; no logits."""

    gives_logits = False

    def attach(self, backbone: Backbone) -> nn.Module:
        """The network without its classifier: images [B, 3, H, W] -> pooled [B, C], or `Outputs` with it as logits.

        Raises:
            UsageError: what is left gives something else.
        """
        network = backbone.network
        for path in _classifiers(network, backbone):
            network.set_submodule(path, NoClassifier())
        given = _given(network, backbone.side)
        if given.ndim != 2 or not given.shape[1]:
            found = f"{type(network).__name__} gives {list(given.shape)} for one image without its classifier"
            raise UsageError(f"head.name=none: {found}, where pooled features [1, C] are expected")
        return network

    def is_in(self, state: Mapping[str, Tensor]) -> bool:
        """Always: weights of a classifier are passed over."""
        return True


def _classifiers(network: nn.Module, backbone: Backbone) -> Iterator[str]:
    """Paths of the layers that give the logits, or that stand in for them in timm's networks without classes."""
    if (source := getattr(network, "pretrained_cfg", None)) is not None:
        names = source.get("classifier") or ()
        known = dict(network.named_modules())
        yield from (name for name in ([names] if isinstance(names, str) else names) if name in known)
        return
    path = classifier_of(network, backbone.num_classes)
    if path is not None and _given(network, backbone.side).shape[1:] == (backbone.num_classes,):
        yield path


def _given(network: nn.Module, side: int) -> Tensor:
    """What it gives for one image, [1, C]."""
    given = run_once(network, side)
    return given.logits if isinstance(given, Outputs) else given
