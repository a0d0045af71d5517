"""ERA by hand, by a slow reference, and what its branches learn."""

from math import log as ln

import pytest
import torch
from small_tensors import numbers, tensor
from torch.nn import functional as F

from objectives.era import Era

HEAD, BIAS, LABELS = numbers(6, 4, seed=1), numbers(6, seed=2), torch.tensor([3, 0, 5, 1, 0])


def made(student, teacher, **options):
    """With the same parameters every time, none of them at its neutral value."""
    torch.manual_seed(0)
    module = Era(student, teacher, **options).double()
    for parameter in module.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape)
    return module


def test_by_hand():
    # 1 and 3 to 2 and 5, squares 1 and 4. Each branch adds a half: of 1 and 2 then a half and 3/2 are left, of which it
    # is a half and 3/2, then 0 and 1 off. The classifier says nothing: ln 2 each time.
    student, teacher = tensor([1], [3]), tensor([2], [5])
    module = Era(student, teacher, branches=2, depth=1, feature=3.0, decay=0.5).double()
    for branch in module.branches:
        torch.nn.init.zeros_(branch[0][1].weight)
        torch.nn.init.constant_(branch[0][1].bias, 0.5)
    value = module(student, teacher, torch.zeros(2, 1).double(), torch.zeros(2).double(), torch.tensor([0, 1]))
    assert value.item() == pytest.approx(3 * 2.5 + ln(2) + (1.25 + ln(2)) / 2 + 0.5 * (0.5 + ln(2)) / 2)


@pytest.mark.parametrize("channels", [4, 3])
def test_against_the_slow_reference(channels):
    student, teacher = numbers(5, channels), numbers(5, 4, seed=3)
    module = made(student, teacher, branches=3, depth=2, feature=0.7, decay=0.4)

    def linear(layer, rows):
        if isinstance(layer, torch.nn.Identity):
            return rows
        return [[sum(w * x for w, x in zip(ws, row)) + b for ws, b in zip(layer.weight, layer.bias)] for row in rows]

    def norm(layer, rows):
        columns = []
        for column, weight, bias in zip(zip(*rows), layer.weight, layer.bias):
            mean = sum(column) / len(column)
            deviation = (sum((x - mean) ** 2 for x in column) / len(column) + 1e-5) ** 0.5
            columns.append([weight * (x - mean) / deviation + bias for x in column])
        return list(zip(*columns))

    def square(rows, others):
        differences = [(a - b) ** 2 for row, other in zip(rows, others) for a, b in zip(row, other)]
        return sum(differences) / len(differences)

    def hard(rows):
        logits = [[sum(w * x for w, x in zip(ws, row)) + b for ws, b in zip(HEAD, BIAS)] for row in rows]
        return sum(torch.stack(z).logsumexp(0) - z[y] for z, y in zip(logits, LABELS)) / len(LABELS)

    rows = linear(module.lift, student)
    expected = 0.7 * square(rows, teacher) + hard(rows)
    for number, ((first, norm1, _, second, norm2), lift) in enumerate(module.branches):
        hidden = [[max(x, 0) for x in row] for row in norm(norm1, linear(first, student))]
        step = linear(lift, norm(norm2, linear(second, hidden)))
        left = [[t - x for t, x in zip(*pair)] for pair in zip(teacher, rows)]
        rows = [[x + d for x, d in zip(*pair)] for pair in zip(rows, step)]
        expected += 0.4**number / 3 * (square(step, left) + hard(rows))
    value = module(student, teacher, HEAD, BIAS, LABELS)
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)


def test_branches_start_small_and_the_layer_to_the_teachers_dimensions_as_torch_has_it():
    torch.manual_seed(0)
    module = Era(torch.zeros(2, 400), torch.zeros(2, 300))
    linear = [layer for layer in module.branches.modules() if isinstance(layer, torch.nn.Linear)]
    assert all(layer.weight.std().item() == pytest.approx(0.01, rel=0.02) for layer in linear)
    assert not any(layer.bias.any() for layer in linear)
    assert module.lift.weight.std().item() == pytest.approx((1 / 1200) ** 0.5, rel=0.02)


def test_gradients_in_float64_with_what_is_left_for_a_branch_held_fixed():
    student, teacher = numbers(5, 3).requires_grad_(), numbers(5, 4, seed=3)
    module = made(student, teacher, branches=2, depth=1)
    with torch.no_grad():
        first = teacher - module.lift(student)
        left = [first, first - module.branches[0](student)]

    def fixed(x):
        features, steps = module.lift(x), [branch(x) for branch in module.branches]
        total = 5.0 * F.mse_loss(features, teacher) + hard(features)
        for number, (step, target) in enumerate(zip(steps, left)):
            features = features + step
            total = total + 0.5**number / 2 * (F.mse_loss(step, target) + hard(features))
        return total

    def hard(features):
        return F.cross_entropy(features @ HEAD.T + BIAS, LABELS)

    assert torch.autograd.gradcheck(fixed, student)
    values = fixed(student), module(student, teacher, HEAD, BIAS, LABELS)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in values))


def test_branches_take_up_what_the_one_before_has_left():
    student, teacher = numbers(40, 3), numbers(40, 3, seed=3)
    torch.manual_seed(0)
    module = Era(student, teacher, branches=3, depth=2, decay=1.0).double()
    nothing = torch.zeros(2, 3).double(), torch.zeros(2).double(), torch.zeros(40, dtype=torch.long)
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    for _ in range(100):
        optimizer.zero_grad()
        module(student, teacher, *nothing).backward()
        optimizer.step()
    features, distances = student, []
    for branch in module.branches:
        features = features + branch(student)
        distances.append(F.mse_loss(features, teacher).item())
    assert distances == sorted(distances, reverse=True)
    assert distances[0] < 0.8 * F.mse_loss(student, teacher).item()
