"""Cross-entropy and USKD by hand, and what the paper says of it."""

import math
from math import log as ln

import pytest
import torch
from logit_cases import CLASSES, WEAK, run_uskd, sample
from small_tensors import log, numbers
from torch.nn import functional as F

from objectives.labels import cross_entropy


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    labels = torch.tensor([0, 1])
    assert cross_entropy(logits, labels).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    smoothed = (math.log(2) + 0.95 * math.log(4 / 3) + 0.05 * math.log(4)) / 2
    assert cross_entropy(logits, labels, label_smoothing=0.1).item() == pytest.approx(smoothed)


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
