"""KD, WSLD, DKD, DIST, NKD, CRLD, MLKD's levels, TTM and CTKD by hand, and what their papers say of them."""

import math
from math import log as ln

import pytest
import slow_logits
import torch
from dataset_helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from logit_cases import CLASSES, run_ctkd, sample
from small_tensors import log, numbers
from torch.nn import functional as F

from objectives.ctkd import Ctkd
from objectives.labels import cross_entropy
from objectives.logits import (
    batch_correlation,
    class_correlation,
    crld,
    dist,
    dkd,
    kd,
    nkd,
    standardize,
    ttm,
    wsld,
    wsld_weights,
)


def test_kd_by_hand():
    # Teacher (1/2, 1/2), student (1/4, 3/4): KL = ln 2 - (ln 3) / 2. Doubled logits at T = 2 give 4 times that.
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2)
    divergence = math.log(2) - math.log(3) / 2
    assert kd(student, teacher, temperature=1.0).item() == pytest.approx(divergence)
    assert kd(2 * student, teacher, temperature=2.0).item() == pytest.approx(4 * divergence)


def test_wsld_by_hand():
    # CE of the student ln 4, of the teacher ln 2: the weight is 1 - exp(-2); soft cross-entropy ln 4 / 2 + ln(4/3) / 2.
    student, teacher, labels = torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2), torch.tensor([0])
    weight, soft = 1 - math.exp(-2), (math.log(4) + math.log(4 / 3)) / 2
    assert wsld_weights(student, teacher, labels).item() == pytest.approx(weight)
    assert wsld(student, teacher, labels, temperature=1.0).item() == pytest.approx(weight * soft)


def test_dkd_by_hand():
    # True class: (1/2, 1/2) to (1/4, 3/4), ln 2 - ln 3 / 2. Others: (1/2, 1/2) to (1/3, 2/3), ln 3 - 3 ln 2 / 2.
    student, teacher, labels = log([1 / 4, 1 / 4, 1 / 2]), log([1 / 2, 1 / 4, 1 / 4]), torch.tensor([0])
    expected = 3 * (ln(2) - ln(3) / 2) + 5 * (ln(3) - 1.5 * ln(2))
    assert dkd(student, teacher, labels, alpha=3.0, beta=5.0, temperature=1.0).item() == pytest.approx(expected)
    doubled = dkd(2 * student, 2 * teacher, labels, alpha=3.0, beta=5.0, temperature=2.0)
    assert doubled.item() == pytest.approx(4 * expected)


def test_dist_by_hand():
    # Less their means (1, 0, -1) / 6 and (0, 1, -1) / 6: correlation 1/2. One sample alone has none within a class.
    student, teacher = [1 / 3, 1 / 2, 1 / 6], [1 / 2, 1 / 3, 1 / 6]
    value = dist(log(student), log(teacher), beta=3.0, gamma=7.0)
    assert value.item() == pytest.approx(3 / 2 + 7, rel=1e-5)
    # The same numbers as three samples of two classes.
    pairs = [log(*([p, 1 - p] for p in row)) for row in (student, teacher)]
    assert dist(*pairs, beta=0.0, gamma=7.0).item() == pytest.approx(7 / 2, rel=1e-5)


def test_nkd_by_hand():
    # Half of -ln 1/4 for the true class; the others (1/2, 1/2) to (1/3, 2/3): ln 3 / 2 + ln(3/2) / 2.
    value = nkd(log([1 / 4, 1 / 4, 1 / 2]), log([1 / 2, 1 / 4, 1 / 4]), torch.tensor([0]), gamma=1.5)
    assert value.item() == pytest.approx(ln(4) / 2 + 1.5 * (ln(3) + ln(1.5)) / 2)


def test_ttm_by_hand():
    # (4/5, 1/5) to the power 1/2 is (2, 1) / sqrt 5: the target (2/3, 1/3), the weight 3 / sqrt 5.
    student, teacher = log([1 / 2, 1 / 2]), log([4 / 5, 1 / 5])
    expected = 2 / 3 * ln(4 / 3) + 1 / 3 * ln(2 / 3)
    assert ttm(student, teacher, temperature=2.0, weighted=False).item() == pytest.approx(expected)
    assert ttm(student, teacher, temperature=2.0).item() == pytest.approx(3 / math.sqrt(5) * expected)


