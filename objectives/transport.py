"""Optimal transport between the probabilities of two networks. B samples, K classes, D dimensions."""

from __future__ import annotations

from torch import Tensor

from objectives.contract import COUNT, POSITIVE, objective
from objectives.logits import one_hot, split
from objectives.numerics import centred, in_float64, unit


@objective(reads="logits", temperature=POSITIVE, sharpness=POSITIVE, entropy=POSITIVE, iterations=COUNT)
@in_float64
def wkd_l(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    teacher_head_weight: Tensor,
    *,
    temperature: float = 2.0,
    sharpness: float = 1.0,
    entropy: float = 0.05,
    iterations: int = 10,
    relation: str = "cosine",
) -> Tensor:
    """Wasserstein distance among the classes but the true one: what is moved costs less between classes that are alike.

    The least sum_ij c_ij q_ij + entropy sum_ij q_ij log q_ij over the flows q between softmax(z_t / T) and
    softmax(z_s / T) of the other classes, by Sinkhorn's iteration; the value is that flow's sum_ij c_ij q_ij, averaged
    over the batch. c_ij = 1 - exp(-sharpness (1 - r_ij)), for the relation r_ij of two classes. Lv et al., NeurIPS
    2024, arXiv 2412.08139, WKD-L. Their loss adds the true class's part, which is `nkd` with gamma 0, and the
    weight of this one falls with a cosine: after epoch 150 on CIFAR-100, from the start on ImageNet. R34 to R18: weight
    30, T = 2; R50 to MobileNetV1: 25, 2, sharpness 2; R32x4 to R8x4: 600, T = 8.

    ``relation`` reads the teacher's classifier. `cosine`, of the weights, is one of those in the paper's ablation, and
    `fc` in the authors' code; `cka` is linear CKA of them, the square of their correlation. The published scores are
    for CKA of the features of many training images of each class, which a pass before training collects.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        labels: int64 [B].
        teacher_head_weight: [K, D].
        temperature: T.
        sharpness: kappa of the paper.
        entropy: eta of the paper.
        iterations: of Sinkhorn.
        relation: cosine or cka.

    Returns:
        Scalar.

    Raises:
        ValueError: another relation.
    """
    cost = 1 - (sharpness * (related(teacher_head_weight, relation) - 1)).exp()  # [K, K]
    is_true = one_hot(labels, student.shape[1])
    ours, theirs = (
        split(z / temperature, is_true)[1].exp().masked_fill(is_true, 0)  # [B, K]
        for z in (student, teacher)
    )
    kernel = (-cost / entropy).exp()
    least = 1e-300  # of the divisors, for a single class
    left = (~is_true).to(ours) / max(student.shape[1] - 1, 1)  # [B, K]
    for _ in range(iterations):  # the flow of a sample is left[:, None] * kernel * right[None]
        right = theirs / (left @ kernel).clamp(min=least)
        left = ours / (right @ kernel.T).clamp(min=least)
    return (left * (right @ (kernel * cost).T)).sum(1).mean()


def related(weight: Tensor, relation: str) -> Tensor:
    """How much alike classes are, by their rows in a classifier; [K, D] -> [K, K], 1 for a class and itself.

    Raises:
        ValueError: another relation than cosine or cka.
    """
    if relation == "cosine":
        rows = unit(weight)
        return rows @ rows.T
    if relation == "cka":
        rows = unit(centred(weight))
        return (rows @ rows.T).square()
    raise ValueError(f"relation={relation}: one of cosine, cka")
