"""Query2Label: a transformer in which a learned query for each class looks at the last map.

Liu et al., Query2Label: A Simple Transformer Way to Multi-Label Classification, arXiv 2107.10834. B samples, K classes,
C channels, H x W pixels, D dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.heads.contract import Backbone, head
from models.heads.labels import Attend, FeedForward, GroupLinear, LabelHead, SelfAttention, check_heads, tokens_of
from utils.errors import UsageError
from utils.settings import Range


@head(
    "query2label",
    dimensions=Range(4, 2**16),
    heads=Range(1),
    encoders=Range(0, 100),
    decoders=Range(1, 100),
    width=Range(1, 2**16),
    dropout=Range(0, below=1),
)
@dataclass(frozen=True, kw_only=True)
class Query2Label(LabelHead):
    """Query2Label, as Xu et al., Boosting Multi-Label Image Classification with Complementary Parallel
    Self-Distillation, IJCAI 2022, arXiv 2205.10986, use it.

    Attributes:
        dimensions: D, a multiple of 4.
        heads: of the attention.
        encoders: layers of the encoder.
        decoders: layers of the decoder.
        width: of the feed-forward networks.
        dropout: a share.
        self_attention: whether the queries look at each other too.
    """

    name: ClassVar[str] = "query2label"
    dimensions: int = 2048
    heads: int = 4
    encoders: int = 1
    decoders: int = 2
    width: int = 8192
    dropout: float = 0.1
    self_attention: bool = False

    def layers(self, channels: int, backbone: Backbone) -> nn.Module:
        """The transformer.

        Raises:
            UsageError: dimensions that are no multiple of the heads, or of 4.
        """
        check_heads(self.dimensions, self.heads)
        if self.dimensions % 4:
            raise UsageError(f"head.options.dimensions={self.dimensions}: no multiple of 4, which sine positions need")
        return Transformer(channels, backbone.num_classes, self)


class Transformer(nn.Module):
    """Encoder of the map's tokens, decoder of the queries, and a linear layer for each class.

    Args:
        channels: C, of the map.
        num_classes: K.
        options: of the head.
    """

    def __init__(self, channels: int, num_classes: int, options: Query2Label) -> None:
        super().__init__()
        dimensions = options.dimensions
        sizes = dimensions, options.heads, options.width, options.dropout
        self.embed = nn.Linear(channels, dimensions)
        self.encoders = nn.ModuleList(SelfAttention(*sizes) for _ in range(options.encoders))
        self.decoders = nn.ModuleList(Decoder(*sizes, options.self_attention) for _ in range(options.decoders))
        for parameter in (*self.encoders.parameters(), *self.decoders.parameters()):
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        self.queries = nn.Parameter(torch.randn(num_classes, dimensions))
        self.norm = nn.LayerNorm(dimensions)
        self.classify = GroupLinear(num_classes, num_classes, dimensions)

    def forward(self, last: Tensor) -> tuple[Tensor, Tensor]:
        """last: [B, C, H, W] -> label embeddings [B, K, D], logits [B, K]."""
        memory = self.embed(tokens_of(last))  # [B, H W, D]
        positions = sine_positions(last, memory.shape[2]).to(memory.dtype)
        for encoder in self.encoders:
            memory = encoder(memory, positions)
        labels = torch.zeros_like(self.queries).expand(last.shape[0], -1, -1)
        for decoder in self.decoders:
            labels = decoder(labels, self.queries, memory, positions)
        embeddings = self.norm(labels)
        return embeddings, self.classify(embeddings)


class Decoder(nn.Module):
    """A layer of the decoder.

    Args:
        dimensions: D.
        heads: of the attention.
        width: of the feed-forward network.
        dropout: a share.
        self_attention: whether labels look at each other first.
    """

    def __init__(self, dimensions: int, heads: int, width: int, dropout: float, self_attention: bool) -> None:
        super().__init__()
        self.compare = Attend(dimensions, heads, dropout) if self_attention else None
        self.attend = Attend(dimensions, heads, dropout)
        self.feed_forward = FeedForward(dimensions, width, dropout)

    def forward(self, labels: Tensor, queries: Tensor, memory: Tensor, positions: Tensor) -> Tensor:
        """labels: [B, K, D]; queries: [K, D]; memory: [B, H W, D]; positions: [H W, D] -> labels [B, K, D]."""
        if self.compare is not None:
            asking = labels + queries
            labels = self.compare(labels, asking, asking, labels)
        return self.feed_forward(self.attend(labels, labels + queries, memory + positions, memory))


def sine_positions(last: Tensor, dimensions: int) -> Tensor:
    """Sines and cosines of the rows, then of the columns, of a map.

    Carion et al., End-to-end object detection with transformers, ECCV 2020, arXiv 2005.12872, appendix A.4: places are
    2 pi (1, ..., H) / H, divided by 10000^(2 i / (D / 2)); sines stand at even i, cosines at odd.

    Args:
        last: the map [B, C, H, W].
        dimensions: D, a multiple of 4.

    Returns:
        [H W, D], float32.
    """
    height, width = last.shape[2:]
    powers = torch.arange(0, dimensions // 2, 2, device=last.device) / (dimensions // 2)  # [D / 4]

    def along(length: int) -> Tensor:
        places = 2 * math.pi * torch.arange(1, length + 1, device=last.device) / length
        angles = places[:, None] / 10000.0**powers  # [length, D / 4]
        return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)  # [length, D / 2]

    rows = along(height)[:, None].expand(-1, width, -1)
    columns = along(width).expand(height, -1, -1)
    return torch.cat([rows, columns], 2).flatten(0, 1)
