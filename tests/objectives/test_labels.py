"""Cross-entropy, the asymmetric one and USKD by hand, and what the papers say of them."""

import math
from math import log as ln

import pytest
import torch
from logit_cases import CLASSES, WEAK, run_uskd, sample
from small_tensors import log, numbers
from torch.nn import functional as F

from objectives.labels import asymmetric_single_label, cross_entropy


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    labels = torch.tensor([0, 1])
    assert cross_entropy(logits, labels).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    smoothed = (math.log(2) + 0.95 * math.log(4 / 3) + 0.05 * math.log(4)) / 2
    assert cross_entropy(logits, labels, label_smoothing=0.1).item() == pytest.approx(smoothed)


def test_the_asymmetric_cross_entropy_by_hand():
    # The true class at 1/2 to the power 1, the others at 1/4 squared, with 2/3 + 1/9 and 1/9 of the target.
    logits, labels = log([1 / 2, 1 / 4, 1 / 4]), torch.tensor([0])
    value = asymmetric_single_label(logits, labels, gamma_positive=1.0, gamma_negative=2.0, label_smoothing=1 / 3)
    assert value.item() == pytest.approx(7 / 9 * ln(2) / 2 + 2 / 9 * ln(4) / 16)


def test_the_asymmetric_cross_entropy_without_focusing_is_the_cross_entropy():
    student, _, labels = sample("asymmetric_single_label")
    options = {"gamma_positive": 0.0, "gamma_negative": 0.0}
    for smoothing in (0.0, 0.1):
        value = asymmetric_single_label(student, labels, **options, label_smoothing=smoothing)
        torch.testing.assert_close(value, cross_entropy(student, labels, label_smoothing=smoothing))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 4.0])
def test_the_asymmetric_cross_entropy_learns_where_probabilities_are_zero(gamma):
    student = torch.tensor([[1e4, -1e4, 0.0], [800.0, 0.0, 50.0]], requires_grad=True)
    for labels in ([0, 0], [1, 1], [2, 2]):
        loss = asymmetric_single_label(student, torch.tensor(labels), gamma_positive=gamma, gamma_negative=gamma)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        if gamma == 0:
            torch.testing.assert_close(loss, cross_entropy(student, torch.tensor(labels), label_smoothing=0.1))


def test_uskd_by_hand():
    # True class at 1/2 and 1/4, their squares 3/32 from the mean. Ranks 1 2 3, then 2 3 1: Zipf's shares among the
    # others are (1/2, 1/3) and (1/3, 1) over their sums. The weak classifier is at 1/3 everywhere.
    student, labels = log([1 / 2, 1 / 3, 1 / 6], [1 / 4, 1 / 8, 5 / 8]), torch.zeros(2, dtype=torch.long)
    true = (35 / 32 * ln(2) + 29 / 32 * ln(4)) / 2
    rest = -(3 / 5 * ln(2 / 3) + 2 / 5 * ln(1 / 3) + 1 / 4 * ln(1 / 6) + 3 / 4 * ln(5 / 6)) / 2
    weak = (torch.zeros(3, 3), torch.zeros(3))
    value = run_uskd(student, student, labels, weak=weak, alpha=2.0, beta=3.0, mu=5.0, by_log=False)
    assert value.item() == pytest.approx(2 * true + 3 * rest + 5 * ln(3))


def test_uskd_of_equally_sure_samples_is_the_cross_entropy():
    student, labels = numbers(1, CLASSES).expand(4, CLASSES), torch.full((4,), 3)
    expected = F.cross_entropy(student, labels)  # the soft target is p^2 + 1 - p^2
    torch.testing.assert_close(run_uskd(student, student, labels, alpha=1.0, beta=0.0, mu=0.0), expected)


def test_the_gradient_of_uskd_is_the_distance_from_its_soft_labels():
    student, pooled, labels = sample("uskd", batch=3)
    (gradient,) = torch.autograd.grad(run_uskd(student, pooled, labels, alpha=0.5, beta=0.4), student)
    p, expected = F.softmax(student.detach(), 1), torch.zeros(3, CLASSES, dtype=torch.float64)
    weak = F.softmax(pooled @ WEAK[0].T + WEAK[1], 1)
    for i, y in enumerate(labels.tolist()):
        target = p[i, y] ** 2 + 1 - p[range(3), labels].square().mean()
        score = p[i].log() / (1 - p[i, y].log()) + weak[i] / (1 - weak[i, y])
        rest = [k for k in range(CLASSES) if k != y]
        shares = torch.tensor([1 / (1 + (score > score[k]).sum()) for k in rest], dtype=torch.float64)
        expected[i] = 0.5 * target * (p[i] - F.one_hot(labels[i], CLASSES)) / 3
        expected[i, rest] += 0.4 * (p[i, rest] / p[i, rest].sum() - shares / shares.sum()) / 3
    torch.testing.assert_close(gradient, expected)


def test_the_weak_classifier_of_uskd_learns_its_smoothed_cross_entropy_alone():
    student, pooled, labels = sample("uskd", batch=3)
    weak = [x.clone().requires_grad_() for x in WEAK]
    assert torch.autograd.gradcheck(lambda *w: run_uskd(student.detach(), pooled, labels, weak=w, mu=2.0), weak)
