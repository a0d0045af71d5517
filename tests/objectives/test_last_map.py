"""SRRL, SRD, ICKD, SimKD and factor transfer, which bring one network's last features to the other's."""

import math

import numpy as np
import pytest
import torch
from small_tensors import numbers, tensor
from torch.nn import functional as F

from objectives.ft import Ft
from objectives.projected import Ickd, SimKd, Srd, Srrl


def test_srrl_by_hand():
    # 1 and 3 are -1 and 1 after the batch norm, 0 and 1 after the ReLU, to 2 and 4: (4 + 9) / 2. The teacher's
    # classifier, times 2 and times 1, adds (4 + 1) / 2 of the same.
    student, teacher = (tensor(*x).view(2, 1, 1, 1) for x in ((1, 3), (2, 4)))
    module = Srrl(student, teacher, tensor([2], [1])).double()
    module.connector[0].weight.data.fill_(1.0)
    value = module(student, teacher, tensor([2], [1]), tensor(5, 6))
    assert value.item() == pytest.approx(13 / 2 * (1 + 5 / 2), rel=1e-4)


def test_srd_by_hand():
    # After both batch norms -1 and 1, 1 and -1: twice 2^4.
    student, teacher = tensor([1], [3]), tensor([-2], [-4])
    module = Srd(student, teacher).double()
    module.projector.weight.data.fill_(1.0)
    assert module(student, teacher).item() == pytest.approx(math.log(32), rel=1e-4)


def test_ickd_by_hand():
    # After the batch norm the student's channels are (-1, 1) and (1, -1): rows (1, -1) / sqrt 2. The teacher's are
    # apart, rows (1, 0) and (0, 1): 2 (3/2 - sqrt 2) + 2 / 2, over two channels.
    student, teacher = (torch.tensor(x, dtype=torch.float64).view(1, 2, 1, 2) for x in ([1, 3, 5, 1], [4, 0, 0, 2]))
    module = Ickd(student, teacher).double()
    module.connector[0].weight.data = torch.eye(2, dtype=torch.float64).view(2, 2, 1, 1)
    assert module(student, teacher).item() == pytest.approx(2 - math.sqrt(2), rel=1e-4)


def test_simkd_by_hand():
    # The student's 2 x 2 map has mean 2.5 and is pooled to 1 x 1; the teacher has 1: (2.5 - 1)^2.
    student, teacher = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.ones(1, 1, 1, 1)
    head = torch.zeros(3, 1)
    assert SimKd(student, teacher, head, head)(student, teacher).item() == pytest.approx(2.25)
    assert SimKd(student, student, head, head)(student, student).item() == 0
    for other, theirs in ((torch.ones(1, 2, 1, 1), torch.zeros(3, 2)), (teacher, head + 1)):
        with pytest.raises(ValueError, match=r"a student with the teacher's classifier: set student\."):
            SimKd(student, other, head, theirs)


def slow_layers(x, layers, transposed):
    """3 x 3 convolutions with leaky ReLUs, pixel by pixel; x: [C, H, W]."""
    for layer in layers:
        if isinstance(layer, torch.nn.LeakyReLU):
            x = np.where(x > 0, x, 0.1 * x)
            continue
        weight = layer.weight.detach().numpy()  # [out, in, 3, 3]; of the transposed [in, out, 3, 3]
        weight = weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1] if transposed else weight
        framed = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        made = np.empty((len(weight), *x.shape[1:]))
        for place in np.ndindex(x.shape[1:]):
            window = framed[:, place[0] : place[0] + 3, place[1] : place[1] + 3]
            made[(slice(None), *place)] = (weight * window).sum((1, 2, 3)) + layer.bias.detach().numpy()
        x = made
    return x


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_factor_transfer_against_loops(power):
    student, teacher = numbers(2, 3, 4, 4), numbers(2, 4, 2, 2, seed=1)
    torch.manual_seed(0)
    objective = Ft(student, teacher, rate=0.5, power=power).double()
    encoder, decoder = objective.paraphraser
    distances, errors = [], []
    for ours, theirs in zip(student.numpy(), teacher.numpy(), strict=True):
        translated = slow_layers(ours, objective.translator, False).reshape(2, 2, 2, 2, 2).mean((2, 4))
        factors = slow_layers(theirs, encoder, False)
        units = [x / np.sqrt((x**2).sum()) for x in (translated, factors)]
        distances += [abs(units[0] - units[1]) ** power]
        errors += [(slow_layers(factors, decoder, True) - theirs) ** 2]
    assert objective(student, teacher).item() == pytest.approx(np.mean(distances) + np.mean(errors), rel=1e-9)
    objective.paraphraser.eval()
    assert objective(student, teacher).item() == pytest.approx(np.mean(distances), rel=1e-9)


def test_factor_transfer_over_channels_is_that_of_repdistiller():
    # Factors of one channel pair, (1, 2) and (3, 0) at two pixels: mean squares 2.5 and 4.5, over their length.
    student = teacher = torch.zeros(1, 2, 1, 2)
    objective = Ft(student, teacher, rate=1.0, over_channels=True).eval()
    objective.translator, objective.paraphraser = torch.nn.Identity(), torch.nn.Sequential(*[torch.nn.Identity()] * 2)
    ours, theirs = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]]), torch.tensor([[[[1.0, 1.0]], [[1.0, 1.0]]]])
    length = (2.5**2 + 4.5**2) ** 0.5
    expected = (abs(2.5 / length - 0.5**0.5) + abs(4.5 / length - 0.5**0.5)) / 2
    assert objective.eval()(ours, theirs).item() == pytest.approx(expected)


def test_the_paraphraser_learns_from_its_reconstruction_alone():
    student, teacher = numbers(2, 3, 4, 4).requires_grad_(), numbers(2, 4, 2, 2, seed=1)
    objective = Ft(student, teacher).double()
    encoder, decoder = objective.paraphraser
    parameters = list(objective.paraphraser.parameters())
    whole = torch.autograd.grad(objective(student, teacher), parameters)
    alone = torch.autograd.grad(F.mse_loss(decoder(encoder(teacher)), teacher), parameters)
    assert all(torch.equal(one, other) for one, other in zip(whole, alone, strict=True))


def test_gradients_of_both():
    student, teacher = numbers(2, 3, 2, 2).requires_grad_(), numbers(2, 3, 2, 2, seed=1)
    head = numbers(5, 3)
    assert torch.autograd.gradcheck(lambda s: SimKd(s, teacher, head, head)(s, teacher), student)
    torch.manual_seed(1)
    objective = Ft(student, teacher).double()
    assert torch.autograd.gradcheck(lambda s: objective(s, teacher), student)


@pytest.mark.parametrize("zero", ["student", "teacher"])
def test_dead_maps_are_no_trouble(zero):
    maps = {"student": torch.randn(2, 3, 4, 4), "teacher": torch.randn(2, 4, 4, 4)}
    maps[zero] = torch.zeros_like(maps[zero])
    student = maps["student"].requires_grad_()
    objective = Ft(student, maps["teacher"])
    loss = objective(student, maps["teacher"])
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
