"""The objectives on logits four ways: by hand, against slow references, by their invariances, by their gradients.

`kd`, `wsld` and `cross_entropy` are in test_objectives.py, values of the reference implementations in test_golden.py.
"""

import math
from functools import partial

import pytest
import slow_logits
import torch
from torch.func import functional_call
from torch.nn import functional as F

from objectives.ctkd import Ctkd
from objectives.labels import Uskd
from objectives.logits import batch_correlation, class_correlation, crld, dist, dkd, kd, mlkd, nkd, standardize, ttm
from objectives.regions import CatKD, Sdd

CLASSES, MAPS = 5, ("sdd", "catkd", "catkd_raw")
ln = math.log


def numbers(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, dtype=torch.float64, generator=generator)


def sample(name, batch=6, seed=0, scale=2.0):
    """Student, teacher, labels: logits [B, K], or maps of them [B, K, 4, 4]."""
    shape = (batch, CLASSES, 4, 4) if name in MAPS else (batch, CLASSES)
    student, teacher = (numbers(*shape, seed=10 * seed + i, scale=scale) for i in range(2))
    labels = torch.randint(0, CLASSES, (batch,), generator=torch.Generator().manual_seed(seed))
    return student.requires_grad_(), teacher, labels


WEAK = (numbers(CLASSES, CLASSES, seed=6), numbers(CLASSES, seed=7))
HEAD = [x.tolist() for x in WEAK]


def run_uskd(student, pooled, labels, *, weak=WEAK, **options):
    """In the tables below the pooled features of `uskd` stand where others have the teacher's logits."""
    values = dict(zip(("weak.weight", "weak.bias"), (x.to(student.dtype) for x in weak)))
    return functional_call(Uskd(student, pooled, **options), values, (student, pooled, labels))


def run_ctkd(student, teacher, raw=0.3, **options):
    module = Ctkd(**options).to(student.dtype)
    module.raw.data.fill_(raw)
    return module(student, teacher)


def run_sdd(student, teacher, labels, **options):
    head = [torch.eye(CLASSES, dtype=student.dtype), torch.zeros(CLASSES, dtype=student.dtype)]
    return Sdd(student, teacher, head[0], head[0], **options)(student, teacher, *head, *head, labels)


def run_catkd(student, teacher, **options):
    heads = [torch.eye(CLASSES, dtype=student.dtype)] * 2
    return CatKD(student, teacher, *heads, **options)(student, teacher, *heads)


def run_crld(student, teacher, **options):
    """Logits of the strong views follow from the others."""
    return crld(student, teacher, 0.5 * student, -0.6 * teacher, **options)


LOSSES = {
    "dkd": partial(dkd, alpha=0.7, beta=3.0, temperature=2.0),
    "dist": lambda s, t, _: dist(s, t, beta=2.0, gamma=0.5, temperature=1.5),
    "nkd": partial(nkd, gamma=0.8, temperature=2.0),
    "uskd": partial(run_uskd, alpha=0.5, beta=0.4, mu=0.3),
    "uskd_by_probability": partial(run_uskd, alpha=0.5, beta=0.4, mu=0.3, by_log=False),
    "ttm": lambda s, t, _: ttm(s, t, temperature=3.0, weighted=False),
    "wttm": lambda s, t, _: ttm(s, t, temperature=3.0),
    "ctkd": lambda s, t, _: run_ctkd(s, t, lowest=2.0, span=5.0),
    "class_correlation": lambda s, t, _: class_correlation(s, t, temperature=2.0),
    "batch_correlation": lambda s, t, _: batch_correlation(s, t, temperature=2.0),
    "mlkd": lambda s, t, _: mlkd(s, t, temperature=1.5),
    "crld": lambda s, t, _: run_crld(s, t, confidence=0.6, strong_confidence=0.45, temperature=2.0),
    "standardized": lambda s, t, _: kd(standardize(s), standardize(t), temperature=2.0),
    "sdd": partial(run_sdd, temperature=2.0),
    "catkd": lambda s, t, _: run_catkd(s, t),
    "catkd_raw": lambda s, t, _: run_catkd(s, t, resolution=1, normalize=False),
}
SLOW = {
    "dkd": slow_logits.dkd,
    "dist": slow_logits.dist,
    "nkd": slow_logits.nkd,
    "uskd": partial(slow_logits.uskd, head=HEAD, by_log=True),
    "uskd_by_probability": partial(slow_logits.uskd, head=HEAD, by_log=False),
    "ttm": partial(slow_logits.ttm, weighted=False),
    "wttm": partial(slow_logits.ttm, weighted=True),
    "ctkd": slow_logits.ctkd,
    "class_correlation": partial(slow_logits.gram, by_class=True),
    "batch_correlation": partial(slow_logits.gram, by_class=False),
    "mlkd": slow_logits.mlkd,
    "crld": slow_logits.crld,
    "standardized": slow_logits.standardized,
    "sdd": slow_logits.sdd,
    "catkd": partial(slow_logits.catkd, size=2, normalize=True),
    "catkd_raw": partial(slow_logits.catkd, size=4, normalize=False),
}


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
COMPARED = [name for name in OF_LOGITS if "uskd" not in name]
CHANGES = {
    "a constant on the student's logits": (OF_LOGITS, lambda s, t, y: (s + BY_ROW, t, y)),
    "a constant on the teacher's logits": (COMPARED, lambda s, t, y: (s, t - BY_ROW, y)),
    "samples in another order": (list(LOSSES), lambda *x: [one[ORDER] for one in x]),
    "classes in another order": (COMPARED, lambda s, t, y: (s[:, COLUMNS], t[:, COLUMNS], COLUMNS.argsort()[y])),
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
    "dkd",
    "dist",
    "ctkd",
    "class_correlation",
    "batch_correlation",
    "mlkd",
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


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_in_float64(name):
    student, teacher, labels = sample(name, batch=3)
    if "uskd" not in name:  # whose soft labels come from the student, without a gradient
        assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, teacher, labels), student)
        return
    weak = [x.clone().requires_grad_() for x in WEAK]
    assert torch.autograd.gradcheck(lambda *w: run_uskd(student.detach(), teacher, labels, weak=w, mu=2.0), weak)


