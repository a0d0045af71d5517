"""WKD-L by hand, beside the least cost of a linear program, and what its paper says of classes that are alike."""

import math

import numpy as np
import pytest
import torch
from logit_cases import CLASSES, run_wkd_l, sample
from scipy.optimize import linprog
from small_tensors import log, numbers, tensor
from torch.nn import functional as F

from objectives.transport import related, wkd_l

LABELS = torch.tensor([0])


def test_by_hand():
    # Half of the probability moves between two classes at right angles, of the cost 1 - 1/e; the true class does not.
    student, teacher = log([0.2, 0.2, 0.6]), log([0.6, 0.3, 0.1])
    options = {"entropy": 0.02, "iterations": 100}
    value = wkd_l(student, teacher, LABELS, torch.eye(3).double(), temperature=1.0, **options)
    assert value.item() == pytest.approx((1 - math.exp(-1)) / 2)
    # Doubled logits at T = 2, and a sharpness of 2.
    value = wkd_l(2 * student, 2 * teacher, LABELS, torch.eye(3).double(), temperature=2.0, sharpness=2.0, **options)
    assert value.item() == pytest.approx((1 - math.exp(-2)) / 2)


def test_relations_by_hand():
    # The first and the third at 45 degrees; less their means (1, -1) / 2, (-1, 1) / 2 and 0.
    rows = tensor([2, 0], [0, 1], [3, 3])
    root = math.sqrt(1 / 2)
    torch.testing.assert_close(related(rows, "cosine"), tensor([1, 0, root], [0, 1, root], [root, root, 1]))
    torch.testing.assert_close(related(rows, "cka"), tensor([1, 1, 0], [1, 1, 0], [0, 0, 0]))
    with pytest.raises(ValueError, match=r"^relation=euclid: one of cosine, cka$"):
        related(rows, "euclid")


def test_little_entropy_and_many_iterations_give_the_least_cost():
    student, teacher, labels = sample("wkd_l", batch=1)
    classifier = numbers(CLASSES, 3, seed=8)
    value = wkd_l(student, teacher, labels, classifier, temperature=1.0, entropy=0.01, iterations=2000)
    left = [k for k in range(CLASSES) if k != labels[0]]
    cost = 1 - torch.exp(related(classifier, "cosine") - 1)[left][:, left]
    shares = [F.softmax(z.detach()[0, left], 0).numpy() for z in (student, teacher)]
    rows, columns = (np.kron(*pair) for pair in ((np.eye(4), np.ones((1, 4))), (np.ones((1, 4)), np.eye(4))))
    least = linprog(cost.flatten().numpy(), A_eq=np.concatenate([rows, columns]), b_eq=np.concatenate(shares)).fun
    assert value.item() == pytest.approx(least, abs=1e-4)
    assert least > 0.01


def test_what_moves_to_a_class_that_is_alike_costs_less():
    classifier = tensor([1, 0, 0], [0, 1, 0], [0, 1, 0.2], [0, 0, 1])
    teacher = log([0.1, 0.7, 0.1, 0.1])
    near, far = log([0.1, 0.1, 0.7, 0.1]), log([0.1, 0.1, 0.1, 0.7])
    values = [wkd_l(z, teacher, LABELS, classifier, temperature=1.0).item() for z in (teacher, near, far)]
    assert values == sorted(values)
    assert values[2] > 5 * values[1]


def test_the_value_stays_with_classes_in_another_order_and_rows_of_another_length():
    student, teacher, labels = sample("wkd_l")
    value = run_wkd_l(student, teacher, labels)
    order = torch.tensor([2, 0, 4, 1, 3])
    classifier = numbers(CLASSES, 3, seed=8)
    moved = wkd_l(student[:, order], teacher[:, order], order.argsort()[labels], classifier[order])
    torch.testing.assert_close(moved, value)
    lengths = torch.linspace(0.2, 9, CLASSES, dtype=torch.float64)[:, None]
    torch.testing.assert_close(run_wkd_l(student, teacher, labels, classifier=lengths * classifier), value)


def test_the_true_class_is_not_compared():
    student, teacher, labels = sample("wkd_l")
    moved = student + 50 * F.one_hot(labels, CLASSES)
    torch.testing.assert_close(run_wkd_l(moved, teacher, labels), run_wkd_l(student, teacher, labels))


def test_one_class_beside_the_true_one_has_nowhere_to_go():
    student, teacher = numbers(4, 2), numbers(4, 2, seed=1)
    labels = torch.tensor([0, 1, 0, 1])
    assert wkd_l(student, teacher, labels, numbers(2, 3)).item() == pytest.approx(0, abs=1e-12)
