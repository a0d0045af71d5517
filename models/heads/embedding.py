"""An embedding before the classifier: a linear layer in training, gone when the weights are exported.

Wang et al., In defense of feature mimicking for knowledge distillation, TPAMI 2021, arXiv 2011.01424, bring a student's
features to the dimensions of its teacher's with it. B samples, D dimensions, K classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from models.heads.contract import Backbone, Head, head
from models.taps import classifier_of
from utils.errors import UsageError
from utils.settings import Range

FIRST, SECOND = "embedding", "classifier"


@head("embedding", dimensions=Range(1, 2**16))
@dataclass(frozen=True, kw_only=True)
class Embedding(Head):
    """A linear layer before the classifier, which starts anew; both are one linear layer once they are exported.

    Attributes:
        dimensions: D.
    """

    is_exported = False
    dimensions: int

    def attach(self, backbone: Backbone) -> nn.Module:
        """The network with [B, C] -> [B, D] -> [B, K] in the place of its classifier.

        Raises:
            UsageError: there is no linear classifier.
        """
        network = backbone.network
        path = classifier_of(network, backbone.num_classes)
        if path is None:
            raise UsageError(f"{type(network).__name__} has no linear classifier to put an embedding before")
        classifier = network.get_submodule(path)
        assert isinstance(classifier, nn.Linear)
        first = nn.Linear(classifier.in_features, self.dimensions)
        second = nn.Linear(self.dimensions, backbone.num_classes)
        network.set_submodule(path, nn.Sequential(OrderedDict([(FIRST, first), (SECOND, second)])))
        return network

    def is_in(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a classifier of ``state`` is behind an embedding."""
        return bool(_paths(state))

    def exported(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict with the embedding multiplied into the classifier: the network has its own shape again."""
        return merged(state)


def merged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with each embedding multiplied into the classifier behind it.

    (V (U x + a) + b) = (V U) x + (V a + b), for the embedding U [D, C], a and the classifier V [K, D], b.
    """
    result = OrderedDict(state)
    result._metadata = getattr(state, "_metadata", {})  # type: ignore[attr-defined]
    for path in _paths(state):
        first, shift = (result.pop(f"{path}.{FIRST}.{part}").double() for part in ("weight", "bias"))
        second, bias = (result.pop(f"{path}.{SECOND}.{part}") for part in ("weight", "bias"))
        result[f"{path}.weight"] = (second.double() @ first).to(second)
        result[f"{path}.bias"] = (second.double() @ shift + bias).to(bias)
    return result


def _paths(state: Mapping[str, Tensor]) -> list[str]:
    """Paths of the classifiers with an embedding."""
    end = f".{FIRST}.weight"
    paths = [name.removesuffix(end) for name in state if name.endswith(end)]
    return [path for path in paths if f"{path}.{SECOND}.weight" in state]
