"""The objectives on features four ways: by hand, against slow references, by their invariances, by their gradients.

Values of the reference implementations are in test_golden.py.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import pytest
import slow_features as slow
import torch
from torch import nn
from torch.func import functional_call

from objectives import maps, ofd, relations, reviewkd
from objectives.ab import Ab
from objectives.crd import Crd
from objectives.fitnet import FitNet
from objectives.fsp import Fsp
from objectives.kdsvd import kdsvd
from objectives.lshfm import Lshfm
from objectives.ofd import Ofd, margin
from objectives.projected import Ickd, Srd, Srrl
from objectives.relations import ConsecutiveCorrelation
from objectives.reviewkd import ReviewKD
from objectives.vid import Vid

BATCH = 4


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


SHAPES = {  # of one sample, for student and teacher
    "pooled": ([(5,)], [(7,)]),
    "equal": ([(5,)], [(5,)]),
    "last": ([(3, 4, 4)], [(4, 2, 2)]),
    "stages": ([(3, 4, 4), (5, 2, 2)], [(4, 8, 8), (5, 2, 2)]),
    "same": ([(3, 4, 4), (5, 2, 2)], [(3, 4, 4), (5, 2, 2)]),
    "pyramid": ([(3, 8, 8), (5, 2, 2)], [(3, 8, 8), (5, 2, 2)]),
    "levels": ([(3, 4, 4), (5, 2, 2), (6,)], [(4, 4, 4), (6, 2, 2), (7,)]),
}
HEAD, BIAS = numbers(6, 4, seed=1), numbers(6, seed=2)
NORM = nn.BatchNorm2d(4)
NORM.weight.data, NORM.bias.data = torch.tensor([1.0, 0.5, -2.0, 1.5]), torch.tensor([0.0, 1.0, -1.0, 3.0])
INDEX = torch.tensor([4, 2, 11, 5])
COMPARED = torch.tensor([[4, 2, 3, 3, 15], [2, 0, 1, 4, 5], [11, 12, 13, 0, 0], [5, 6, 7, 14, 15]])
VERDICTS = numbers(BATCH, 2, seed=3)  # of the teacher
RIGHT = [0, 3]
KNOWN = torch.tensor([VERDICTS[i].argmax() ^ (i not in RIGHT) for i in range(BATCH)])


class Case(NamedTuple):
    """An objective: what it reads, how it is made for features, its slow reference, and how it is called."""

    reads: str
    make: Any
    slow: Any
    call: Any = None

    def given(self, student, teacher):
        if self.call is not None:
            return self.call(student, teacher)
        return (student[0], teacher[0]) if len(SHAPES[self.reads][0]) == 1 else (student, teacher)


def make_crd(student, teacher):
    module = Crd(student[0], teacher[0], torch.arange(16) // 2 % 2, dimensions=3, contrasts=4, temperature=0.5)
    module.constants.copy_(torch.tensor([5.0, 9.0]))
    module.forward = module.contrast
    return module


def lshfm(hashes, features, *, correct_only=False):
    def make(student, teacher):
        return Lshfm(
            student[0],
            teacher[0],
            HEAD,
            hashes=8,
            hash_distance=hashes,
            feature_distance=features,
            correct_only=correct_only,
        )

    expected = partial(slow.lshfm, hashes=hashes, features=features, counts=RIGHT if correct_only else None)
    return Case("equal", make, expected, lambda s, t: (s[0], t[0], VERDICTS[: len(s[0])], KNOWN[: len(s[0])]))


def function(reads, call, expected):
    return Case(reads, lambda s, t: call, expected)


CASES = {
    "fitnet": Case("stages", FitNet, slow.fitnet),
    "at": function("stages", maps.at, slow.at),
    "nst": function("stages", maps.nst, slow.nst),
    "fsp": Case("same", Fsp, slow.fsp),
    "kdsvd": function("same", kdsvd, None),
    "vid": Case("stages", partial(Vid, variance=2.0), slow.vid),
    "vid_of_a_least_variance": Case("stages", partial(Vid, epsilon=0.7), partial(slow.vid, epsilon=0.7)),
    "ab": Case("stages", partial(Ab, margin=0.7), slow.ab),
    "ofd": Case(
        "stages",
        lambda s, t: Ofd(s, t, [NORM, None]),
        partial(slow.ofd, norm=(NORM.weight.tolist(), NORM.bias.tolist())),
    ),
    "ofd_of_wide_kernels": Case(
        "stages",
        lambda s, t: Ofd(s, t, [NORM, None], kernel_size=3),
        partial(slow.ofd, norm=(NORM.weight.tolist(), NORM.bias.tolist())),
    ),
    "hcl": function("pyramid", reviewkd.hcl, slow.hcl),
    "reviewkd": Case(
        "levels",
        lambda s, t: ReviewKD(s[:-1], s[-1], t[:-1], t[-1], channels=2),
        slow.reviewkd,
        lambda s, t: (s[:-1], s[-1], t[:-1], t[-1]),
    ),
    "sp": function("last", relations.sp, slow.sp),
    "pkt": function("pooled", relations.pkt, slow.pkt),
    "rkd_distance": function("pooled", relations.rkd_distance, slow.rkd_distance),
    "rkd_squared": function(
        "pooled", partial(relations.rkd_distance, squared=True), partial(slow.rkd_distance, power=2)
    ),
    "rkd_angle": function("pooled", relations.rkd_angle, slow.rkd_angle),
    "cc": function("pooled", partial(relations.cc, gamma=0.6), slow.cc),
    "consecutive": Case("pooled", lambda s, t: ConsecutiveCorrelation(s[0], t[0], dimensions=3), slow.consecutive),
    "crd": Case(
        "pooled",
        make_crd,
        partial(slow.crd, compared=COMPARED.tolist(), temperature=0.5),
        lambda s, t: (s[0], t[0], INDEX[: len(s[0])], COMPARED[: len(s[0])]),
    ),
    "lshfm": lshfm("sign", "l2"),
    "lshfm_of_correct": lshfm("sign", "l2", correct_only=True),
    "lshfm_sign": lshfm("sign", "none"),
    "lshfm_hash_l1": lshfm("l1", "none"),
    "lshfm_hash_l2": lshfm("l2", "l1"),
    "lshfm_l2": lshfm("none", "l2"),
    "lshfm_directions": lshfm("none", "l2_normalised"),
    "srrl": Case(
        "last",
        lambda s, t: Srrl(s[0], t[0], HEAD),
        partial(slow.srrl, head=HEAD.numpy()),
        lambda s, t: (s[0], t[0], HEAD.to(s[0].dtype), BIAS.to(s[0].dtype)),
    ),
    "ickd": Case("last", lambda s, t: Ickd(s[0], t[0]), slow.ickd),
    "srd": Case("pooled", lambda s, t: Srd(s[0], t[0], power=3.0), slow.srd),
}


def sample(name, batch=BATCH, seed=0):
    seeds = iter(range(10 * seed, 10 * seed + 10))
    return [[numbers(batch, *shape, seed=next(seeds)) for shape in side] for side in SHAPES[CASES[name].reads]]


def made(name, student, teacher):
    """The objective with the same parameters every time, none of them at its neutral value."""
    torch.manual_seed(0)
    module = CASES[name].make(student, teacher)
    if isinstance(module, nn.Module):
        for parameter in module.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape)
        module.to(student[0].dtype)
    return module


def value(name, student, teacher):
    return made(name, student, teacher)(*CASES[name].given(student, teacher))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", [name for name in CASES if name != "kdsvd"])
def test_against_the_slow_reference(name, seed):
    student, teacher = sample(name, seed=seed)
    module, weights = made(name, student, teacher), {}
    if isinstance(module, nn.Module):
        weights = {key: x.detach().clone().numpy() for key, x in module.state_dict().items()}
    expected = CASES[name].slow([x.numpy() for x in student], [x.numpy() for x in teacher], weights)
    result = module(*CASES[name].given(student, teacher)).item()
    assert result == pytest.approx(expected, rel=1e-5)  # epsilons in denominators, margins kept in float32


@pytest.mark.parametrize("vectors", [1, 2])
def test_kdsvd_against_the_slow_reference_for_some_signs_of_the_teacher(vectors):
    for seed in range(3):
        student, teacher = sample("kdsvd", batch=1, seed=seed)
        expected = slow.kdsvd([x[0].numpy() for x in student], [x[0].numpy() for x in teacher], vectors)
        result = kdsvd(student, teacher, vectors=vectors).item()
        assert min(abs(result - one) for one in expected) <= 1e-9 * result


ORDER = torch.tensor([2, 0, 3, 1])


def turned(x):
    """Every sample's channels or dimensions by one orthogonal matrix."""
    q = torch.linalg.qr(numbers(x.shape[1], x.shape[1], seed=9))[0]
    return torch.einsum("dc,bc...->bd...", q, x)


