"""ML-Decoder: a query for each class looks at the last map. B samples, K classes, G groups, D dimensions.

Ridnik et al., ML-Decoder: Scalable and Versatile Classification Head, WACV 2023, arXiv 2111.12933. Yang et al.,
Multi-Label Knowledge Distillation, ICCV 2023, arXiv 2308.06453, distill what it gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.heads.contract import Backbone, head
from models.heads.labels import Attend, FeedForward, GroupLinear, LabelHead, check_heads, tokens_of
from utils.errors import UsageError
from utils.settings import Range


@head(
    "label_embeddings",
    dimensions=Range(1, 2**16),
    heads=Range(1),
    width=Range(1, 2**16),
    dropout=Range(0, below=1),
    groups=Range(0),
)
@dataclass(frozen=True, kw_only=True)
class LabelEmbeddings(LabelHead):
    """ML-Decoder, as L2D puts it behind teacher and student.

    Attributes:
        dimensions: D.
        heads: of the attention.
        width: of the feed-forward network.
        dropout: a share.
        groups: G, 0 for one a class; with fewer `label_embeddings` is [B, G, D].
    """

    name: ClassVar[str] = "label_embeddings"
    dimensions: int = 768
    heads: int = 8
    width: int = 2048
    dropout: float = 0.1
    groups: int = 0

    def layers(self, channels: int, backbone: Backbone) -> nn.Module:
        """The decoder.

        Raises:
            UsageError: more groups than classes, or dimensions that are no multiple of the heads.
        """
        check_heads(self.dimensions, self.heads)
        if self.groups > backbone.num_classes:
            raise UsageError(f"head.options.groups={self.groups}: there are {backbone.num_classes} classes")
        groups = self.groups or backbone.num_classes
        return MLDecoder(channels, backbone.num_classes, groups, self.dimensions, self.heads, self.width, self.dropout)


class MLDecoder(nn.Module):
    """One layer of a transformer decoder without self-attention, whose queries are random and stay so.

    Args:
        channels: C, of the map.
        num_classes: K.
        groups: G.
        dimensions: D.
        heads: of the attention.
        width: of the feed-forward network.
        dropout: a share.
    """

    queries: Tensor  # [G, D]

    def __init__(
        self, channels: int, num_classes: int, groups: int, dimensions: int, heads: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(channels, dimensions)
        self.register_buffer("queries", torch.randn(groups, dimensions))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dimensions)
        self.attend = Attend(dimensions, heads, dropout)
        self.feed_forward = FeedForward(dimensions, width, dropout)
        self.classify = GroupLinear(num_classes, groups, dimensions)
        nn.init.xavier_normal_(self.classify.weight)
        nn.init.zeros_(self.classify.bias)

    def forward(self, last: Tensor) -> tuple[Tensor, Tensor]:
        """last: [B, C, H, W] -> label embeddings [B, G, D], logits [B, K]."""
        memory = self.embed(tokens_of(last)).relu()  # [B, H W, D]
        queries = self.queries.expand(last.shape[0], -1, -1)
        queries = self.norm(queries + self.dropout(queries))
        embeddings = self.feed_forward(self.attend(queries, queries, memory, memory))
        return embeddings, self.classify(embeddings)
