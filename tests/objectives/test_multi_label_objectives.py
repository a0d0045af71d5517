"""Objectives on logits of which each is a class for itself: by hand, by slow references, and their laws."""

import math
from functools import partial
from math import log as ln

import pytest
import slow_multi_label as slow
import torch
from small_tensors import log, numbers, tensor

from objectives.logits import kd, squared_error
from objectives.multi_label import asymmetric, bce, mce, mld, partial_softmax

CLASSES = 5
THREE = tensor([ln(3), 0, -ln(3)])  # probabilities 3/4, 1/2, 1/4


def sample(batch=6, seed=0, scale=2.0):
    """Student, teacher, present: the first image shows nothing, the second one everything, the third ignores one."""
    student, teacher = (numbers(batch, CLASSES, seed=10 * seed + i, scale=scale) for i in range(2))
    present = (numbers(batch, CLASSES, seed=seed + 5) > 0).to(torch.int8)
    present[:1], present[1:2], present[2:3, 0] = 0, 1, -1
    return student.requires_grad_(), teacher, present


LOSSES = {
    "bce": lambda s, _, y: bce(s, y),
    "bce_of_l2d": lambda s, _, y: bce(s, y, epsilon=0.2, reduction="sum"),
    "mce": lambda s, _, y: mce(s, y),
    "asymmetric": lambda s, _, y: asymmetric(s, y),
    "asymmetric_without_clip": lambda s, _, y: asymmetric(s, y, gamma_positive=1.5, clip=0.0, epsilon=0.0),
    "asymmetric_through_weights": lambda s, _, y: asymmetric(
        s, y, gamma_positive=0.5, gamma_negative=2.0, through_weights=True
    ),
    "mld": lambda s, t, _: mld(s, t),
    "mld_of_wide_ends": lambda s, t, _: mld(s, t, epsilon=0.2),
    "partial_softmax": partial_softmax,
    "squared_error": lambda s, t, _: squared_error(s, t),
}
SLOW = {
    "bce": lambda *x: slow.bce(*x) / len(x[0]) / CLASSES,
    "bce_of_l2d": partial(slow.bce, epsilon=0.2),
    "mce": slow.mce,
    "asymmetric": partial(slow.asymmetric, gammas=(0.0, 4.0), clip=0.05, epsilon=1e-8),
    "asymmetric_without_clip": partial(slow.asymmetric, gammas=(1.5, 4.0), clip=0.0, epsilon=0.0),
    "asymmetric_through_weights": partial(slow.asymmetric, gammas=(0.5, 2.0), clip=0.05, epsilon=1e-8),
    "mld": slow.mld,
    "mld_of_wide_ends": partial(slow.mld, epsilon=0.2),
    "partial_softmax": slow.partial_softmax,
    "squared_error": slow.squared_error,
}
COMPARED = ["mld", "mld_of_wide_ends", "partial_softmax", "squared_error"]


def test_binary_cross_entropies_by_hand():
    # 3/4 and 1/4 present, 1/2 absent.
    present = torch.tensor([[1, 0, 1]])
    assert bce(THREE, present).item() == pytest.approx((ln(4 / 3) + ln(2) + ln(4)) / 3)
    assert bce(THREE, present, epsilon=0.3, reduction="sum").item() == pytest.approx(ln(4 / 3) + ln(2) - ln(0.3))
    # A quarter off for the absent class: q = 1/4 squared, of 1 - q = 3/4; the present ones by 1/4 and 3/4.
    value = asymmetric(THREE, present, gamma_positive=1.0, gamma_negative=2.0, clip=0.25)
    assert value.item() == pytest.approx(ln(4 / 3) / 4 + ln(4 / 3) / 16 + 3 / 4 * ln(4))
    assert asymmetric(THREE, 0 * present, clip=0.75).item() == 0


def test_softmaxes_by_hand():
    student, teacher = log([1 / 2, 1 / 4, 1 / 4]), log([1 / 4, 1 / 4, 1 / 2])
    assert mce(student, torch.tensor([[1, 1, 0]])).item() == pytest.approx((ln(2) + ln(4)) / 2)
    # The first class: (1/3, 2/3) to (2/3, 1/3). The second one: the same of (1/3, 2/3) to (1/2, 1/2).
    value = partial_softmax(student, teacher, torch.tensor([[1, 1, 0]]))
    assert value.item() == pytest.approx(ln(2) / 3 + ln(2 / 3) / 3 + 2 / 3 * ln(4 / 3))


