"""Contrastive representation distillation. B samples, N in the training split, D dimensions, K contrasts a sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import COUNT, POSITIVE, SHARE, objective
from objectives.numerics import unit
from utils.distributed import all_cat, all_mean

_EPSILON = 1e-7


@objective(reads="pooled", dimensions=COUNT, contrasts=COUNT, temperature=POSITIVE, momentum=SHARE)
class Crd(nn.Module):
    """Noise-contrastive estimation of whether two embeddings, of student and teacher, show the same sample.

    Tian et al., ICLR 2020, arXiv 1910.10699, equations 10 to 18, in the form of the authors' code: both networks are
    embedded linearly, and each embedding is compared with a memory of the other network's embeddings of the sample
    itself and of K others, drawn with replacement from other classes. The normalising constants are estimated from the
    first batch. Each rank's memory takes in the embeddings of all. Their weight is 0.8 on CIFAR-100.

    Args:
        student: an example [B, D_s].
        teacher: likewise [B, D_t].
        all_labels: int64 [N].
        dimensions: of the embeddings.
        contrasts: K.
        temperature: of the scores.
        momentum: of the memory.
        relaxed: compare with any sample of the class in place of the sample itself.
    """

    order: Tensor  # int64 [N], samples by class
    first: Tensor  # int64 [classes], where each class begins in it
    count: Tensor  # int64 [classes]
    memory: Tensor  # [2, N, dimensions], of the student and the teacher
    constants: Tensor  # [2], of the student's and the teacher's scores; 0 before the first batch

    def __init__(
        self,
        student: Tensor,
        teacher: Tensor,
        all_labels: Tensor,
        *,
        dimensions: int = 128,
        contrasts: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        relaxed: bool = False,
    ) -> None:
        super().__init__()
        count = torch.bincount(all_labels)
        if (count == len(all_labels)).any():
            raise ValueError("crd contrasts classes: it needs two or more with samples")
        self.contrasts, self.temperature, self.momentum = contrasts, temperature, momentum
        self.relaxed = relaxed
        self.embed_student = nn.Linear(student.shape[1], dimensions)
        self.embed_teacher = nn.Linear(teacher.shape[1], dimensions)
        self.register_buffer("order", all_labels.argsort(stable=True), persistent=False)
        self.register_buffer("first", count.cumsum(0) - count, persistent=False)
        self.register_buffer("count", count, persistent=False)
        bound = 1 / math.sqrt(dimensions / 3)
        self.register_buffer("memory", torch.empty(2, len(all_labels), dimensions).uniform_(-bound, bound))
        self.register_buffer("constants", torch.zeros(2))

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """Scalar.

        Args:
            student: [B, D_s].
            teacher: [B, D_t].
            labels: int64 [B].
            index: int64 [B], of each sample in the split.
        """
        return self.contrast(student, teacher, index, self.compared(labels, index))

    @torch.no_grad()
    def compared(self, labels: Tensor, index: Tensor) -> Tensor:
        """Samples to compare with, int64 [B, 1 + K]: the positive one, then K of other classes."""
        first, count = self.first[labels, None], self.count[labels, None]  # [B, 1]
        draws = torch.rand(len(labels), self.contrasts, device=labels.device, dtype=torch.float64)
        place = (draws * (len(self.order) - count)).long()
        place = torch.where(place < first, place, place + count)  # over the own class
        positive = index[:, None]
        if self.relaxed:
            positive = self.order[first + (torch.rand_like(draws[:, :1]) * count).long()]
        return torch.cat([positive, self.order[place]], 1)

    def contrast(self, student: Tensor, teacher: Tensor, index: Tensor, compared: Tensor) -> Tensor:
        """As `forward`, with the samples ``compared`` [B, 1 + K]; the memory takes the batch in."""
        embedded = [unit(self.embed_student(student)), unit(self.embed_teacher(teacher))]  # each [B, dimensions]
        # All N scores and then a choice of them, because [B, K, dimensions] of the memory would be many times larger.
        scores = torch.stack(
            [
                (own @ other.T / self.temperature).gather(1, compared).exp()
                for own, other in zip(embedded, self.memory.flip(0))
            ]
        )  # [2, B, 1 + K]
        self._calibrate(scores)
        loss = _noise_contrastive(scores / self.constants[:, None, None], self.memory.shape[1])
        self._remember(index, torch.stack(embedded).detach())
        return loss

    @torch.no_grad()
    def _calibrate(self, scores: Tensor) -> None:
        """Set the constants by the first batch."""
        estimate = scores.mean((1, 2)) * self.memory.shape[1]
        self.constants.copy_(torch.where(self.constants > 0, self.constants, all_mean(estimate)))

    @torch.no_grad()
    def _remember(self, index: Tensor, embedded: Tensor) -> None:
        index, embedded = all_cat(index, 0), all_cat(embedded, 1)
        mixed = self.momentum * self.memory[:, index] + (1 - self.momentum) * embedded
        self.memory[:, index] = F.normalize(mixed, dim=2)


def _noise_contrastive(scores: Tensor, samples: int) -> Tensor:
    """The loss of scores [2, B, 1 + K], the positive ones first, for noise drawn from all ``samples``."""
    noise = (scores.shape[2] - 1) / samples
    positive, negative = scores[:, :, 0], scores[:, :, 1:]
    log_positive = (positive / (positive + noise + _EPSILON)).log()
    minus_log_negative = ((negative + _EPSILON) / noise).log1p()  # the ratio of noise to all is next to 1
    return (minus_log_negative.sum() - log_positive.sum()) / scores.shape[1]
