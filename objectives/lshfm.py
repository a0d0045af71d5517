"""Feature mimicking by locality sensitive hashing. B samples, D dimensions, K hashes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import objective


@objective(reads="pooled")
class Lshfm(nn.Module):
    """The student's feature falls on the same side of K random hyperplanes as the teacher's, and near it.

    Wang et al., TPAMI 2021, In defense of feature mimicking for knowledge distillation, arXiv 2011.01424, equations 5
    to 8: binary cross-entropy of the hashes W f_s + b with the signs of W f_t + b, averaged over B and K, and with
    ``squared`` the mean squared distance. ``correct_only`` averages over the samples that the teacher classifies
    correctly. Features are what the classifiers see, of equal dimensions: `student.embedding` brings the student's to
    the teacher's. Published: K = 32 D on CIFAR-100 with median biases and weight 6, 2048 on ImageNet with biases of
    zero and weight 5.

    Args:
        student: an example [B, D].
        teacher: likewise.
        teacher_head_weight: [classes, D]; the hyperplanes have its standard deviation.
        hashes: K; 32 D when 0.
        hashed: compare hashes.
        squared: add the mean squared distance of the features.
        correct_only: see above.
        bias: `zero`, or that of the hyperplanes through the `mean` or the `median` of the teacher's features, which is
            followed as training goes.

    Raises:
        ValueError: the dimensions differ, or ``bias`` is another word.
    """

    weight: Tensor  # [K, D]
    bias: Tensor  # [K]
    batches: Tensor  # scalar, how many the bias has followed

    def __init__(
        self,
        student: Tensor,
        teacher: Tensor,
        teacher_head_weight: Tensor,
        *,
        hashes: int = 0,
        hashed: bool = True,
        squared: bool = True,
        correct_only: bool = False,
        bias: str = "zero",
    ) -> None:
        super().__init__()
        dimensions = teacher.shape[1]
        if student.shape[1] != dimensions:
            raise ValueError(
                f"lshfm compares features of equal dimensions, not {student.shape[1]} and {dimensions}: "
                f"set student.embedding={dimensions}"
            )
        if bias not in ("zero", "mean", "median"):
            raise ValueError(f"lshfm's bias is zero, mean or median, not {bias!r}")
        self.hashed, self.squared, self.correct_only, self.follows = hashed, squared, correct_only, bias
        count = int(hashes) or 32 * dimensions
        self.register_buffer("weight", torch.randn(count, dimensions) * teacher_head_weight.detach().float().std())
        self.register_buffer("bias", torch.zeros(count))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, student: Tensor, teacher: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar.

        Args:
            student: [B, D].
            teacher: [B, D].
            teacher_logits: [B, classes].
            labels: int64 [B].
        """
        if self.follows != "zero" and self.training:
            self._follow(teacher)
        losses = []  # each [B]
        if self.hashed:
            losses.append(hash_loss(student, teacher, self.weight, self.bias))
        if self.squared:
            losses.append((student - teacher).square().mean(1))
        loss = torch.stack(losses).sum(0)
        if not self.correct_only:
            return loss.mean()
        correct = (teacher_logits.argmax(1) == labels).to(loss.dtype)
        return (loss * correct).sum() / correct.sum().clamp(min=1)

    @torch.no_grad()
    def _follow(self, teacher: Tensor) -> None:
        """Average the batches' centres."""
        projected = teacher @ self.weight.T  # [B, K]
        centre = projected.mean(0) if self.follows == "mean" else projected.median(0).values
        self.batches += 1
        self.bias += (-centre - self.bias) / self.batches


def hash_loss(student: Tensor, teacher: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Binary cross-entropy of the student's hashes with the teacher's signs, averaged over the hashes.

    Args:
        student: [B, D].
        teacher: [B, D].
        weight: [K, D].
        bias: [K].

    Returns:
        [B].
    """
    signs = (F.linear(teacher, weight, bias) > 0).to(student.dtype)  # [B, K]
    return F.binary_cross_entropy_with_logits(F.linear(student, weight, bias), signs, reduction="none").mean(1)