def test_distances_of_logits_by_hand():
    # 3/4 to 1/4, then 1/2 to 3/4, then the same probability.
    student, teacher = tensor([-ln(3), ln(3), 0]), tensor([ln(3), 0, 0])
    expected = 3 / 4 * ln(3) - ln(3) / 4 + ln(2) - ln(3) / 2
    assert mld(student, teacher).item() == pytest.approx(expected)
    assert squared_error(student, teacher).item() == pytest.approx(5 * ln(3) ** 2 / 3)
    assert kd(log([1 / 4, 3 / 4]), log([1 / 2, 1 / 2]), temperature=1.0, reduction="mean").item() == pytest.approx(
        (ln(2) - ln(3) / 2) / 2
    )


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("name", LOSSES)
def test_against_the_slow_reference(name, batch):
    given = sample(batch, seed=batch)
    expected = SLOW[name](*(x.tolist() for x in given))
    assert LOSSES[name](*given).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("value", [0, 1, -1])
@pytest.mark.parametrize("name", LOSSES)
def test_images_that_show_nothing_or_everything(name, value):
    student, teacher, present = sample()
    present = torch.full_like(present, value)
    loss = LOSSES[name](student, teacher, present)
    assert loss.item() == pytest.approx(SLOW[name](student.tolist(), teacher.tolist(), present.tolist()), abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.isfinite().all()
    if name == "partial_softmax" or (name == "mce" and not value):
        assert loss.item() == 0
        assert gradient.eq(0).all()


BY_ROW = torch.linspace(-40, 65, 6, dtype=torch.float64)[:, None]
ORDER, COLUMNS = torch.tensor([3, 1, 5, 0, 2, 4]), torch.tensor([2, 0, 4, 1, 3])
SYMMETRIC = ["mld", "mld_of_wide_ends", "squared_error"]
CHANGES = {
    "samples in another order": ([*LOSSES], lambda *x: [one[ORDER] for one in x]),
    "classes in another order": ([*LOSSES], lambda *x: [one[:, COLUMNS] for one in x]),
    "present for ignored": ([*LOSSES], lambda s, t, y: (s, t, y.abs())),
    "a constant on the student's logits": (["mce", "partial_softmax"], lambda s, t, y: (s + BY_ROW, t, y)),
    "a constant on the teacher's logits": (["partial_softmax"], lambda s, t, y: (s, t - BY_ROW, y)),
    "absent for present, with the sign": ([*SYMMETRIC, "bce"], lambda s, t, y: (-s, -t, (y == 0).to(y.dtype))),
}


@pytest.mark.parametrize(("change", "name"), [(change, name) for change in CHANGES for name in CHANGES[change][0]])
def test_the_value_stays_with(change, name):
    given = sample()
    changed = CHANGES[change][1](*given)
    torch.testing.assert_close(LOSSES[name](*changed), LOSSES[name](*given), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["bce_of_l2d", "asymmetric", "asymmetric_without_clip"])
def test_each_class_is_for_itself(name):
    student, teacher, present = sample()
    alone = [LOSSES[name](*(x[:, k : k + 1] for x in (student, teacher, present))) for k in range(CLASSES)]
    torch.testing.assert_close(sum(alone), LOSSES[name](student, teacher, present))


def test_mld_is_the_divergence_of_two_classes_each():
    student, teacher, _ = sample()
    pairs = [torch.stack([z.flatten(), torch.zeros(z.numel())], 1) for z in (student, teacher)]
    torch.testing.assert_close(mld(student, teacher, reduction="mean"), kd(*pairs, temperature=1.0))


def test_partial_softmax_of_one_class_an_image_is_kd():
    student, teacher, _ = sample()
    present = torch.eye(CLASSES, dtype=torch.int8)[torch.arange(6) % CLASSES]
    torch.testing.assert_close(partial_softmax(student, teacher, present), kd(student, teacher, temperature=1.0))


def test_the_asymmetric_loss_without_focusing_and_clip_is_the_binary_cross_entropy():
    student, _, present = sample()
    options = {"gamma_negative": 0.0, "clip": 0.0, "epsilon": 0.0, "reduction": "mean"}
    torch.testing.assert_close(asymmetric(student, present, **options), bce(student, present))


@pytest.mark.parametrize("name", COMPARED)
def test_zero_with_no_gradient_at_the_teacher(name):
    _, teacher, present = sample()
    student = teacher.clone().requires_grad_()
    loss = LOSSES[name](student, teacher, present)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(student.grad, 0 * student, atol=1e-12, rtol=0)


WITHOUT_WEIGHTS = ("asymmetric", "asymmetric_without_clip")  # whose gradients are those of the logarithms alone


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in WITHOUT_WEIGHTS])
def test_gradients_in_float64(name):
    student, teacher, present = sample(batch=3)
    assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, teacher, present), student)


def test_the_asymmetric_loss_learns_by_weights_that_are_constants():
    student, _, present = sample()
    (gradient,) = torch.autograd.grad(asymmetric(student, present, gamma_positive=1.0, clip=0.0), student)
    p = student.detach().sigmoid()
    expected = torch.where(present != 0, -((1 - p) ** 2), p**5)
    torch.testing.assert_close(gradient, expected)


