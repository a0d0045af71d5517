"""Label tokens beside the tokens of the last map, in one transformer.

Lanchantin et al., General Multi-label Image Classification with Transformers, CVPR 2021, arXiv 2011.14027, without its
states of labels; Xu et al., Boosting Multi-Label Image Classification with Complementary Parallel Self-Distillation,
IJCAI 2022, arXiv 2205.10986, put it behind a ResNet-101, with word vectors as labels. B samples, K classes, C channels,
H x W pixels, V dimensions of a word vector, D of a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.heads.contract import Backbone, head
from models.heads.labels import LabelHead, SelfAttention, check_heads, tokens_of
from models.word_vectors import read_vectors
from utils.files import expanded
from utils.settings import Range


@head(
    "label_tokens",
    vector_dimensions=Range(1, 2**16),
    dimensions=Range(1, 2**16),
    depth=Range(1, 100),
    heads=Range(1),
    width=Range(1, 2**16),
    dropout=Range(0, below=1),
)
@dataclass(frozen=True, kw_only=True)
class LabelTokens(LabelHead):
    """A token for each class, made of word vectors or learned.

    Attributes:
        vectors: a file of word vectors, as `models.word_vectors` reads it; without one they are learned.
        vector_dimensions: V, of learned ones.
        dimensions: D.
        depth: layers of the transformer.
        heads: of the attention.
        width: of the feed-forward networks.
        dropout: a share.
    """

    name: ClassVar[str] = "label_tokens"
    vectors: str = ""
    vector_dimensions: int = 300
    dimensions: int = 1024
    depth: int = 3
    heads: int = 4
    width: int = 1024
    dropout: float = 0.1

    def layers(self, channels: int, backbone: Backbone) -> nn.Module:
        """The transformer, with the word vectors of the file; of weights that hold them no file is needed.

        Raises:
            UsageError: the file cannot be read or lacks a class, or dimensions that are no multiple of the heads.
            DataError: it is damaged.
        """
        check_heads(self.dimensions, self.heads)
        num_classes = backbone.num_classes
        held = backbone.state.get(f"{self.name}.vectors")
        if held is not None and held.ndim == 2 and (len(held) == num_classes or not self.vectors):
            vectors = torch.randn(num_classes, held.shape[1])
        elif self.vectors:
            vectors = read_vectors(expanded(self.vectors, "head.options.vectors"), num_classes, backbone.classes)
        else:
            vectors = torch.randn(num_classes, self.vector_dimensions)
        return TokenTransformer(channels, vectors, self)


class TokenTransformer(nn.Module):
    """A transformer of the map's tokens and those of the labels; each of these gives a logit.

    Args:
        channels: C, of the map.
        vectors: of the labels [K, V]; learned where the options name no file.
        options: of the head.
    """

    def __init__(self, channels: int, vectors: Tensor, options: LabelTokens) -> None:
        super().__init__()
        dimensions = options.dimensions
        self.vectors = nn.Parameter(vectors, requires_grad=not options.vectors)
        self.embed_map = nn.Linear(channels, dimensions)
        self.embed_labels = nn.Linear(vectors.shape[1], dimensions)
        self.norm = nn.LayerNorm(dimensions)
        sizes = dimensions, options.heads, options.width, options.dropout
        self.layers = nn.ModuleList(SelfAttention(*sizes) for _ in range(options.depth))
        self.classify = nn.Linear(dimensions, 1)

    def forward(self, last: Tensor) -> tuple[Tensor, Tensor]:
        """last: [B, C, H, W] -> label embeddings [B, K, D], logits [B, K]."""
        labels = self.embed_labels(self.vectors).expand(last.shape[0], -1, -1)  # [B, K, D]
        tokens = self.norm(torch.cat([self.embed_map(tokens_of(last)), labels], 1))  # [B, H W + K, D]
        for layer in self.layers:
            tokens = layer(tokens)
        embeddings = tokens[:, -len(self.vectors) :]
        return embeddings, self.classify(embeddings).squeeze(2)
