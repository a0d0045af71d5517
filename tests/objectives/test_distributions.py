"""WKD-F, which compares maps as Gaussians, and PHI-S, which brings teachers to one scale."""

import pytest
import torch
from small_tensors import numbers, row
from torch import nn
from torch.nn import functional as F

from objectives.gaussians import WkdF
from objectives.phi_s import PhiS, hadamard


def plain(student, teacher, **options):
    """WKD-F of maps of equal channels as they are, without the layers in front."""
    module = WkdF(student, teacher, **options).double()
    module.connector = nn.Identity()
    return module


def test_wkd_f_by_hand():
    # Means 2 and 5, deviations 1 and 3, beside which an epsilon of 1e-5 is nothing: 4 * 9 + 4.
    student, teacher = row(1, 3), row(2, 8)
    for full in (False, True):
        assert plain(student, teacher, ratio=4.0, full=full)(student, teacher).item() == pytest.approx(40, rel=1e-4)
    # Cells of one pixel have no deviation: (1 + 25) / 2 * 4, and the other row of cells is the same.
    assert plain(student, teacher, ratio=4.0, grid=2)(student, teacher).item() == pytest.approx(52)


def test_whole_covariances_see_what_diagonal_ones_do_not():
    # Two channels that rise together, and two of which one falls: equal means and deviations.
    student = torch.cat([row(1, -1, 0), row(1, -1, 0)], 1)
    teacher = torch.cat([row(1, -1, 0), row(-1, 1, 0)], 1)
    assert plain(student, teacher)(student, teacher).item() == pytest.approx(0, abs=1e-12)
    # (4 + 4) / 3 of the traces; the covariances are at right angles.
    assert plain(student, teacher, full=True)(student, teacher).item() == pytest.approx(8 / 3)


def test_whole_covariances_stay_with_a_rotation_of_both():
    student, teacher = numbers(2, 4, 5, 5), numbers(2, 4, 5, 5, seed=1)
    turn = torch.linalg.qr(numbers(4, 4, seed=2))[0]
    turned = [torch.einsum("dc,bchw->bdhw", turn, x) for x in (student, teacher)]
    module = plain(student, teacher, full=True)
    torch.testing.assert_close(module(*turned), module(student, teacher))
    assert module(teacher, teacher).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("full", [False, True])
def test_wkd_f_of_maps_without_variance(full):
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    value = plain(student, student, full=full, grid=2).float()(student, torch.randn(2, 3, 4, 4))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_cells_that_overlap_are_those_of_adaptive_pooling():
    # 7 pixels in 4 cells. Maps that are constant within a cell do not exist then, but the means are all that counts.
    student, teacher = numbers(2, 3, 7, 7), numbers(2, 3, 7, 7, seed=1)
    whole, diagonal = (plain(student, teacher, ratio=1e9, grid=4, full=full) for full in (True, False))
    means = [F.adaptive_avg_pool2d(x, 4) for x in (student, teacher)]
    expected = 1e9 * (means[0] - means[1]).square().sum((1, 2, 3)).mean() / 16
    for module in (whole, diagonal):
        torch.testing.assert_close(module(student, teacher), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("order", [1, 2, 4, 12, 20, 64, 192, 384, 640, 768, 1152])
def test_hadamard_matrices_have_entries_of_one_size(order):
    matrix = hadamard(order)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(order, dtype=torch.float64))
    torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, order**-0.5))


@pytest.mark.parametrize("order", [3, 5, 6, 36, 100])
def test_other_orders_have_rows_at_right_angles_too(order):
    matrix = hadamard(order)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(order, dtype=torch.float64))


def measured(teacher, **options):
    """PHI-S that has seen a batch of the teacher, and what it makes of it, [N, C]."""
    module = PhiS(teacher, teacher, **options).double()
    module(teacher, teacher)
    pixels = teacher.permute(0, 2, 3, 1).flatten(0, 2)
    return module, (pixels - module.mean) @ module.rotation.mT


@pytest.mark.parametrize("channels", [8, 12])
def test_every_channel_of_a_teacher_has_mean_0_and_variance_1_and_nothing_is_lost(channels):
    mixed = numbers(6, channels, 5, 5) * (10.0 ** -torch.arange(channels))[:, None, None] + 3
    teacher = torch.einsum("dc,bchw->bdhw", numbers(channels, channels, seed=1), mixed)
    pixels = teacher.permute(0, 2, 3, 1).flatten(0, 2)
    _, standard = measured(teacher)
    torch.testing.assert_close(standard.mean(0), torch.zeros(channels).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(standard.var(0, correction=0), torch.ones(channels).double(), rtol=1e-5, atol=0)
    phi = pixels.var(0, correction=0).mean().sqrt()  # a rotation and one scale: distances stay
    torch.testing.assert_close(torch.pdist(standard[:9]) * phi, torch.pdist(pixels[:9]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [5, 36])
def test_without_a_hadamard_matrix_channels_have_variance_1_on_the_average_alone(channels):
    mixed = numbers(9, channels, 6, 6) * (2.0 ** -torch.arange(channels))[:, None, None]
    _, standard = measured(torch.einsum("dc,bchw->bdhw", numbers(channels, channels, seed=1), mixed))
    variances = standard.var(0, correction=0)
    assert variances.mean().item() == pytest.approx(1, rel=1e-5)
    assert variances.max() > 1.3
    assert variances.max() < 2
    # Those of a cosine and of the sine that mirrors it: 1 + sin and 1 - sin.
    pairs = variances[1:] + variances[1:].flip(0)
    torch.testing.assert_close(pairs, torch.full_like(pairs, 2), rtol=1e-5, atol=0)


def test_teachers_weigh_the_same_whatever_their_scale():
    teacher = numbers(4, 8, 5, 5)
    for scale, shift in ((1, 0), (1e3, 0), (1e-3, 0), (1, 50)):
        _, standard = measured(scale * teacher + shift)
        assert standard.square().mean().item() == pytest.approx(1, rel=1e-4)


def test_phi_s_keeps_what_the_first_batch_was_like():
    first, second = numbers(4, 4, 3, 3), 5 + 3 * numbers(4, 4, 3, 3, seed=1)
    module = PhiS(first, first).double().eval()
    module(first, first)
    assert module.rotation.equal(torch.eye(4).double())  # evaluation says nothing about the data
    module.train()(first, first)
    mean, rotation = module.mean.clone(), module.rotation.clone()
    torch.testing.assert_close(mean, first.mean((0, 2, 3)))
    resumed = PhiS(first, first).double()
    resumed.load_state_dict(module.state_dict())
    for one in (module, resumed):
        one(second, second)
        assert one.mean.equal(mean)
        assert one.rotation.equal(rotation)


def test_a_teacher_that_says_nothing_is_zero():
    teacher = torch.full((4, 8, 3, 3), 0.3)
    module = PhiS(teacher, teacher)
    assert module(teacher, teacher).isfinite()
    assert not module.rotation.any()
