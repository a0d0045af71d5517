"""LDRLD and PCD by hand, and what their papers say of them."""

import math
from math import log as ln

import pytest
import torch
from logit_cases import CLASSES, sample
from small_tensors import log, numbers

from objectives.logits import kd
from objectives.ranked import ldrld, pcd


def test_ldrld_by_hand():
    # The student's first two, (3/4, 1/4), to the teacher's (1/2, 1/2): ln 2 - ln 3 / 2, once as a pair of the ranks 1
    # and 2 and once as the whole. The others (1/2, 1/2) to (1/3, 2/3): ln 3 - 3 ln 2 / 2.
    student, teacher = log([0.12, 0.6, 0.08, 0.2]), log([0.1, 0.4, 0.1, 0.4])
    first = ln(2) - ln(3) / 2
    rest = 0.5 * ln(0.5 / 0.6) + 0.5 * ln(0.5 / 0.4)
    weight = 2 * math.exp(-0.15) / 2.5
    options = {"alpha": 3.0, "beta": 5.0, "depth": 2, "temperature": 1.0}
    value = ldrld(student, teacher, **options, averaged=False)
    assert value.item() == pytest.approx(3 * (weight + 1) * first + 5 * rest)
    assert ldrld(student, teacher, **options).item() == pytest.approx(3 * (weight + 1) * first / 2 + 5 * rest)
    doubled = ldrld(2 * student, 2 * teacher, **options | {"temperature": 2.0})
    assert doubled.item() == pytest.approx(4 * ldrld(student, teacher, **options).item())


def test_ldrld_compares_pairs_whatever_the_other_classes_are():
    student, teacher, _ = sample("ldrld")
    first = torch.zeros_like(student, dtype=torch.bool).scatter(1, student.topk(3, 1).indices, True)
    noise = numbers(*student.shape, seed=5).abs()
    student_moved, teacher_moved = (z - ~first * noise for z in (student, teacher))
    options = {"depth": 3, "beta": 0.0}
    torch.testing.assert_close(ldrld(student_moved, teacher_moved, **options), ldrld(student, teacher, **options))
    assert not torch.equal(ldrld(student_moved, teacher_moved, depth=3), ldrld(student, teacher, depth=3))


def test_ldrld_of_two_classes_is_kd():
    student, teacher = numbers(6, 2), numbers(6, 2, seed=1)
    share = (2 * math.exp(-0.15) / 2.5 + 1) / 2
    value = ldrld(student, teacher, alpha=1.0, temperature=3.0)
    torch.testing.assert_close(value, share * kd(student, teacher, temperature=3.0))


def test_pcd_by_hand():
    # Whole: (4/7, 2/7, 1/7) to (1/4, 1/4, 1/2), of the cosine 8 / sqrt 126. In two, the last class, which differs most,
    # is alone; the others are (2/3, 1/3) to (1/2, 1/2), of the cosine 3 / sqrt 10.
    student, teacher = log([1 / 4, 1 / 4, 1 / 2]), log([1 / 2, 1 / 4, 1 / 8])
    whole = (1 - 8 / math.sqrt(126)) * (4 * ln(16 / 7) + 2 * ln(8 / 7) + ln(2 / 7)) / 7
    two = (1 - 3 / math.sqrt(10)) * (2 * ln(4 / 3) + ln(2 / 3)) / 3
    assert pcd(student, teacher, stages=1, temperature=1.0).item() == pytest.approx(2 * whole)
    assert pcd(student, teacher, stages=2, temperature=1.0).item() == pytest.approx(2 * (whole + two))
    doubled = pcd(2 * student, 2 * teacher, stages=2, temperature=2.0)
    assert doubled.item() == pytest.approx(4 * 2 * (whole + two))


def test_pcd_stays_with_a_constant_on_the_logits_of_both():
    student, teacher, _ = sample("pcd")
    constants = numbers(len(student), 1, seed=7, scale=30)
    torch.testing.assert_close(pcd(student + constants, teacher + constants), pcd(student, teacher))


def test_pcd_of_more_stages_than_classes_compares_what_there_is():
    student, teacher, _ = sample("pcd")
    once = pcd(student, teacher, stages=1)
    extra = pcd(student, teacher, stages=CLASSES + 2) - pcd(student, teacher, stages=CLASSES)
    torch.testing.assert_close(extra, 2 * once)  # no equal share is left: all are in the last group
