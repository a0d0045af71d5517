"""Laws of the objectives on features: as their slow references, invariant as their papers say, with right gradients."""

import pytest
import slow_features as slow
import torch
from feature_cases import CASES, made, sample, value
from small_tensors import numbers
from torch import nn
from torch.func import functional_call

from objectives.kdsvd import kdsvd


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


def channels_moved(x):
    """Each channel times a positive number, plus another."""
    channel = torch.arange(x.shape[1], dtype=x.dtype).view(-1, 1, 1)
    return x * (0.5 + channel) + 3 - 2 * channel


def students(change):
    return lambda s, t: ([change(x) for x in s], t)


def teachers(change):
    return lambda s, t: (s, [change(x) for x in t])


def all_of(change):
    return lambda s, t: ([change(x) for x in s], [change(x) for x in t])


# Neighbours, or what is known of a sample, matter.
WITH_NUMBERS = ("consecutive", "crd", "diffkd", "fgd", "lshfm_of_correct", "lshfm_windows", "lshfm_windows_l1", "vitkd")
WKD = ("wkd_f", "wkd_f_of_covariances")
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
        ["fitnet", "at", "nst", "fsp", "vid", "ab", "ofd", "hcl", "sp", "srrl", "ickd", "pkd", "cwd", "phi_s", *WKD],
        all_of(lambda x: x.flip(2)),
    ),
    "each channel of the student on a scale of its own": (["pkd"], students(channels_moved)),
    "each channel of the teacher on a scale of its own": (["pkd"], teachers(channels_moved)),
    "a constant on each channel of the teacher": (
        ["cwd"],
        teachers(lambda x: x + torch.arange(x.shape[1])[:, None, None]),
    ),
    "the teacher's pixels in another order": (["srrl", "ickd", *WKD], teachers(lambda x: x.mT)),
    "one stage times a number, the next one divided": (["fsp"], lambda *x: [(2 * a, b / 2) for a, b in x]),
}


@pytest.mark.parametrize(("change", "name"), [(change, name) for change in CHANGES for name in CHANGES[change][0]])
def test_the_value_stays_with(change, name):
    student, teacher = sample(name)
    changed = CHANGES[change][1](student, teacher)
    assert any(not torch.equal(a, b) for a, b in zip([*student, *teacher], [*changed[0], *changed[1]]))
    torch.testing.assert_close(value(name, *changed), value(name, student, teacher), rtol=1e-6, atol=1e-9)


AT_THE_TEACHER = ["at", "nst", "kdsvd", "hcl", "pkd", "sp", "pkt", "cc", "lshfm_l2", "lshfm_directions"]


@pytest.mark.parametrize("name", [*AT_THE_TEACHER, *RKD])
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
    parameters = module.named_parameters() if isinstance(module, nn.Module) else []
    known = {name: parameter for name, parameter in parameters if parameter.requires_grad}

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
