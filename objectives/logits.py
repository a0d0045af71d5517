"""Objectives on logits. B samples, K classes; z_s and z_t are the logits of student and teacher.

They compute in float64, whatever the precision of the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from objectives.contract import NOT_NEGATIVE, POSITIVE, SHARE, objective
from objectives.numerics import centred, in_float64, reduced, summed

_EPSILON = 1e-7  # in the denominator of WSLD's weight, as its authors' code has it


@objective(reads="logits", logits="any", temperature=POSITIVE)
@in_float64
def kd(student: Tensor, teacher: Tensor, *, temperature: float | Tensor = 4.0, reduction: str = "batchmean") -> Tensor:
    """Knowledge distillation: T^2 KL(softmax(z_t / T) || softmax(z_s / T)), averaged over the batch.

    Hinton et al., 2015, arXiv 1503.02531, section 2. Of multi-label networks it compares the order of the classes: so
    does the baseline of LSHFM (Wang et al., TPAMI 2021), and CPSD (Xu et al., IJCAI 2022) with `sum` and T = 4.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        temperature: T, or a scalar tensor to learn it.
        reduction: `batchmean`, over B; `sum`; `mean`, over B K.

    Returns:
        Scalar.
    """
    log_p_student = F.log_softmax(student / temperature, dim=1)  # [B, K]
    log_p_teacher = F.log_softmax(teacher / temperature, dim=1)
    total = F.kl_div(log_p_student, log_p_teacher, reduction="sum", log_target=True)
    return temperature**2 * reduced(total, reduction, *student.shape)


@objective(reads="logits", logits="any")
@in_float64
def squared_error(student: Tensor, teacher: Tensor, *, reduction: str = "mean") -> Tensor:
    """Squared distance of the logits, averaged over batch and classes.

    Ba and Caruana, NeurIPS 2014, arXiv 1312.6184, section 2.2. CPSD (Xu et al., IJCAI 2022, arXiv 2205.10986) compares
    the logits of multi-label networks by its `sum`.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        reduction: `mean`, over B K; `batchmean`, over B; `sum`.

    Returns:
        Scalar.
    """
    return reduced((student - teacher).square().sum(), reduction, *student.shape)


@objective(reads="logits", temperature=POSITIVE)
@in_float64
def wsld(student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Weighted soft labels: each sample's soft cross-entropy, weighted down where the student is ahead of the teacher.

    w = 1 - exp(-CE(z_s, y) / CE(z_t, y)), at temperature 1 and without a gradient;
    loss = mean over the batch of w T^2 (-sum_k softmax(z_t / T)_k log softmax(z_s / T)_k).

    Zhou et al., ICLR 2021, arXiv 2102.00650, the weighted soft labels of section 4. The authors train with
    cross-entropy + 2.5 wsld at T = 2. The soft term is a cross-entropy, as in their code: it exceeds the KL divergence
    of `kd` by the teacher's entropy and has the same gradient.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        labels: int64 [B].
        temperature: T.

    Returns:
        Scalar.
    """
    p_teacher = F.softmax(teacher / temperature, dim=1)  # [B, K]
    log_p_student = F.log_softmax(student / temperature, dim=1)
    soft = -(p_teacher * log_p_student).sum(1)  # [B]
    return temperature**2 * (wsld_weights(student, teacher, labels) * soft).mean()


