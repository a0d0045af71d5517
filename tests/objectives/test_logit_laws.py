"""Laws of the objectives on logits: as their slow references, invariant as their papers say, with right gradients."""

import pytest
import torch
from logit_cases import LOSSES, MAPS, SLOW, sample


@pytest.mark.parametrize("batch", [2, 7])
@pytest.mark.parametrize("name", LOSSES)
def test_against_the_slow_reference(name, batch):
    student, teacher, labels = sample(name, batch, seed=batch)
    slow = SLOW[name](student.tolist(), teacher.tolist(), labels.tolist())
    # DIST and the standardised logits have a small number in their denominators.
    assert LOSSES[name](student, teacher, labels).item() == pytest.approx(slow, rel=1e-6)


BY_ROW = torch.linspace(-40, 65, 6, dtype=torch.float64)[:, None]
ORDER, COLUMNS = torch.tensor([3, 1, 5, 0, 2, 4]), torch.tensor([2, 0, 4, 1, 3])
OF_LOGITS = [name for name in LOSSES if name not in MAPS]
HARD = ["cross_entropy", "asymmetric_single_label"]  # they learn labels alone
COMPARED = [name for name in OF_LOGITS if name not in (*HARD, "uskd", "uskd_by_probability")]
NOT_SHIFTED = ["pcd", "luminet"]  # whose classes are ordered by differences of logits, or standardised over the batch
WITH_CLASSIFIER = ["wkd_l", "wkd_l_by_cka"]  # whose classes are in its order: see test_transport
CHANGES = {
    "a constant on the student's logits": (
        [name for name in OF_LOGITS if name not in NOT_SHIFTED],
        lambda s, t, y: (s + BY_ROW, t, y),
    ),
    "a constant on the teacher's logits": (
        [name for name in COMPARED if name not in NOT_SHIFTED],
        lambda s, t, y: (s, t - BY_ROW, y),
    ),
    "samples in another order": (list(LOSSES), lambda *x: [one[ORDER] for one in x]),
    "classes in another order": (
        [name for name in (*COMPARED, *HARD) if name not in WITH_CLASSIFIER],
        lambda s, t, y: (s[:, COLUMNS], t[:, COLUMNS], COLUMNS.argsort()[y]),
    ),
    "the student's samples in another order": (["class_correlation"], lambda s, t, y: (s[ORDER], t, y)),
    "the student's classes in another order": (["batch_correlation"], lambda s, t, y: (s[:, COLUMNS], t, y)),
    "positive factors for samples": (["standardized"], lambda s, t, y: (s * BY_ROW.abs(), t * 7, y)),
    "a positive factor for each network": (["catkd"], lambda s, t, y: (3 * s, t / 5, y)),
    "mirrored maps": (MAPS, lambda s, t, y: (s.flip(2), t.flip(2), y)),
    "pixels in another order": (["catkd_raw"], lambda s, t, y: (s.mT, t.flip(3), y)),
}


@pytest.mark.parametrize(("change", "name"), [(change, name) for change in CHANGES for name in CHANGES[change][0]])
def test_the_value_stays_with(change, name):
    given = sample(name)
    torch.testing.assert_close(LOSSES[name](*CHANGES[change][1](*given)), LOSSES[name](*given), rtol=1e-6, atol=1e-10)


ZERO = [
    "kd",
    "dkd",
    "dist",
    "ctkd",
    "class_correlation",
    "batch_correlation",
    "mlkd",
    "ldrld",
    "ldrld_summed",
    "pcd",
    "luminet",
    "standardized",
    "sdd",
    "catkd",
    "catkd_raw",
]


@pytest.mark.parametrize("name", ZERO)
def test_zero_with_no_gradient_at_the_teacher(name):
    _, teacher, labels = sample(name)
    student = teacher.clone().requires_grad_()
    loss = LOSSES[name](student, teacher, labels)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(student.grad, 0 * student, atol=1e-6, rtol=0)


WEIGHTS_FROM_THE_STUDENT = ("wsld", "uskd", "uskd_by_probability")  # without a gradient: see test_logits, test_labels


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in WEIGHTS_FROM_THE_STUDENT])
def test_gradients_in_float64(name):
    student, teacher, labels = sample(name, batch=3)
    assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, teacher, labels), student)


def extremes(student, teacher):
    """Pairs of student and teacher that are hard on divisions and logarithms."""
    for scale in (0.0, 1.0, 1e4):
        yield scale * student, teacher
        yield student, scale * teacher
        yield scale * student, scale * teacher
        yield scale * student.sign(), -scale * teacher.sign()
        yield scale * student[:1], teacher[:1]
        yield scale * student[:1].expand_as(student), teacher
        yield scale * torch.ones_like(student), scale * torch.ones_like(teacher)
    yield 1e4 * teacher, 1e4 * teacher


@pytest.mark.parametrize("name", LOSSES)
def test_extremes_give_finite_values_and_gradients(name):
    student, teacher, labels = sample(name)
    for number, (s, t) in enumerate(extremes(student.detach(), teacher)):
        s = s.float().requires_grad_()
        loss = LOSSES[name](s, t.float(), labels[: len(s)])
        loss.backward()
        assert loss.isfinite(), number
        assert s.grad.isfinite().all(), number
