"""Objectives on stages by hand, what OFD and VID learn, and what their papers say of them."""

import math

import pytest
import torch
from small_tensors import numbers, row, tensor
from torch.nn import functional as F

from objectives import maps
from objectives.ab import Ab
from objectives.fitnet import FitNet
from objectives.fsp import Fsp
from objectives.kdsvd import kdsvd
from objectives.ofd import Ofd, margin, partial_l2
from objectives.reviewkd import hcl
from objectives.vid import Vid


def test_fitnet_by_hand():
    # 1 and 3 are -1 and 1 after the batch norm, 0 and 1 after the ReLU, to 2 and 4: (4 + 9) / 2.
    student, teacher = (tensor(*x).view(2, 1, 1, 1) for x in ((1, 3), (2, 4)))
    module = FitNet([student], [teacher]).double()
    module.regressor[0].weight.data.fill_(1.0)
    assert module([student], [teacher]).item() == pytest.approx(13 / 2, rel=1e-4)


def test_at_by_hand():
    # Squares (3, 4) are (0.6, 0.8) of length one, to (1, 0): (0.16 + 0.64) / 2.
    assert maps.at([row(3**0.5, 2)], [row(1, 0)]).item() == pytest.approx(0.4)


def test_nst_by_hand():
    # Each is like itself by 1 and like the other by 0.6^2: 1 + 1 - 0.72.
    assert maps.nst([row(3, 4)], [row(1, 0)]).item() == pytest.approx(1.28)


def test_nst_is_the_squared_distance_of_the_pixels_gram_matrices():
    # Huang and Wang, section 4.1: with this kernel it is the style loss of Gatys et al.
    student, teacher = numbers(3, 5, 2, 2), numbers(3, 4, 2, 2, seed=1)
    s, t = (F.normalize(x.flatten(2), dim=2) for x in (student, teacher))
    grams = s.mT @ s / 5 - t.mT @ t / 4  # [B, H W, H W]
    torch.testing.assert_close(maps.nst([student], [teacher]), grams.square().sum((1, 2)).mean())


def test_fsp_by_hand():
    # Flows 11 / 2 and 1.
    flows = [row(1, 2), row(3, 4)], [row(1, 0), row(2, 0)]
    assert Fsp(*flows)(*flows).item() == pytest.approx(4.5**2)


def test_kdsvd_by_hand():
    # Vectors (1, 0) then (0.8, 0.6) to (1, 0) twice: the differences across the stages are -0.2, 0.8, -0.4, 0.6 to
    # 0, 1, -1, 0.
    value = kdsvd([row(1, 0), row(4, 3)], [row(1, 0), row(2, 0)])
    pairs = [(-0.2, 0), (0.8, 1), (-0.4, -1), (0.6, 0)]
    expected = sum((math.exp(-(a**2) / 8) - math.exp(-(b**2) / 8)) ** 2 for a, b in pairs)
    assert value.item() == pytest.approx(expected)


def test_hcl_by_hand():
    # Squares 3 on the map, 1.5^2 on its mean, which counts half.
    assert hcl([tensor([[[0, 0], [0, 0]]])], [tensor([[[1, 1], [1, 3]]])]).item() == pytest.approx(4.125 / 1.5)


def test_vid_by_hand():
    # Half of 2^2 / 2 + ln 2.
    module = Vid([row(3)], [row(1)], variance=2.0).double()
    for layer in (0, 2, 4):
        module.means[0][layer].weight.data.fill_(1.0)
    assert module([row(3)], [row(1)]).item() == pytest.approx(1 + math.log(2) / 2, rel=1e-4)


def test_vid_is_least_where_the_variances_are_those_of_the_residuals():
    student, teacher = numbers(4, 3, 2, 2), numbers(4, 2, 2, 2, seed=1)
    module = Vid([student], [teacher]).double()
    variance = (module.means[0](student) - teacher).square().mean((0, 2, 3)).detach()
    module.scales[0].data = (variance - 1e-5).expm1().log()
    (gradient,) = torch.autograd.grad(module([student], [teacher]), module.scales[0])
    torch.testing.assert_close(gradient, torch.zeros(2, dtype=torch.float64))
    best = module([student], [teacher]).item()
    assert best == pytest.approx((1 + variance.log().mean().item()) / 2)  # the entropy, less its constant
    for away in (-0.3, 0.3):
        module.scales[0].data += away
        assert module([student], [teacher]).item() > best
        module.scales[0].data -= away


def test_ab_by_hand():
    # To 1 beyond zero: 0.5, 4, 3 and 0.5 are missing; the first of two stages counts half.
    student, teacher = row(0.5, -3, 2, -0.5), row(1, 1, -1, -1)
    assert Ab([student] * 2, [teacher] * 2)([student] * 2, [teacher] * 2).item() == pytest.approx(25.5 * 1.5)


def test_ab_is_zero_where_every_neuron_is_beyond_the_boundary_on_the_teachers_side():
    teacher = numbers(3, 2, 4, 4)
    module = Ab([teacher], [teacher], margin=2.0)
    student = (teacher.sign() * (2 + teacher.abs())).requires_grad_()
    value = module([student], [teacher])
    value.backward()
    assert value.item() == 0
    assert student.grad.eq(0).all()
    assert module([-student], [teacher]).item() > 0


def test_ofd_by_hand():
    # Margin -1: 1 below 2, 0.5 above -0.5, below -1 already, 1 above -1.
    value = partial_l2(row(1, 0, -2, 0), row(2, -0.5, -3, -3), tensor(-1))
    assert value.item() == pytest.approx(1 + 0.25 + 0 + 1)
    # The mean of the negative half of a normal variable; nothing is negative 9 deviations above zero.
    margins = margin(tensor(1, -2, 1), tensor(0, 0, 9))
    torch.testing.assert_close(margins, tensor(-math.sqrt(2 / math.pi), -2 * math.sqrt(2 / math.pi), -3))


def test_ofd_measures_the_mean_of_all_negative_responses_in_training_only():
    batches = [numbers(3, 2, 2, 2, seed=seed) for seed in range(3)]
    module = Ofd([batches[0]], [batches[0]], [None]).double()
    for batch in batches[:2]:
        module([batch], [batch])
    module.eval()([batches[2]], [batches[2]])
    seen = torch.cat(batches[:2])
    expected = torch.stack([seen[:, c][seen[:, c] < 0].mean() for c in range(2)])
    torch.testing.assert_close(module.get_buffer("margin0"), expected)


def test_ofd_does_not_see_how_far_the_teacher_is_below_the_margin_nor_the_student_below_both():
    margin = torch.tensor([-1.0, -0.5], dtype=torch.float64)
    student, teacher = 2 * numbers(4, 2, 3, 3), 2 * numbers(4, 2, 3, 3, seed=1)
    below = teacher < margin.view(-1, 1, 1)
    value = partial_l2(student, teacher, margin)
    torch.testing.assert_close(partial_l2(student, torch.where(below, 9 * teacher, teacher), margin), value)
    target = teacher.maximum(margin.view(-1, 1, 1))
    fine = (target <= 0) & (student <= target)
    assert fine.any()
    torch.testing.assert_close(partial_l2(torch.where(fine, student - 5, student), teacher, margin), value)
