"""SDD and CAT-KD by hand, and SDD's relation to KD."""

from math import log as ln

import pytest
import torch
from logit_cases import CLASSES, sample
from small_tensors import numbers
from torch.nn import functional as F

from objectives.logits import kd
from objectives.regions import CatKD, Sdd


def test_sdd_by_hand():
    # The teacher's odds are 27, 27, 1/3, 1/3 in the quarters and 3 on the whole: right there, wrong in two quarters,
    # which count twice. To (1/2, 1/2): 3 ln 3 / 4 - ln 2 from odds 3 or 1/3, 81 ln 3 / 28 - ln 14 from 27.
    odds = torch.tensor([[[[3.0, 3], [-1, -1]], [[0, 0], [0, 0]]]]) * ln(3)
    unit, none, labels = torch.eye(2), torch.zeros(2), torch.tensor([0])
    value = Sdd(odds, odds, unit, unit, scales=2, temperature=1.0)(0 * odds, odds, unit, none, unit, none, labels)
    whole, sure = 3 * ln(3) / 4 - ln(2), 81 * ln(3) / 28 - ln(14)
    assert value.item() == pytest.approx((whole + 2 * sure + 2 * 2 * whole) / 5)


def test_catkd_by_hand():
    # Twice (3, 4, 0, 0) to (1, 0, 0, 0): of length one (0.6, 0.8, 0, 0), squares 0.16 + 0.64; else 25 + 64.
    student, teacher = torch.tensor([[[[3.0, 4], [0, 0]]]]), torch.tensor([[[[1.0, 0], [0, 0]]]])
    heads = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    for normalize, expected in ((True, 0.8 / 4), (False, 89 / 4)):
        module = CatKD(student, teacher, *heads, normalize=normalize)
        assert module(student, teacher, *heads).item() == pytest.approx(expected)


def test_sdd_of_one_scale_is_kd():
    student, teacher, labels = sample("sdd")
    weight, bias = numbers(3, CLASSES, seed=3), numbers(3, seed=4)
    logits = [F.linear(x.mean((2, 3)), weight, bias) for x in (student, teacher)]
    module = Sdd(student, teacher, weight, weight, scales=1, temperature=2.0)
    value = module(student, teacher, weight, bias, weight, bias, labels)
    torch.testing.assert_close(value, kd(*logits, temperature=2.0))
