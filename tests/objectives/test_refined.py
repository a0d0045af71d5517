"""RLD, LumiNet and hard labels by hand, and what their papers say of them."""

from math import log as ln

import pytest
import torch
from logit_cases import CLASSES, sample
from small_tensors import log, numbers, tensor
from torch.nn import functional as F

from objectives.hard_label import distillation_token, hard_label
from objectives.logits import dkd, kd
from objectives.luminet import luminet
from objectives.rld import rld


def test_rld_by_hand():
    # The true class is second: (1/2, 1/2) to (1/4, 3/4) of the first and the true one, ln 2 - ln 3 / 2; below it (1/2,
    # 1/2) to (1/3, 2/3), ln 3 - 3 ln 2 / 2.
    student, teacher = log([1 / 4, 1 / 4, 1 / 6, 1 / 3]), log([1 / 4, 1 / 2, 1 / 8, 1 / 8])
    expected = 3 * (ln(2) - ln(3) / 2) + 5 * (ln(3) - 1.5 * ln(2))
    assert rld(student, teacher, torch.tensor([0]), alpha=3.0, beta=5.0, temperature=1.0).item() == pytest.approx(
        expected
    )
    doubled = rld(2 * student, 2 * teacher, torch.tensor([0]), alpha=3.0, beta=5.0, temperature=2.0)
    assert doubled.item() == pytest.approx(4 * expected)


def test_rld_is_dkd_where_the_teacher_is_right():
    student, teacher, _ = sample("rld")
    labels = teacher.argmax(1)
    options = {"alpha": 0.7, "beta": 3.0, "temperature": 2.0}
    torch.testing.assert_close(rld(student, teacher, labels, **options), dkd(student, teacher, labels, **options))


def test_rld_leaves_the_student_free_where_the_teacher_ranks_a_class_above_the_true_one():
    student, teacher, labels = sample("rld")
    left_out = teacher >= teacher.gather(1, labels[:, None])
    moved = student + left_out * numbers(*student.shape, seed=5)
    values = [rld(z, teacher, labels, alpha=0.0) for z in (student, moved)]
    torch.testing.assert_close(*values)
    assert values[0] > 0
    last = teacher.argmin(1)  # nothing is below it
    assert rld(student, teacher, last, alpha=0.0).item() == 0


def test_luminet_by_hand():
    # Of two samples each class is -1 or 1: (-1, 1) and (1, -1) to (1, -1) and (-1, 1), p = 1 / (1 + e^-2) each.
    student, teacher = tensor([0, 5], [2, 1]), tensor([300, 0], [100, 20])
    p = F.softmax(tensor(1, -1), 0)[0].item()
    expected = p * ln(p / (1 - p)) + (1 - p) * ln((1 - p) / p)
    assert luminet(student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-4)


def test_luminet_does_not_see_how_large_the_logits_of_a_class_are():
    student, teacher, _ = sample("luminet")
    factors, constants = numbers(CLASSES, seed=3).abs() + 0.5, numbers(CLASSES, seed=4, scale=30)
    value = luminet(student, teacher)
    torch.testing.assert_close(luminet(factors * student + constants, teacher), value, rtol=1e-4, atol=0)
    torch.testing.assert_close(luminet(student, factors * teacher + constants), value, rtol=1e-4, atol=0)
    assert luminet(student[:1], teacher[:1]).item() == 0  # a sample alone is like its batch


def test_hard_labels_by_hand():
    student, teacher = log([1 / 4, 3 / 4], [1 / 2, 1 / 2]), log([0.9, 0.1], [0.4, 0.6])
    for objective in (hard_label, distillation_token):
        assert objective(student, teacher).item() == pytest.approx((ln(4) + ln(2)) / 2)


def test_hard_labels_are_what_a_sure_teacher_gives():
    student, teacher, _ = sample("hard_label")
    torch.testing.assert_close(hard_label(student, teacher), kd(student, 1e4 * teacher, temperature=1.0))