def stretched(x):
    return x * torch.tensor([0.5, 3.0, 1.0, 7.0], dtype=x.dtype).view(-1, *[1] * (x.ndim - 1))


def students(change):
    return lambda s, t: ([change(x) for x in s], t)


def teachers(change):
    return lambda s, t: (s, [change(x) for x in t])


def all_of(change):
    return lambda s, t: ([change(x) for x in s], [change(x) for x in t])


WITH_NUMBERS = ("consecutive", "crd", "lshfm_of_correct")  # neighbours, or what is known of a sample, matter
RKD = ("rkd_distance", "rkd_squared", "rkd_angle")
CHANGES = {
    "samples in another order": ([n for n in CASES if n not in WITH_NUMBERS], all_of(lambda x: x[ORDER])),
    "samples from last to first": (["consecutive"], all_of(lambda x: x.flip(0))),
    "the student times a number": (["at", "nst", "kdsvd", "sp", "pkt", "cc", *RKD], students(lambda x: 7 * x)),
    "the teacher times a number": (["sp", "ickd", *RKD], teachers(lambda x: 7 * x)),
    "each of the student's samples times its number": (["at", "nst", "kdsvd", "pkt", "cc"], students(stretched)),
    "each of the teacher's samples times its number": (["ab", "ickd", "lshfm_sign", "pkt"], teachers(stretched)),
    "each sample's length": (["lshfm_directions"], lambda s, t: ([stretched(x) for x in s], [3 * x for x in t])),
    "the student's sign": (["at", "nst", "kdsvd", "sp"], students(torch.neg)),
    "the student's channels in another order": (["at", "nst", "kdsvd"], students(lambda x: x.roll(1, 1))),
    "the teacher's channels in another order": (["at", "nst"], teachers(lambda x: x.roll(1, 1))),
    "a rotation of the student": (["sp", "pkt", "cc", *RKD], students(turned)),
    "a rotation of the teacher": (["sp", "pkt", "cc", *RKD], teachers(turned)),
    "a rotation of both": (["lshfm_l2"], all_of(turned)),
    "a move of the student": ([*RKD], students(lambda x: x + 5 * x[:1])),
    "a move of the teacher": (["srd"], teachers(lambda x: x + 5 * x[:1])),
    "a constant on both": (["hcl", "lshfm_l2", "lshfm_hash_l1", "lshfm_hash_l2"], all_of(lambda x: x + 3)),
    "mirrored maps": (
        ["fitnet", "at", "nst", "fsp", "vid", "ab", "ofd", "hcl", "sp", "srrl", "ickd"],
        all_of(lambda x: x.flip(2)),
    ),
    "the teacher's pixels in another order": (["srrl", "ickd"], teachers(lambda x: x.mT)),
    "one stage times a number, the next one divided": (["fsp"], lambda *x: [(2 * a, b / 2) for a, b in x]),
}