def test_the_gradient_of_uskd_is_the_distance_from_its_soft_labels():
    student, pooled, labels = sample("uskd", batch=3)
    (gradient,) = torch.autograd.grad(run_uskd(student, pooled, labels, alpha=0.5, beta=0.4), student)
    p, expected = F.softmax(student.detach(), 1), torch.zeros(3, CLASSES, dtype=torch.float64)
    weak = F.softmax(pooled @ WEAK[0].T + WEAK[1], 1)
    for i, y in enumerate(labels.tolist()):
        target = p[i, y] ** 2 + 1 - p[range(3), labels].square().mean()
        score = p[i].log() / (1 - p[i, y].log()) + weak[i] / (1 - weak[i, y])
        rest = [k for k in range(CLASSES) if k != y]
        shares = torch.tensor([1 / (1 + (score > score[k]).sum()) for k in rest], dtype=torch.float64)
        expected[i] = 0.5 * target * (p[i] - F.one_hot(labels[i], CLASSES)) / 3
        expected[i, rest] += 0.4 * (p[i, rest] / p[i, rest].sum() - shares / shares.sum()) / 3
    torch.testing.assert_close(gradient, expected)


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


def log(*rows):
    """Logits of probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


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


def test_uskd_by_hand():
    # True class at 1/2 and 1/4, their squares 3/32 from the mean. Ranks 1 2 3, then 2 3 1: Zipf's shares among the
    # others are (1/2, 1/3) and (1/3, 1) over their sums. The weak classifier is at 1/3 everywhere.
    student, labels = log([1 / 2, 1 / 3, 1 / 6], [1 / 4, 1 / 8, 5 / 8]), torch.zeros(2, dtype=torch.long)
    true = (35 / 32 * ln(2) + 29 / 32 * ln(4)) / 2
    rest = -(3 / 5 * ln(2 / 3) + 2 / 5 * ln(1 / 3) + 1 / 4 * ln(1 / 6) + 3 / 4 * ln(5 / 6)) / 2
    weak = (torch.zeros(3, 3), torch.zeros(3))
    value = run_uskd(student, student, labels, weak=weak, alpha=2.0, beta=3.0, mu=5.0, by_log=False)
    assert value.item() == pytest.approx(2 * true + 3 * rest + 5 * ln(3))


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


def test_standardize_by_hand():
    given = torch.tensor([[1.0, 2, 3], [10, 30, 20], [5, 5, 5]])
    torch.testing.assert_close(standardize(given), torch.tensor([[-1.0, 0, 1], [-1, 1, 0], [0, 0, 0]]))


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


def test_uskd_of_equally_sure_samples_is_the_cross_entropy():
    student, labels = numbers(1, CLASSES).expand(4, CLASSES), torch.full((4,), 3)
    expected = F.cross_entropy(student, labels)  # the soft target is p^2 + 1 - p^2
    torch.testing.assert_close(run_uskd(student, student, labels, alpha=1.0, beta=0.0, mu=0.0), expected)


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


def test_sdd_of_one_scale_is_kd():
    student, teacher, labels = sample("sdd")
    weight, bias = numbers(3, CLASSES, seed=3), numbers(3, seed=4)
    logits = [F.linear(x.mean((2, 3)), weight, bias) for x in (student, teacher)]
    module = Sdd(student, teacher, weight, weight, scales=1, temperature=2.0)
    value = module(student, teacher, weight, bias, weight, bias, labels)
    torch.testing.assert_close(value, kd(*logits, temperature=2.0))