def test_beyond_epsilon_nothing_is_learned_and_without_it_everything():
    student = tensor([18.4, 18.5, -18.4, -18.5, 40]).requires_grad_()
    teacher, present = -student.detach(), torch.tensor([[0, 0, 1, 1, 0]])
    learned = {
        "mld": (mld, teacher, [1, 0, 1, 0, 0]),
        "bce": (bce, present, [1, 0, 1, 0, 0]),
        "asymmetric": (partial(asymmetric, clip=0.0), present, [1, 0, 1, 0, 0]),
    }
    for name, (function, other, expected) in learned.items():
        (gradient,) = torch.autograd.grad(function(student, other, epsilon=1e-8), student)
        assert gradient.ne(0).int().tolist() == [expected], name
        (gradient,) = torch.autograd.grad(function(student, other, epsilon=0.0), student)
        assert gradient.ne(0).all(), name
    sure, right = tensor([18.4, 18.5, -18.5]).requires_grad_(), torch.tensor([[1, 1, 0]])
    for both_ends, expected in ((False, [1, 1, 1]), (True, [1, 0, 0])):
        loss = asymmetric(sure, right, gamma_negative=0.0, clip=0.0, both_ends=both_ends)
        (gradient,) = torch.autograd.grad(loss, sure)
        assert gradient.ne(0).int().tolist() == [expected]


def test_reductions_are_the_sum_over_what_they_say():
    student, teacher, present = sample()
    functions = {
        "kd": kd,
        "squared_error": squared_error,
        "mld": mld,
        "bce": lambda s, _, **options: bce(s, present, **options),
        "asymmetric": lambda s, _, **options: asymmetric(s, present, **options),
    }
    for name, function in functions.items():
        total = function(student, teacher, reduction="sum")
        for reduction, entries in (("batchmean", 6), ("mean", 6 * CLASSES)):
            torch.testing.assert_close(function(student, teacher, reduction=reduction), total / entries), name
        with pytest.raises(ValueError, match=r"^reduction=max: one of sum, batchmean, mean$"):
            function(student, teacher, reduction="max")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_give_finite_values_and_gradients(name, dtype):
    student, teacher, present = sample()
    signs = (2 * (present != 0).int() - 1).to(dtype)
    for scale in (0.0, 15.0, 50.0, 1e4):
        for ours in (student.detach(), student.detach().sign(), signs, -signs):
            for theirs in (teacher, teacher.sign(), signs, -signs):
                s = (scale * ours).to(dtype).requires_grad_()
                loss = LOSSES[name](s, (scale * theirs).to(dtype), present)
                (gradient,) = torch.autograd.grad(loss, s)
                assert loss.isfinite(), scale
                assert gradient.isfinite().all(), scale


@pytest.mark.parametrize("scale", [15.0, 50.0])
@pytest.mark.parametrize("name", LOSSES)
def test_sure_logits_in_float32_are_those_of_float64_and_of_the_slow_reference(name, scale):
    student, teacher, present = (x.detach() for x in sample(scale=1.0))
    student, teacher = (scale * student).float(), (scale * teacher).float()
    results = []
    for dtype in (torch.float32, torch.float64):
        s = student.to(dtype, copy=True).requires_grad_()
        loss = LOSSES[name](s, teacher.to(dtype), present)
        results.append((loss.item(), torch.autograd.grad(loss, s)[0].double()))
    (single, single_gradient), (double, double_gradient) = results
    assert single == pytest.approx(double, rel=1e-6)
    torch.testing.assert_close(single_gradient, double_gradient, rtol=1e-6, atol=1e-7)
    expected = SLOW[name](student.double().tolist(), teacher.double().tolist(), present.tolist())
    assert double == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("name", LOSSES)
def test_no_value_is_waited_for(name):
    """Tensors without values would raise."""
    student, teacher, present = (x.detach().to("meta") for x in sample())
    LOSSES[name](student.requires_grad_(), teacher, present).backward()
    assert student.grad.shape == student.shape


def test_epsilon_zero_holds_however_sure_and_wrong_the_student_is():
    student, teacher, present = tensor([1e4, -1e4]).requires_grad_(), tensor([-1e4, 1e4]), torch.tensor([[0, 1]])
    for loss in (mld(student, teacher, epsilon=0.0, reduction="sum"), bce(student, present, reduction="sum")):
        assert loss.item() == pytest.approx(2e4)
        torch.testing.assert_close(torch.autograd.grad(loss, student)[0], tensor([1, -1]))
    assert math.isfinite(asymmetric(student, present, clip=0.0, epsilon=0.0).item())