def test_crld_by_hand():
    # The teacher is sure of the first sample alone; of the strong views it says (1/2, 1/2), below a threshold of 0.6.
    # (3/4, 1/4) to (1/2, 1/2) is 3 ln 3 / 4 - ln 2, (1/2, 1/2) to (3/4, 1/4) is ln 2 - ln 3 / 2.
    student, teacher = log([1 / 2, 1 / 2], [1 / 2, 1 / 2]), log([3 / 4, 1 / 4], [1 / 2, 1 / 2])
    strong_student, strong_teacher = log([3 / 4, 1 / 4], [3 / 4, 1 / 4]), log([1 / 2, 1 / 2], [1 / 2, 1 / 2])
    own = 3 * ln(3) / 4 - ln(2) + ln(2) - ln(3) / 2
    options = {"within": 2.0, "across": 5.0, "confidence": 0.7, "temperature": 1.0}
    value = crld(student, teacher, strong_student, strong_teacher, strong_confidence=0.6, **options)
    assert value.item() == pytest.approx(2 * own / 2)
    # With a lower threshold: (3/4, 1/4) to (3/4, 1/4) and (1/2, 1/2) to (1/2, 1/2), then (1/2, 1/2) to both.
    both = crld(student, teacher, strong_student, strong_teacher, strong_confidence=0.5, **options)
    assert both.item() == pytest.approx(value.item() + 5 * (ln(2) - ln(3) / 2) / 2)


def test_ctkd_by_hand():
    # sigmoid(0) is 1/2, T = 1 + 2 / 2: four times the divergence ln 2 - ln 3 / 2 of the halved logits.
    value = run_ctkd(2 * log([1 / 4, 3 / 4]), log([1 / 2, 1 / 2]), raw=0.0, lowest=1.0, span=2.0)
    assert value.item() == pytest.approx(4 * (ln(2) - ln(3) / 2))


def test_correlations_by_hand():
    # Classes: 1/4 everywhere less (1 3; 3 9) / 16 is (3 1; 1 -5) / 16. Samples: 1/2 less 10/16.
    student, teacher = log([1 / 4, 3 / 4]), log([1 / 2, 1 / 2])
    assert class_correlation(student, teacher, temperature=1.0).item() == pytest.approx(36 / 256 / 2)
    assert batch_correlation(student, teacher, temperature=1.0).item() == pytest.approx(1 / 64)


def test_standardize_by_hand():
    given = torch.tensor([[1.0, 2, 3], [10, 30, 20], [5, 5, 5]])
    torch.testing.assert_close(standardize(given), torch.tensor([[-1.0, 0, 1], [-1, 1, 0], [0, 0, 0]]))


@examples(40)
@given(st.integers(1, 7), st.integers(2, 9), st.integers(0, 10**6), st.floats(0.5, 20))
def test_kd_and_wsld_against_the_slow_references(batch, classes, seed, temperature):
    student, teacher = (numbers(batch, classes, seed=2 * seed + i, scale=3.0) for i in range(2))
    labels = torch.arange(batch) % classes
    given = student.tolist(), teacher.tolist(), labels.tolist()
    expected = slow_logits.kd(*given[:2], temperature), slow_logits.wsld(*given, temperature)
    assert kd(student, teacher, temperature=temperature).item() == pytest.approx(expected[0], rel=1e-9, abs=1e-12)
    assert wsld(student, teacher, labels, temperature=temperature).item() == pytest.approx(expected[1], rel=1e-9)


def test_kd_is_zero_at_the_teacher_and_wsld_has_the_weighted_gradient_of_kd():
    student, teacher, labels = sample("kd")
    assert kd(teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    # d/dz of T^2 CE(p_t, p_s) at temperature T is T (p_s - p_t), of each sample times its weight, over the batch.
    (gradient,) = torch.autograd.grad(wsld(student, teacher, labels, temperature=3.0), student)
    step = 3.0 * (F.softmax(student / 3, 1) - F.softmax(teacher / 3, 1)) / len(labels)
    torch.testing.assert_close(gradient, wsld_weights(student, teacher, labels)[:, None] * step.detach())
    (plain,) = torch.autograd.grad(kd(student, teacher, temperature=3.0), student)
    torch.testing.assert_close(plain, step.detach())


def test_the_weight_falls_as_the_student_passes_the_teacher():
    teacher, labels = torch.zeros(1, 2), torch.tensor([0])
    margins = torch.tensor([-4.0, -1.0, 0.0, 1.0, 4.0, 200.0])
    weights = [wsld_weights(torch.tensor([[m, 0.0]]), teacher, labels).item() for m in margins]
    assert weights == sorted(weights, reverse=True)
    assert 0 <= min(weights) <= 1e-6
    assert max(weights) < 1


def test_kd_at_a_high_temperature_is_the_squared_distance_of_the_centred_logits():
    student, teacher, _ = sample("kd")
    difference = student.detach() - teacher
    limit = (difference - difference.mean(1, keepdim=True)).square().sum(1).mean() / (2 * 5)  # Hinton et al., section 2
    assert kd(student, teacher, temperature=1e4).item() == pytest.approx(limit.item(), rel=1e-3)


def test_wsld_where_a_cross_entropy_is_exactly_zero():
    sure, unsure, labels = torch.tensor([[300.0, 0.0]]), torch.zeros(1, 2), torch.tensor([0])
    assert wsld_weights(sure, sure, labels).item() == 0  # nothing is left to learn from this sample
    assert wsld_weights(sure, unsure, labels).item() == 0
    assert wsld_weights(unsure, sure, labels).item() == 1
    student = sure.clone().requires_grad_()
    wsld(student, unsure, labels).backward()
    assert student.grad.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [50.0, 1000.0, 1e30])