@pytest.mark.parametrize(("change", "name"), [(change, name) for change in CHANGES for name in CHANGES[change][0]])
def test_the_value_stays_with(change, name):
    student, teacher = sample(name)
    changed = CHANGES[change][1](student, teacher)
    assert any(not torch.equal(a, b) for a, b in zip([*student, *teacher], [*changed[0], *changed[1]]))
    torch.testing.assert_close(value(name, *changed), value(name, student, teacher), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["at", "nst", "kdsvd", "hcl", "sp", "pkt", "cc", *RKD, "lshfm_l2", "lshfm_directions"])
def test_zero_with_no_gradient_at_the_teacher(name):
    _, teacher = sample(name)
    student = [x.clone().requires_grad_() for x in teacher]
    loss = value(name, student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert all(x.grad.abs().max() < 1e-6 for x in student)  # PKT has an epsilon beside the probabilities


@pytest.mark.parametrize("name", CASES)
def test_gradients_in_float64(name):
    student, teacher = sample(name, batch=3)
    module, stages = made(name, student, teacher), len(student)
    known = dict(module.named_parameters()) if isinstance(module, nn.Module) else {}

    def call(*x):
        if not known:
            return module(*CASES[name].given(list(x), teacher))
        buffers = {key: buffer.clone() for key, buffer in module.named_buffers()}  # CRD's memory moves
        values = {**buffers, **dict(zip(known, x[stages:]))}
        return functional_call(module, values, CASES[name].given(list(x[:stages]), teacher))

    inputs = [x.detach().clone().requires_grad_() for x in (*student, *known.values())]
    assert torch.autograd.gradcheck(call, inputs, fast_mode=len(known) > 2)


def extremes(student, teacher):
    """Features that are hard on divisions and roots; the last pair is a batch of one."""
    zero, equal = ([change(x) for x in student] for change in (torch.zeros_like, lambda x: x[:1].expand_as(x)))
    constant = [x.mean((2, 3), keepdim=True).expand_as(x) if x.ndim == 4 else torch.ones_like(x) for x in student]
    none, same = [torch.zeros_like(x) for x in teacher], [x[:1].expand_as(x) for x in teacher]
    large = [[1e4 * x for x in side] for side in (student, teacher)]
    opposite = [torch.cat([x[:2], -x[:2]]) for x in student]
    pairs = [(zero, teacher), (student, none), (zero, none), (equal, teacher), (student, same), (equal, same)]
    pairs += [(constant, teacher), (constant, same), large, (opposite, teacher), ([x.relu() for x in student], none)]
    dead = [x * (torch.arange(x.shape[1]) > 0).view(-1, *[1] * (x.ndim - 2)) for x in student]  # a channel
    if all(a.shape == b.shape for a, b in zip(student, teacher)):
        pairs.append((teacher, teacher))
    return [*pairs, (dead, teacher), ([x[:1] for x in student], [x[:1] for x in teacher])]


@pytest.mark.parametrize("name", CASES)
def test_extremes_give_finite_values_and_gradients(name):
    pairs = extremes(*sample(name))
    if name in ("srd", "reviewkd"):
        pairs = pairs[:-1]  # batch norm of vectors
    for number, pair in enumerate(pairs):
        student, teacher = ([x.float() for x in side] for side in pair)
        student = [x.requires_grad_() for x in student]
        module = made(name, student, teacher)
        loss = module(*CASES[name].given(student, teacher))
        loss.backward()
        assert loss.isfinite(), number
        parameters = list(module.parameters()) if isinstance(module, nn.Module) else []
        assert all(x.grad is None or x.grad.isfinite().all() for x in (*student, *parameters)), number


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def row(*values):
    """A map of one sample, one channel and one row."""
    return tensor(*values).view(1, 1, 1, -1)


def with_ones(module, bias=0.0):
    for parameter in module.parameters():
        parameter.data.fill_(bias if parameter.ndim == 1 else 1.0)
    return module.double()


def test_hints_by_hand():
    # 1 and 3 are -1 and 1 after the batch norm, 0 and 1 after the ReLU, to 2 and 4: (4 + 9) / 2.
    student, teacher = (tensor(*x).view(2, 1, 1, 1) for x in ((1, 3), (2, 4)))
    module = with_ones(FitNet([student], [teacher]))
    module.regressor[1].weight.data.fill_(1.0)
    assert module([student], [teacher]).item() == pytest.approx(13 / 2, rel=1e-4)
    # The teacher's classifier, times 2 and times 1, adds (4 + 1) / 2 of the same.
    module = Srrl(student, teacher, tensor([2], [1])).double()
    module.connector[0].weight.data.fill_(1.0)
    value = module(student, teacher, tensor([2], [1]), tensor(5, 6))
    assert value.item() == pytest.approx(13 / 2 * (1 + 5 / 2), rel=1e-4)
    # After both batch norms -1 and 1, 1 and -1: twice 2^4.
    module = with_ones(Srd(student.view(2, 1), teacher.view(2, 1)))
    assert module(student.view(2, 1), -teacher.view(2, 1)).item() == pytest.approx(math.log(32), rel=1e-4)


def test_maps_by_hand():
    # Squares (3, 4) are (0.6, 0.8) of length one, to (1, 0): (0.16 + 0.64) / 2.
    assert maps.at([row(3**0.5, 2)], [row(1, 0)]).item() == pytest.approx(0.4)
    # Each is like itself by 1 and like the other by 0.6^2: 1 + 1 - 0.72.
    assert maps.nst([row(3, 4)], [row(1, 0)]).item() == pytest.approx(1.28)
    # Flows 11 / 2 and 1.
    flows = [row(1, 2), row(3, 4)], [row(1, 0), row(2, 0)]
    assert Fsp(*flows)(*flows).item() == pytest.approx(4.5**2)
    # Squares 3 on the map, 1.5^2 on its mean, which counts half.
    assert reviewkd.hcl([tensor([[[0, 0], [0, 0]]])], [tensor([[[1, 1], [1, 3]]])]).item() == pytest.approx(4.125 / 1.5)
    # Half of 2^2 / 2 + ln 2.
    module = with_ones(Vid([row(3)], [row(1)], variance=2.0), math.log(math.expm1(2.0)))
    assert module([row(3)], [row(1)]).item() == pytest.approx(1 + math.log(2) / 2, rel=1e-4)


def test_kdsvd_by_hand():
    # Vectors (1, 0) then (0.8, 0.6) to (1, 0) twice: the differences across the stages are -0.2, 0.8, -0.4, 0.6 to
    # 0, 1, -1, 0.
    value = kdsvd([row(1, 0), row(4, 3)], [row(1, 0), row(2, 0)])
    pairs = [(-0.2, 0), (0.8, 1), (-0.4, -1), (0.6, 0)]
    expected = sum((math.exp(-(a**2) / 8) - math.exp(-(b**2) / 8)) ** 2 for a, b in pairs)
    assert value.item() == pytest.approx(expected)


def test_boundaries_and_margins_by_hand():
    # To 1 beyond zero: 0.5, 4, 3 and 0.5 are missing; the first of two stages counts half.
    student, teacher = row(0.5, -3, 2, -0.5), row(1, 1, -1, -1)
    assert Ab([student] * 2, [teacher] * 2)([student] * 2, [teacher] * 2).item() == pytest.approx(25.5 * 1.5)
    # Margin -1: 1 below 2, 0.5 above -0.5, below -1 already, 1 above -1.
    value = ofd.partial_l2(row(1, 0, -2, 0), row(2, -0.5, -3, -3), tensor(-1))
    assert value.item() == pytest.approx(1 + 0.25 + 0 + 1)
    # The mean of the negative half of a normal variable; nothing is negative 9 deviations above zero.
    margins = margin(tensor(1, -2, 1), tensor(0, 0, 9))
    torch.testing.assert_close(margins, tensor(-math.sqrt(2 / math.pi), -2 * math.sqrt(2 / math.pi), -3))


def test_relations_by_hand():
    apart, alike = tensor([1, 0], [0, 1]), tensor([1, 0], [1, 0])
    # Rows (1, 1) / sqrt 2 to (1, 0) and (0, 1): twice 3/2 - sqrt 2 and twice 1/2, over 4.
    assert relations.sp(alike, apart).item() == pytest.approx(1 - math.sqrt(2) / 2)
    # Rows (2/3, 1/3) to (1/2, 1/2): (ln 3/4 + ln 3/2) / 2 each, over 2.
    assert relations.pkt(apart, alike).item() == pytest.approx(math.log(9 / 8) / 4, rel=1e-5)
    # exp(-2 gamma) to 1 in two of four places.
    assert relations.cc(apart, alike, gamma=0.5).item() == pytest.approx((1 - math.exp(-1)) ** 2 / 2)
    # Distances 1 2 3 over 2 to 1 1 2 over 4/3: a quarter off in two pairs.
    assert relations.rkd_distance(tensor([0], [1], [3]), tensor([0], [1], [2])).item() == pytest.approx(4 / 32 / 9)
    # Cosines 0, 1 / sqrt 2, 1 / sqrt 2 to 1, -1, 1; the middle one is off by more than 1.
    value = relations.rkd_angle(tensor([0, 0], [1, 0], [0, 1]), tensor([0], [1], [2]))
    root = math.sqrt(1 / 2)
    assert value.item() == pytest.approx(2 * (1 / 2 + root + 1 / 2 + (1 - root) ** 2 / 2) / 27)
    # 1 * 3 + 2 * 1, then 0 + 2.
    value = relations.consecutive(tensor([1, -2], [3, 1], [0, 2]), tensor([0, 0], [0, 0], [0, 0]))
    assert value.item() == pytest.approx(3.5)


def test_pkt_of_opposite_samples_is_finite_where_rounding_takes_their_cosine_below_minus_one():
    for seed in range(100):
        x, other = (numbers(1, 512, seed=seed + 100 * k).float() for k in range(2))
        x, other = torch.cat([x, -x]), torch.cat([other, 2 * other])
        assert relations.pkt(x, other).isfinite()
        assert relations.pkt(other, x).isfinite()
