"""A linear classifier behind the pooled last map. B samples, C channels, H x W pixels, D dimensions, K classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from models.heads.contract import Backbone, Head, head
from models.heads.embedding import FIRST, SECOND, merged
from models.outputs import Behind, Body, Outputs
from utils.errors import UsageError
from utils.settings import Range

_CLASSIFIER = "pooled_classifier"
_KINDS = {
    "average": lambda last: last.mean((2, 3)),
    "max": lambda last: last.amax((2, 3)),
    "mixed": lambda last: (last.mean((2, 3)) + last.amax((2, 3))) / 2,
}


@head("pooling", dropout=Range(0, below=1), dimensions=Range(0, 2**16))
@dataclass(frozen=True, kw_only=True)
class Pooling(Head):
    """A new classifier behind the last map, pooled in one of three ways.

    Wang et al., In defense of feature mimicking for knowledge distillation, TPAMI 2021, arXiv 2011.01424, call them
    GAP, GMP and GWP.

    Attributes:
        kind: average, max, or mixed, the mean of both.
        dropout: before the classifier, a share; MobileNetV2 has 0.2.
        dimensions: D of an embedding before the classifier, as the head `embedding` makes it; 0 for none.
    """

    kind: str = "average"
    dropout: float = 0.0
    dimensions: int = 0

    def attach(self, backbone: Backbone) -> nn.Module:
        """The network with this classifier; with an embedding too, unless the weights have one merged into it.

        Raises:
            UsageError: there is no such kind.
        """
        if self.kind not in _KINDS:
            raise UsageError(f"head.options.kind={self.kind}: there is {', '.join(_KINDS)}")
        dimensions = 0 if f"{_CLASSIFIER}.weight" in backbone.state else self.dimensions
        body = backbone.giving("last")
        return Pooled(body, self.kind, self.dropout, dimensions, backbone.num_classes, backbone.side)

    def is_in(self, state: Mapping[str, Tensor]) -> bool:
        """Whether ``state`` has such a classifier."""
        return any(name.startswith(f"{_CLASSIFIER}.") for name in state)

    def exported(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict with the embedding multiplied into the classifier."""
        return merged(state)


class Pooled(Behind):
    """A backbone with a linear classifier behind its pooled last map.

    `pooled` [B, C], or [B, D] behind an embedding, is what the classifier is given, before any dropout.

    Args:
        body: images -> `last` among its features.
        kind: of pooling.
        dropout: before the classifier, a share.
        dimensions: D of the embedding, 0 for none.
        num_classes: K.
        side: of the images, pixels.
    """

    def __init__(self, body: Body, kind: str, dropout: float, dimensions: int, num_classes: int, side: int) -> None:
        super().__init__(body, "last", side, gives=("pooled",))
        self._kind = kind
        self.dropout = nn.Dropout(dropout)
        self.pooled_classifier: nn.Module = nn.Linear(dimensions or self.channels, num_classes)
        if dimensions:
            first: nn.Module = nn.Linear(self.channels, dimensions)
            self.pooled_classifier = nn.Sequential(OrderedDict([(FIRST, first), (SECOND, self.pooled_classifier)]))

    def behind(self, features: Mapping[str, Tensor]) -> Outputs:
        """last [B, C, H, W] -> logits [B, K]; pooled [B, C or D]."""
        pooled, classifier = _KINDS[self._kind](features["last"]), self.pooled_classifier
        if isinstance(classifier, nn.Sequential):
            pooled, classifier = classifier[0](pooled), classifier[1]
        return Outputs(classifier(self.dropout(pooled)), {"pooled": pooled})