@torch.no_grad()
@in_float64
def wsld_weights(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The sample weights w of `wsld`, in [0, 1]; [B]."""
    student_loss = F.cross_entropy(student, labels, reduction="none")  # [B]
    teacher_loss = F.cross_entropy(teacher, labels, reduction="none")
    return -torch.expm1(-student_loss / (teacher_loss + _EPSILON))


@objective(reads="logits", alpha=NOT_NEGATIVE, beta=NOT_NEGATIVE, temperature=POSITIVE)
@in_float64
def dkd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Decoupled knowledge distillation: alpha TCKD + beta NCKD, each T^2 times a KL divergence averaged over the batch.

    TCKD compares (true class, all others), NCKD the distribution among the others. Zhao et al., CVPR 2022,
    arXiv 2203.08679, equation 7. Their defaults: CIFAR-100 T = 4, alpha 1, beta 2 to 8 by pair, growing over 20 epochs;
    ImageNet T = 1, alpha 1, beta 0.5 (R34 to R18) or 2 (R50 to MobileNetV1).

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        labels: int64 [B].
        alpha: weight of the target class part.
        beta: weight of the non-target part.
        temperature: T.

    Returns:
        Scalar.
    """
    is_true = one_hot(labels, student.shape[1])
    true_student, rest_student = split(student / temperature, is_true)
    true_teacher, rest_teacher = split(teacher / temperature, is_true)
    loss = alpha * divergence(true_teacher, true_student) + beta * divergence(rest_teacher, rest_student)
    return temperature**2 * loss.mean()


def split(logits: Tensor, is_true: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities of (true, others) [B, 2] and among the others [B, K], where the true class has none."""
    others = logits.masked_fill(is_true, lowest(logits))
    total, rest = logits.logsumexp(1), others.logsumexp(1)  # [B]
    true = (logits * is_true).sum(1)
    return torch.stack([true - total, rest - total], 1), others - rest[:, None]


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) over dimension 1; [B, K, ...] -> [B, ...]."""
    return (log_p.exp() * (log_p - log_q)).sum(1)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """[B] -> bool [B, K]."""
    return labels[:, None] == torch.arange(classes, device=labels.device)


def lowest(logits: Tensor) -> float:
    """In place of -inf: exp of it is 0, and the difference of two of it is."""
    return torch.finfo(logits.dtype).min / 4


@objective(reads="logits", beta=NOT_NEGATIVE, gamma=NOT_NEGATIVE, temperature=POSITIVE)
@in_float64
def dist(
    student: Tensor, teacher: Tensor, *, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """DIST: T^2 (beta (1 - correlation over a sample's classes) + gamma (1 - correlation over a class's samples)).

    Pearson correlations of the probabilities, averaged. Huang et al., NeurIPS 2022, arXiv 2205.10536, equations 9 to
    11. Their weights: 1 for the cross-entropy, beta = gamma = 2 on CIFAR-100 (T = 4) and ImageNet (T = 1).

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        beta: weight of the relation between classes, within a sample.
        gamma: weight of the relation between samples, within a class.
        temperature: T.

    Returns:
        Scalar.
    """
    p_student, p_teacher = (F.softmax(z / temperature, dim=1) for z in (student, teacher))  # [B, K]
    between = 1 - _correlation(p_student, p_teacher).mean()
    within = 1 - _correlation(p_student.T, p_teacher.T).mean()
    return temperature**2 * (beta * between + gamma * within)


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's, of each row; [N, M] -> [N]."""
    x, y = centred(x), centred(y)
    lengths = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
    return (x * y).sum(1) / (lengths + 1e-8)


@objective(reads="logits", gamma=NOT_NEGATIVE, temperature=POSITIVE)
@in_float64
def nkd(student: Tensor, teacher: Tensor, labels: Tensor, *, gamma: float = 1.5, temperature: float = 1.0) -> Tensor:
    """Normalised KD: the true class, weighted by the teacher, and gamma T^2 times the cross-entropy among the others.

    -p_t log p_s of the true class at temperature 1, then the cross-entropy between the distributions among the other
    classes at T. Yang et al., ICCV 2023, arXiv 2303.13005, equation 9. Their defaults: gamma 1.5, T = 1; on CIFAR-100
    gamma 3.5, T = 3.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        labels: int64 [B].
        gamma: weight of the part of the other classes.
        temperature: T of that part.

    Returns:
        Scalar.
    """
    is_true = one_hot(labels, student.shape[1])
    p_teacher = F.softmax(teacher, 1).gather(1, labels[:, None])[:, 0]  # [B]
    true = p_teacher * F.cross_entropy(student, labels, reduction="none")
    others_student, others_teacher = ((z / temperature).masked_fill(is_true, lowest(z)) for z in (student, teacher))
    log_student = F.log_softmax(others_student, 1).masked_fill(is_true, 0)  # [B, K]
    others = -(F.softmax(others_teacher, 1) * log_student).sum(1)
    return (true + gamma * temperature**2 * others).mean()


@objective(reads="logits", temperature=POSITIVE)
@in_float64
def class_correlation(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Squared distance of the classes' Gram matrices of the batch's probabilities, over K.

    Jin et al., Multi-level logit distillation, CVPR 2023, section 3.2, class level.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        temperature: T.

    Returns:
        Scalar.
    """
    p_student, p_teacher = (F.softmax(z / temperature, dim=1) for z in (student, teacher))  # [B, K]
    return _gram_distance(p_teacher, p_student) / student.shape[1]


@objective(reads="logits", temperature=POSITIVE)
@in_float64
def batch_correlation(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Squared distance of the samples' Gram matrices of their probabilities, over B.

    Jin et al., Multi-level logit distillation, CVPR 2023, section 3.2, batch level.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        temperature: T.

    Returns:
        Scalar.
    """
    p_student, p_teacher = (F.softmax(z / temperature, dim=1) for z in (student, teacher))  # [B, K]
    return _gram_distance(p_teacher.T, p_student.T) / len(student)


def _gram_distance(x: Tensor, y: Tensor) -> Tensor:
    """Squared distance of x.T x and y.T y, by the smaller products; each [M, N] -> scalar."""
    if x.shape[1] <= x.shape[0]:
        return (x.T @ x - y.T @ y).square().sum()
    gap, total = x - y, x + y  # x.T x - y.T y is half of total.T gap + gap.T total
    crossed = total @ gap.T  # [M, M]
    return ((total @ total.T * (gap @ gap.T)).sum() + (crossed * crossed.T).sum()) / 2


@objective(reads="logits", temperature=POSITIVE)
@in_float64
def mlkd(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Multi-level logit distillation: `kd`, `class_correlation` and `batch_correlation`, at several temperatures.

    The sum over T, 2, 3, 5 and 6. Jin et al., CVPR 2023, section 3, where it is computed for a weak and for a strong
    view of each image: a second term with `view="strong"`. Their released code multiplies the terms of the weak view by
    shares of confident samples after they are averaged; method=mlkd_released of configs/cifar100.py repeats its sum.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        temperature: T; on CIFAR-100 4, on ImageNet 1.

    Returns:
        Scalar.
    """
    levels = (kd, class_correlation, batch_correlation)
    values = [level(student, teacher, temperature=t) for t in (temperature, 2.0, 3.0, 5.0, 6.0) for level in levels]
    return summed(values)


@objective(
    reads="logits",
    within=NOT_NEGATIVE,
    across=NOT_NEGATIVE,
    confidence=SHARE,
    strong_confidence=SHARE,
    temperature=POSITIVE,
)
@in_float64
def crld(
    student: Tensor,
    teacher: Tensor,
    student_strong_logits: Tensor,
    teacher_strong_logits: Tensor,
    *,
    within: float = 2.0,
    across: float = 0.5,
    confidence: float = 0.9,
    strong_confidence: float = 0.2,
    temperature: float = 4.0,
) -> Tensor:
    """Cross-view consistency: `kd` within each of two views of an image, and from each to the other.

    Samples count within the views where the teacher gives a class of the image at least ``confidence``, and across them
    where it gives one of the strong view at least ``strong_confidence``; averaged over all samples. Zhang et al., ACM
    Multimedia 2024, arXiv 2412.16493, section 3. Their defaults are these, beside the cross-entropy of both views; on
    ImageNet T = 1 and cross-entropies of weight 2.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        student_strong_logits: of the strong views, [B, K].
        teacher_strong_logits: likewise.
        within: weight of each view's own part.
        across: weight of the parts from one view to the other.
        confidence: see above, at temperature 1.
        strong_confidence: likewise.
        temperature: T.

    Returns:
        Scalar.
    """
    ours, theirs = (
        [F.log_softmax(z / temperature, 1) for z in views]  # [B, K]
        for views in ((student, student_strong_logits), (teacher, teacher_strong_logits))
    )
    sure, strong_sure = (
        F.softmax(z, 1).amax(1) >= least  # [B]
        for z, least in ((teacher, confidence), (teacher_strong_logits, strong_confidence))
    )
    same = sure * (divergence(theirs[0], ours[0]) + divergence(theirs[1], ours[1]))
    other = strong_sure * (divergence(theirs[0], ours[1]) + divergence(theirs[1], ours[0]))
    return temperature**2 * (within * same + across * other).mean()


@in_float64
def standardize(logits: Tensor) -> Tensor:
    """Each sample's logits minus their mean, over their (unbiased) standard deviation; [B, K] -> [B, K].

    Sun et al., CVPR 2024, arXiv 2403.01427, algorithm 1: `Term(standardize=True)` puts it in front of any objective on
    logits. On CIFAR-100 `kd` has weight 9 at T = 2 beside 0.1 of cross-entropy; alpha and beta of `dkd` are 9 times the
    usual.
    """
    rest = centred(logits)  # [B, K]
    deviation = torch.linalg.vector_norm(rest, dim=1, keepdim=True) / max(logits.shape[1] - 1, 1) ** 0.5
    return rest / (deviation + 1e-7)


@objective(reads="logits", temperature=POSITIVE)
@in_float64
def ttm(student: Tensor, teacher: Tensor, *, temperature: float = 4.0, weighted: bool = True) -> Tensor:
    """Transformed teacher matching: KL(softmax(z_t / T) || softmax(z_s)), a temperature for the teacher alone.

    ``weighted`` gives each sample the weight sum_k softmax(z_t)_k^(1 / T) (WTTM). Averaged over the batch. Zheng and
    Yang, ICLR 2024, arXiv 2402.11148, sections 3 and 4.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        temperature: T.
        weighted: whether smoother targets count more.

    Returns:
        Scalar.
    """
    matched = divergence(F.log_softmax(teacher / temperature, 1), F.log_softmax(student, 1))  # [B]
    if weighted:
        matched = matched * (F.log_softmax(teacher, 1) / temperature).exp().sum(1)
    return matched.mean()
