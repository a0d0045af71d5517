"""CRD's memory and contrasts, LSHFM's hashes and biases: by hand, and from step to step."""

import math

import pytest
import torch
from small_tensors import numbers
from torch.nn import functional as F

import objectives
from objectives.crd import Crd
from objectives.lshfm import Lshfm, hash_bias


def make_crd(labels, **options):
    torch.manual_seed(0)
    return Crd(numbers(2, 3), numbers(2, 4), labels, dimensions=5, **options).double()


def test_crd_by_hand():
    # Scores are exp(0) where the memory is zero and the constants are 1. Against one contrast in two samples, 1/2: the
    # sample itself has 1 / 1.5, the other one 0.5 / 1.5, in each of the two directions.
    module = make_crd(torch.tensor([0, 1]), contrasts=1)
    module.memory.zero_()
    module.constants.fill_(1)
    value = module.contrast(numbers(1, 3), numbers(1, 4), torch.tensor([0]), torch.tensor([[0, 1]]))
    assert value.item() == pytest.approx(2 * (math.log(1.5) + math.log(3)), rel=1e-6)


@pytest.mark.parametrize("relaxed", [False, True])
def test_crd_contrasts_are_of_all_other_classes_and_no_own(relaxed):
    known = torch.tensor([2, 0, 1, 0, 2, 2, 1, 0, 2, 3])
    module, index = make_crd(known, contrasts=400, relaxed=relaxed), torch.tensor([1, 4, 6, 9])
    compared = module.compared(known[index], index)
    assert compared.shape == (4, 401)
    for i, own, drawn in zip(index, compared[:, 0], compared[:, 1:]):
        others = (known != known[i]).nonzero().flatten()
        count = drawn.bincount(minlength=10)[others]
        assert count.sum() == 400
        assert (count > 400 / len(others) / 3).all()
        assert known[own] == known[i] if relaxed else own == i
    many = torch.cat([module.compared(known[index[:1]], index[:1])[:, 0] for _ in range(60)])
    assert set(many.tolist()) == ({1, 3, 7} if relaxed else {1})


def test_crd_memory_moves_towards_the_batch_and_the_constants_stay_with_the_first():
    module = make_crd(torch.arange(8) % 2, contrasts=3, momentum=0.75, temperature=0.5)
    index, before = torch.tensor([5, 2]), module.memory.clone()
    student, teacher = numbers(2, 3), numbers(2, 4, seed=1)
    compared = module.compared(index % 2, index)
    module.contrast(student, teacher, index, compared)
    embedded = [module.embed_student(student).detach(), module.embed_teacher(teacher).detach()]
    embedded = [F.normalize(x, dim=1) for x in embedded]
    for side in (0, 1):
        moved = F.normalize(0.75 * before[side, index] + 0.25 * embedded[side], dim=1)
        torch.testing.assert_close(module.memory[side, index], moved)
        scores = [
            math.exp(e @ before[1 - side, j] / 0.5) for e, row in zip(embedded[side], compared.tolist()) for j in row
        ]
        assert module.constants[side].item() == pytest.approx(8 * sum(scores) / len(scores))
    rest = [i for i in range(8) if i not in index]
    assert torch.equal(module.memory[:, rest], before[:, rest])
    constants = module.constants.clone()
    module(3 * student, teacher, index % 2, index)
    assert torch.equal(module.constants, constants)


def make_lshfm(**options):
    module = Lshfm(numbers(1, 2), numbers(1, 2), numbers(3, 2), hashes=2, **options).double()
    module.weight.copy_(torch.eye(2))
    return module


def test_lshfm_by_hand():
    # Hashes (ln 3, 0) should be positive and negative: -ln 3/4 and ln 2. Features are ln 3 - 1 and 1 apart.
    student, teacher = (torch.tensor([x], dtype=torch.float64) for x in ([math.log(3), 0], [1, -1]))
    known = torch.tensor([[1.0, 0]]), torch.tensor([0])
    signs, squares = (math.log(4 / 3) + math.log(2)) / 2, ((math.log(3) - 1) ** 2 + 1) / 2
    assert make_lshfm()(student, teacher, *known).item() == pytest.approx(signs + squares)
    # Lengths put away: (1, 0) to (1, -1) / sqrt 2.
    options = {"hash_distance": "none", "feature_distance": "l2_normalised"}
    root = math.sqrt(1 / 2)
    assert make_lshfm(**options)(student, teacher, *known).item() == pytest.approx(((1 - root) ** 2 + root**2) / 2)


def test_lshfm_of_correct_samples_leaves_out_the_wrong_ones():
    student, teacher, labels = numbers(4, 2).requires_grad_(), numbers(4, 2, seed=1), torch.tensor([0, 1, 0, 1])
    said = F.one_hot(torch.tensor([0, 0, 1, 1]), 2).double()  # the first and the last are right
    value = make_lshfm(correct_only=True)(student, teacher, said, labels)
    torch.testing.assert_close(value, make_lshfm()(student[[0, 3]], teacher[[0, 3]], said, labels))
    value = make_lshfm(correct_only=True)(student, teacher, F.one_hot(1 - labels, 2), labels)
    value.backward()
    assert value.item() == 0
    assert student.grad.eq(0).all()


def test_lshfm_needs_labels_for_correct_samples_alone():
    student, teacher, said = numbers(4, 2), numbers(4, 2, seed=1), numbers(4, 5, seed=2)
    value = make_lshfm()(student, teacher, said)
    torch.testing.assert_close(value, make_lshfm()(student, teacher, said, torch.zeros(4, dtype=torch.long)))
    assert objectives.get("lshfm").optional == {"labels"}
    with pytest.raises(ValueError, match=r"^correct_only=True: .* this batch has no labels$"):
        make_lshfm(correct_only=True)(student, teacher, said)


def test_the_hashes_of_lshfm_and_what_their_biases_have_followed_are_in_its_state():
    given = numbers(5, 2) + 3, numbers(5, 2, seed=1), numbers(5, 3)
    module = make_lshfm(bias="median")
    module.weight.copy_(numbers(2, 2, seed=4))
    module(*given)
    other = make_lshfm(bias="median")
    other.load_state_dict(module.state_dict())
    for _ in range(2):
        torch.testing.assert_close(other(*given), module(*given), rtol=0, atol=0)
    torch.testing.assert_close(other.bias, module.bias, rtol=0, atol=0)
    assert other.batches.item() == 3


@pytest.mark.parametrize("kind", ["mean", "median"])
def test_lshfm_biases_follow_the_average_of_the_batches_in_training_only(kind):
    module, known = make_lshfm(bias=kind), (numbers(5, 2), torch.zeros(5, dtype=torch.long))
    batches = [numbers(5, 2, seed=seed) + 3 for seed in range(3)]
    for batch in batches:
        module(batch, batch, *known)
    expected = [-sum(batch[:, k].sort().values[2] for batch in batches) / 3 for k in range(2)]
    if kind == "mean":
        expected = [-sum(batch[:, k].sum() / 5 for batch in batches) / 3 for k in range(2)]
    torch.testing.assert_close(module.bias, torch.stack(expected))
    module.eval()(10 * batches[0], batches[0], *known)
    torch.testing.assert_close(module.bias, torch.stack(expected))
    on_both_sides = (batches[0] + hash_bias(batches[0], torch.eye(2, dtype=torch.float64), kind) > 0).double().mean()
    assert 0.2 < on_both_sides < 0.8
