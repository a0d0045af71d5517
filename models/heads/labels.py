"""What heads with an embedding for each class share: the network around them and the layers that they are made of.

B samples, K classes, C channels, H x W pixels, N tokens, D dimensions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.heads.contract import Backbone, Head
from models.outputs import Behind, Outputs
from utils.errors import UsageError


class LabelHead(Head):
    """Layers that read the last map and give an embedding for each class, of which its logit is made.

    Attributes:
        name: of the head, and of its layers in a state dict.
    """

    name: ClassVar[str]

    def attach(self, backbone: Backbone) -> nn.Module:
        """The network with these layers behind its last map; it gives `label_embeddings` and `pooled`.

        Raises:
            UsageError: they do not go together.
        """
        return Labelled(backbone, self.name, lambda channels: self.layers(channels, backbone))

    def is_in(self, state: Mapping[str, Tensor]) -> bool:
        """Whether ``state`` has such layers."""
        return any(name.startswith(f"{self.name}.") for name in state)

    @abstractmethod
    def layers(self, channels: int, backbone: Backbone) -> nn.Module:
        """Last map [B, C, H, W] with C = ``channels`` -> label embeddings [B, K, D], logits [B, K].

        Raises:
            UsageError: options that do not go together, or not with the backbone.
        """


class Labelled(Behind):
    """A backbone with layers that give an embedding for each class behind its last map.

    `pooled` [B, C] is the average of the last map.

    Args:
        backbone: what stands before.
        name: of the layers.
        layers: C -> the layers, last map [B, C, H, W] -> label embeddings [B, K, D], logits [B, K].
    """

    def __init__(self, backbone: Backbone, name: str, layers: Callable[[int], nn.Module]) -> None:
        super().__init__(backbone.giving("last"), "last", backbone.side, gives=("label_embeddings", "pooled"))
        self._name = name
        self.add_module(name, layers(self.channels))

    def behind(self, features: Mapping[str, Tensor]) -> Outputs:
        """last [B, C, H, W] -> logits [B, K]; label_embeddings [B, K, D], pooled [B, C]."""
        last = features["last"]
        embeddings, logits = getattr(self, self._name)(last)
        return Outputs(logits, {"label_embeddings": embeddings, "pooled": last.mean((2, 3))})


def tokens_of(last: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H W, C]."""
    return last.flatten(2).transpose(1, 2)


def check_heads(dimensions: int, heads: int) -> None:
    """Raises UsageError where D dimensions cannot be shared evenly between the heads of attention."""
    if dimensions % heads:
        raise UsageError(f"head.options.heads={heads}: dimensions={dimensions} is no multiple of it")


class Attend(nn.Module):
    """LN(x + attention(q, k, v)), Vaswani et al., Attention is all you need, NeurIPS 2017, arXiv 1706.03762.

    Args:
        dimensions: D.
        heads: of the attention.
        dropout: of its weights and of what it gives, a share.
    """

    def __init__(self, dimensions: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dimensions, heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dimensions)

    def forward(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """x, query: [B, M, D]; key, value: [B, N, D] -> [B, M, D]."""
        return self.norm(x + self.dropout(self.attention(query, key, value, need_weights=False)[0]))


class FeedForward(nn.Module):
    """LN(x + W2 ReLU(W1 x + b1) + b2).

    Args:
        dimensions: D.
        width: between the two layers.
        dropout: behind each, a share.
    """

    def __init__(self, dimensions: int, width: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dimensions, width)
        self.linear2 = nn.Linear(width, dimensions)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dimensions)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        return self.norm(x + self.dropout(self.linear2(self.dropout(self.linear1(x).relu()))))


class SelfAttention(nn.Module):
    """A layer of a transformer encoder: attention of all tokens to all, and a feed-forward network.

    Args:
        dimensions: D.
        heads: of the attention.
        width: of the feed-forward network.
        dropout: a share.
    """

    def __init__(self, dimensions: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.attend = Attend(dimensions, heads, dropout)
        self.feed_forward = FeedForward(dimensions, width, dropout)

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """tokens: [B, N, D]; positions: [N, D], added where tokens are compared -> [B, N, D]."""
        placed = tokens if positions is None else tokens + positions
        return self.feed_forward(self.attend(tokens, placed, placed, tokens))


class GroupLinear(nn.Module):
    """Logits of K classes from G groups of them: each logit is a product with the embedding of its group.

    Ridnik et al., ML-Decoder, WACV 2023, arXiv 2111.12933; with a class a group that of Liu et al.,
    Query2Label, arXiv 2107.10834. Class k belongs to group k // ceil(K / G).

    Args:
        num_classes: K.
        groups: G.
        dimensions: D.
    """

    def __init__(self, num_classes: int, groups: int, dimensions: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        bound = dimensions**-0.5
        self.weight = nn.Parameter(torch.empty(groups, dimensions, -(-num_classes // groups)).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_classes).uniform_(-bound, bound))

    def forward(self, embeddings: Tensor) -> Tensor:
        """[B, G, D] -> [B, K]."""
        logits = torch.einsum("bgd,gdc->bgc", embeddings, self.weight)  # c of ceil(K / G)
        return logits.flatten(1)[:, : self.num_classes] + self.bias
