"""An embedding before the classifier: a linear layer in training, gone when the weights are exported.

B samples, D dimensions, K classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from models.taps import head_of
from utils.errors import UsageError

_FIRST, _SECOND = "embedding", "classifier"


def add_embedding(network: nn.Module, dimensions: int, num_classes: int) -> None:
    """Put a linear layer of ``dimensions`` outputs before the last layer of ``network``, which starts anew.

    Raises:
        UsageError: there is no linear last layer.
    """
    path = head_of(network, num_classes)
    if path is None:
        raise UsageError(f"{type(network).__name__} has no linear classifier to put an embedding before")
    head = network.get_submodule(path)
    assert isinstance(head, nn.Linear)
    layers = {_FIRST: nn.Linear(head.in_features, dimensions), _SECOND: nn.Linear(dimensions, num_classes)}
    network.set_submodule(path, nn.Sequential(OrderedDict(layers)))


def embedding_of(network: nn.Module) -> str | None:
    """Path of the layer that `add_embedding` put there."""
    names = {name for name, _ in network.named_modules()}
    found = [name for name in names if name.endswith(f".{_FIRST}") and name.removesuffix(_FIRST) + _SECOND in names]
    return found[0] if found else None


def has_embedding(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is one with an embedding."""
    return any(name.endswith(f".{_FIRST}.weight") and _twin(name) in state for name in state)


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the embedding multiplied into the classifier, so that the network has its own shape again.

    (V (U x + a) + b) = (V U) x + (V a + b), for the embedding U [D, C], a and the classifier V [K, D], b.
    """
    result = OrderedDict(state)
    result._metadata = getattr(state, "_metadata", {})  # type: ignore[attr-defined]
    for name in [name for name in state if name.endswith(f".{_FIRST}.weight") and _twin(name) in state]:
        head = name.removesuffix(f".{_FIRST}.weight")
        first, shift = (result.pop(f"{head}.{_FIRST}.{part}").double() for part in ("weight", "bias"))
        second, bias = (result.pop(f"{head}.{_SECOND}.{part}") for part in ("weight", "bias"))
        result[f"{head}.weight"] = (second.double() @ first).to(second)
        result[f"{head}.bias"] = (second.double() @ shift + bias).to(bias)
    return result


def _twin(name: str) -> str:
    return name.replace(f".{_FIRST}.", f".{_SECOND}.")
