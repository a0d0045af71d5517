"""How a head is declared and found.

A head is what stands behind a backbone: a class whose options are the keyword-only parameters of its constructor::

    @head("max_pooling", dropout=Range(0, 1))
    @dataclass(frozen=True, kw_only=True)
    class MaxPooling(Head):
        dropout: float = 0.0

        def attach(self, backbone: Backbone) -> nn.Module: ...

A file in this folder is found by lying here, one of your own by being imported in a config. `embedding.py` changes the
classifiers that a network has; `reused.py` puts others in their place, as a `Behind`. B samples, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from models.outputs import Body
from utils.registry import Registry, Value

if TYPE_CHECKING:
    from models.zoo import Network


@dataclass(frozen=True)
class HeadConfig:
    """What stands behind a backbone."""

    name: str = "own"
    """own is what the network comes with; none, of a teacher, features alone; embedding, reused, pooling,
    label_embeddings, query2label, label_tokens, distilled, or one of your own"""
    options: dict[str, Value] = field(default_factory=dict)
    """the head's own parameters, such as dimensions"""

    def made(self, key: str = "head") -> Head:
        """The head; errors call it ``key``.

        Raises:
            UsageError: there is none of this name, or it has no such options.
        """
        return _REGISTRY.made(self.name, self.options, name_key=f"{key}.name", options_key=f"{key}.options")


class Backbone(NamedTuple):
    """What a head is attached to: a network that classifies already, and what is known of it.

    Attributes:
        network: images [B, 3, H, W] -> logits [B, K], or `Outputs`; its weights are those of its library, or of a file
            that is one of the network without the head.
        num_classes: K.
        side: H = W, pixels.
        giving: features by name -> the network as one that gives these and the others that will be read.
        others: further networks, by name; a head may take their parts.
        state: the weights that the network with the head will get; empty for none.
        classes: their names, in order; empty where they are not known.
    """

    network: nn.Module
    num_classes: int
    side: int
    giving: Callable[..., Body]
    others: Mapping[str, Network]
    state: Mapping[str, Tensor]
    classes: tuple[str, ...] = ()


class Head(ABC):
    """What stands behind a backbone."""

    is_exported = True  # whether the weights that are exported still have it
    gives_logits = True  # whether what it makes of a network classifies; one that does not gives features alone

    @property
    def takes(self) -> tuple[str, ...]:
        """Names of other networks whose parts it takes."""
        return ()

    @abstractmethod
    def attach(self, backbone: Backbone) -> nn.Module:
        """The network with this head: images [B, 3, H, W] -> logits [B, K], or `Outputs`.

        Raises:
            UsageError: they do not go together.
        """

    @abstractmethod
    def is_in(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of a network with this head."""

    def exported(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict as it is exported, of the network with this head: without what only training needs."""
        return state


_REGISTRY: Registry[Head] = Registry("head")
head = _REGISTRY.register


@head("own")
class Own(Head):
    """What the network comes with."""

    def attach(self, backbone: Backbone) -> nn.Module:
        """The network as it is."""
        return backbone.network

    def is_in(self, state: Mapping[str, Tensor]) -> bool:
        """Always."""
        return True
