"""Each objective four ways: by hand, against a slow reference, by an invariance, by its gradient; and golden values.

The golden values come from running the implementations of MDistiller (kd) and of WSLD's authors (wsld).
"""

import importlib
import json
import math

import numpy as np
import pytest
import torch
from conftest import ROOT
from dataset_helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import objectives
from objectives import contract
from objectives.labels import cross_entropy
from objectives.logits import kd, wsld, wsld_weights
from utils.errors import UsageError

GOLDEN = ROOT / "tests/golden"


def sample(batch=6, classes=5, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(batch, classes, dtype=torch.float64, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher, torch.randint(0, classes, (batch,), generator=generator)


def softmax(row, temperature=1.0):
    exponentials = [math.exp((value - max(row)) / temperature) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def slow_kd(student, teacher, temperature):
    total = 0.0
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        p_s, p_t = softmax(z_s, temperature), softmax(z_t, temperature)
        total += sum(t * (math.log(t) - math.log(s)) for s, t in zip(p_s, p_t, strict=True))
    return temperature**2 * total / len(student)


def slow_wsld(student, teacher, labels, temperature):
    total = 0.0
    for z_s, z_t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        weight = 1 - math.exp(-math.log(softmax(z_s)[y]) / (math.log(softmax(z_t)[y]) - 1e-7))
        p_s, p_t = softmax(z_s, temperature), softmax(z_t, temperature)
        total += weight * -sum(t * math.log(s) for s, t in zip(p_s, p_t, strict=True))
    return temperature**2 * total / len(student)


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    labels = torch.tensor([0, 1])
    assert cross_entropy(logits, labels).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    smoothed = (math.log(2) + 0.95 * math.log(4 / 3) + 0.05 * math.log(4)) / 2
    assert cross_entropy(logits, labels, label_smoothing=0.1).item() == pytest.approx(smoothed)


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


@examples(40)
@given(st.integers(1, 7), st.integers(2, 9), st.integers(0, 10**6), st.floats(0.5, 20))
def test_against_the_slow_reference(batch, classes, seed, temperature):
    student, teacher, labels = sample(batch, classes, seed)
    assert kd(student, teacher, temperature=temperature).item() == pytest.approx(
        slow_kd(student, teacher, temperature), rel=1e-9, abs=1e-12
    )
    assert wsld(student, teacher, labels, temperature=temperature).item() == pytest.approx(
        slow_wsld(student, teacher, labels, temperature), rel=1e-9
    )


def test_a_constant_on_the_logits_changes_nothing():
    student, teacher, labels = sample()
    shift = torch.arange(6, dtype=torch.float64)[:, None] * 100
    for loss in (kd, lambda s, t: wsld(s, t, labels), lambda s, _t: cross_entropy(s, labels)):
        torch.testing.assert_close(loss(student + shift, teacher - shift), loss(student, teacher))


def test_kd_is_zero_at_the_teacher_and_wsld_has_the_weighted_gradient_of_kd():
    student, teacher, labels = sample()
    assert kd(teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    # d/dz of T^2 CE(p_t, p_s) at temperature T is T (p_s - p_t), of each sample times its weight, over the batch.
    (gradient,) = torch.autograd.grad(wsld(student, teacher, labels, temperature=3.0), student)
    step = 3.0 * (F.softmax(student / 3, 1) - F.softmax(teacher / 3, 1)) / len(labels)
    torch.testing.assert_close(gradient, wsld_weights(student, teacher, labels)[:, None] * step.detach())
    (plain,) = torch.autograd.grad(kd(student, teacher, temperature=3.0), student)
    torch.testing.assert_close(plain, step.detach())


def test_gradients_in_float64():
    student, teacher, labels = sample(batch=3, classes=4)
    assert torch.autograd.gradcheck(lambda s: kd(s, teacher, temperature=2.0), student)
    assert torch.autograd.gradcheck(lambda s: cross_entropy(s, labels, label_smoothing=0.1), student)


def test_the_weight_falls_as_the_student_passes_the_teacher():
    teacher, labels = torch.zeros(1, 2), torch.tensor([0])
    margins = torch.tensor([-4.0, -1.0, 0.0, 1.0, 4.0, 200.0])
    weights = [wsld_weights(torch.tensor([[m, 0.0]]), teacher, labels).item() for m in margins]
    assert weights == sorted(weights, reverse=True)
    assert 0 <= min(weights) <= 1e-6
    assert max(weights) < 1


def test_kd_at_a_high_temperature_is_the_squared_distance_of_the_centred_logits():
    student, teacher, _ = sample()
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


def test_label_smoothing_by_the_formula():
    student, _, labels = sample()
    expected = 0.0
    for row, label in zip(student.tolist(), labels.tolist(), strict=True):
        targets = [0.3 / 5 + (0.7 if k == label else 0) for k in range(5)]
        expected -= sum(target * math.log(p) for target, p in zip(targets, softmax(row), strict=True)) / len(labels)
    assert cross_entropy(student, labels, label_smoothing=0.3).item() == pytest.approx(expected)


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


def golden(name):
    arrays = np.load(GOLDEN / f"{name}.npz")
    return [pytest.param(arrays, str(case), id=f"{name}-{case}") for case in arrays["cases"]]


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize(("arrays", "case"), golden("kd") + golden("wsld"))
def test_golden(arrays, case, precision):
    parameters = json.loads(str(arrays[f"{case}.params"]))
    dtype = torch.float32 if precision == "f32" else torch.float64
    student, teacher = (torch.tensor(arrays[f"{case}.in.{who}"], dtype=dtype) for who in ("student", "teacher"))
    student.requires_grad_()
    labels = torch.tensor(arrays[f"{case}.in.target"]) if f"{case}.in.target" in arrays else None
    noise = float(arrays[f"{case}.f32_vs_f64_rel"])
    tolerance = 1e-9 if precision == "f64" else max(1e-5, 5 * noise)
    if "alpha" in parameters:
        hard, soft = cross_entropy(student, labels), wsld(student, teacher, labels, temperature=parameters["T"])
        loss = hard + parameters["alpha"] * soft
        parts = {"hard": hard, "soft": soft}
        weights = wsld_weights(student, teacher, labels).numpy()  # the golden ones are given in float64 only
        np.testing.assert_allclose(weights, arrays[f"{case}.out_f64.weight"], rtol=0, atol=tolerance)
    elif labels is None:
        loss, parts = kd(student, teacher, temperature=parameters["T"]), {}
    else:
        hard, soft = cross_entropy(student, labels), kd(student, teacher, temperature=parameters["T"])
        parts = {"loss_ce": parameters["ce_weight"] * hard, "loss_kd": parameters["kd_weight"] * soft}
        loss = sum(parts.values())
    (gradient,) = torch.autograd.grad(loss, student)
    for name, part in parts.items():
        assert part.item() == pytest.approx(float(arrays[f"{case}.out_{precision}.{name}"]), rel=tolerance)
    assert loss.item() == pytest.approx(float(arrays[f"{case}.loss_{precision}"]), rel=tolerance)
    expected = arrays[f"{case}.grad_{precision}.student"]
    assert np.abs(gradient.numpy() - expected).max() <= tolerance * np.abs(expected).max()


def test_the_contract_reads_the_signature():
    entry = objectives.get("wsld")
    assert entry.inputs == ("student", "teacher", "labels")
    assert [*entry.options] == ["temperature"]
    assert entry.needs_teacher
    assert not objectives.get("cross_entropy").needs_teacher


def test_a_file_of_ones_own_registers_by_being_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(contract, "_REGISTRY", dict(contract._REGISTRY))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_objectives.py").write_text(
        "from objectives import objective\n\n"
        "@objective(reads='stage3')\n"
        "def my_distance(student, teacher, labels, index, *, power=2.0, scale=1.0):\n"
        "    return scale * (student - teacher).abs().pow(power).mean()\n"
    )
    module = importlib.import_module("my_objectives")
    entry = objectives.get("my_distance")
    assert (entry.reads, entry.needs_teacher) == ("stage3", True)
    assert entry.inputs == ("student", "teacher", "labels", "index")
    assert [*entry.options] == ["power", "scale"]
    assert entry.made is module.my_distance
    importlib.reload(module)  # the same file may come again, as a page that is read twice does
    assert objectives.get("my_distance").made is module.my_distance


def test_unknown_and_doubled_names_are_refused():
    with pytest.raises(UsageError, match="wsld"):
        objectives.get("wsdl")

    def kd(student, teacher): ...

    with pytest.raises(ValueError, match="registered already"):
        objectives.objective(reads="logits")(kd)
