"""Distances of projected features to a teacher's."""

import pytest
import torch
from small_tensors import numbers
from torch.nn import functional as F

from objectives.projected import FeatureDistance, MapDistance


def made(kind, student, teacher, **options):
    torch.manual_seed(0)
    return kind(student, teacher, **options).to(student.dtype)


def vectors():
    return numbers(4, 5, seed=1), numbers(4, 7, seed=2)


def maps():
    return numbers(2, 3, 4, 4, seed=1), numbers(2, 5, 7, 7, seed=2)


def test_by_hand():
    module = made(FeatureDistance, torch.eye(2), torch.eye(2))
    module.projector = torch.nn.Identity()
    student, teacher = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [3.0, 4.0]])
    assert module(student, teacher).item() == pytest.approx((1 + 0) / 2)
    module = made(FeatureDistance, student, teacher, distance="mse")
    module.projector = torch.nn.Identity()
    assert module(student, teacher).item() == pytest.approx((1 + 4) / 4)


@torch.no_grad()
@pytest.mark.parametrize("projector", ["linear", "mlp"])
@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_as_slow_loops_have_it(distance, projector):
    options = {"distance": distance, "projector": projector}

    def one(x, y):
        if distance == "mse":
            return sum((float(a) - float(b)) ** 2 for a, b in zip(x, y)) / len(x)
        dot, own, other = (sum(float(a) * float(b) for a, b in zip(*pair)) for pair in ((x, y), (x, x), (y, y)))
        return 1 - dot / (own * other) ** 0.5

    student, teacher = vectors()
    module = made(FeatureDistance, student, teacher, **options)
    expected = sum(one(module.projector(x), y) for x, y in zip(student, teacher)) / len(student)
    assert module(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    student, teacher = maps()
    module = made(MapDistance, student, teacher, **options)
    projected = torch.stack(
        [torch.stack([module.projector(one[:, y, x]) for x in range(4)], 1) for one in student for y in range(4)]
    )
    projected = projected.view(2, 4, 5, 4).transpose(1, 2)  # [B, C_t, H, W]
    resized = F.interpolate(projected, (7, 7), mode="bilinear")
    places = [(b, y, x) for b in range(2) for y in range(7) for x in range(7)]
    expected = sum(one(resized[b, :, y, x], teacher[b, :, y, x]) for b, y, x in places) / len(places)
    assert module(student, teacher).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("kind", "given"), [(FeatureDistance, vectors), (MapDistance, maps)])
def test_cosine_knows_no_lengths_and_gradients_are_right(kind, given):
    student, teacher = (x.double() for x in given())
    module = made(kind, student, teacher, projector="mlp")
    scaled = teacher * torch.rand(len(teacher), *[1] * (teacher.ndim - 1)).double().add(0.5)
    assert torch.allclose(module(student, teacher), module(student, scaled))
    assert not torch.allclose(module(student, teacher), module(student, teacher.flip(0)))
    assert torch.autograd.gradcheck(lambda x: module(x, teacher), student.requires_grad_())


@pytest.mark.parametrize("options", [{"distance": "l3"}, {"projector": "deep"}])
def test_unknown_names_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"^{name}={value}: expected "):
        FeatureDistance(*vectors(), **options)