def test_extreme_logits_give_finite_losses_and_gradients(dtype, scale):
    rows = torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], dtype=dtype) * scale
    for student, teacher in ((rows, rows.flip(0)), (rows, rows), (rows, 0 * rows), (0 * rows, rows)):
        for label in range(3):
            student = student.detach().clone().requires_grad_()
            labels = torch.full((3,), label)
            loss = kd(student, teacher) + wsld(student, teacher, labels) + cross_entropy(student, labels)
            loss.backward()
            assert loss.isfinite()
            assert student.grad.isfinite().all()


def test_kd_is_the_target_part_and_the_other_part_by_the_rest_of_the_probability():
    # Zhao et al., equation 6: what DKD decouples.
    for seed in range(4):
        student, teacher, labels = sample("dkd", batch=1, seed=seed)
        rest = 1 - F.softmax(teacher / 3, 1)[0, labels[0]].item()
        decoupled = dkd(student, teacher, labels, alpha=1.0, beta=rest, temperature=3.0)
        torch.testing.assert_close(decoupled, kd(student, teacher, temperature=3.0))


def test_the_other_part_of_dkd_and_nkd_ignores_the_true_class():
    student, teacher, labels = sample("dkd")
    moved = student + 50 * F.one_hot(labels, CLASSES)
    torch.testing.assert_close(dkd(moved, teacher, labels, alpha=0.0), dkd(student, teacher, labels, alpha=0.0))
    (gradient,) = torch.autograd.grad(
        nkd(student, teacher, labels, gamma=2.0) - nkd(student, teacher, labels, gamma=1.0), student
    )
    torch.testing.assert_close(gradient.gather(1, labels[:, None]), torch.zeros(6, 1, dtype=torch.float64))


def test_dist_is_zero_for_scaled_and_shifted_probabilities():
    p = F.softmax(numbers(6, CLASSES), 1)
    share = torch.linspace(0.2, 0.9, 6, dtype=torch.float64)[:, None]
    by_sample = (share * p + (1 - share) / CLASSES).log()
    assert dist(by_sample, p.log(), gamma=0.0).item() == pytest.approx(0, abs=1e-5)
    assert dist(by_sample, p.log(), beta=0.0).item() > 0.01
    alike = (0.3 * p + 0.7 * F.softmax(numbers(CLASSES, seed=9), 0)).log()  # each class by its own constant
    assert dist(alike, p.log(), beta=0.0).item() == pytest.approx(0, abs=1e-5)
    assert dist(alike, p.log(), gamma=0.0).item() > 0.01


def test_ttm_at_temperature_one_is_kd_and_its_weight_grows_with_smoothness():
    student, teacher, _ = sample("ttm")
    for weighted in (False, True):
        assert ttm(student, teacher, temperature=1.0, weighted=weighted).item() == pytest.approx(
            kd(student, teacher, temperature=1.0).item()
        )
    values = [[ttm(student, z * teacher, weighted=w).item() for z in (0.1, 1.0, 4.0)] for w in (True, False)]
    weights = [weighted / plain for weighted, plain in zip(*values)]
    assert CLASSES**0.75 > weights[0] > weights[1] > weights[2] > 1


def test_the_temperature_of_ctkd_climbs_as_its_curriculum_says():
    student, teacher, _ = sample("ctkd")
    module = Ctkd(lowest=1.0, span=20.0, loops=10.0).double()
    temperature = torch.tensor(1 + 20 / (1 + math.exp(-1)), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(kd(student, teacher, temperature=temperature), temperature)
    plain = slope.item() * 20 * math.exp(-1) / (1 + math.exp(-1)) ** 2  # the derivative of the sigmoid at 1
    for epoch, strength in ((0, 0.0), (5, 0.5), (10, 1.0), (30, 1.0)):
        module.set_epoch(epoch)
        (gradient,) = torch.autograd.grad(module(student, teacher), module.raw)
        assert gradient.item() == pytest.approx(-strength * plain)
