"""What objectives keep and learn from step to step: CRD's memory, LSHFM's biases, OFD's margins, VID's variances.

And what the papers claim of features beyond the invariances of test_feature_objectives.py.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from objectives import maps, ofd
from objectives.ab import Ab
from objectives.crd import Crd
from objectives.lshfm import Lshfm, hash_bias
from objectives.ofd import Ofd
from objectives.projected import Ickd
from objectives.vid import Vid


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


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


def test_ofd_measures_the_mean_of_all_negative_responses_in_training_only():
    batches = [numbers(3, 2, 2, 2, seed=seed) for seed in range(3)]
    module = Ofd([batches[0]], [batches[0]], [None]).double()
    for batch in batches[:2]:
        module([batch], [batch])
    module.eval()([batches[2]], [batches[2]])
    seen = torch.cat(batches[:2])
    expected = torch.stack([seen[:, c][seen[:, c] < 0].mean() for c in range(2)])
    torch.testing.assert_close(module.get_buffer("margin0"), expected)


def test_ofd_does_not_see_how_far_the_teacher_is_below_the_margin_nor_the_student_below_both():
    margin = torch.tensor([-1.0, -0.5], dtype=torch.float64)
    student, teacher = 2 * numbers(4, 2, 3, 3), 2 * numbers(4, 2, 3, 3, seed=1)
    below = teacher < margin.view(-1, 1, 1)
    value = ofd.partial_l2(student, teacher, margin)
    torch.testing.assert_close(ofd.partial_l2(student, torch.where(below, 9 * teacher, teacher), margin), value)
    target = teacher.maximum(margin.view(-1, 1, 1))
    fine = (target <= 0) & (student <= target)
    assert fine.any()
    torch.testing.assert_close(ofd.partial_l2(torch.where(fine, student - 5, student), teacher, margin), value)


def test_ab_is_zero_where_every_neuron_is_beyond_the_boundary_on_the_teachers_side():
    teacher = numbers(3, 2, 4, 4)
    module = Ab([teacher], [teacher], margin=2.0)
    student = (teacher.sign() * (2 + teacher.abs())).requires_grad_()
    value = module([student], [teacher])
    value.backward()
    assert value.item() == 0
    assert student.grad.eq(0).all()
    assert module([-student], [teacher]).item() > 0


def test_vid_is_least_where_the_variances_are_those_of_the_residuals():
    student, teacher = numbers(4, 3, 2, 2), numbers(4, 2, 2, 2, seed=1)
    module = Vid([student], [teacher]).double()
    variance = (module.means[0](student) - teacher).square().mean((0, 2, 3)).detach()
    module.scales[0].data = (variance - 1e-5).expm1().log()
    (gradient,) = torch.autograd.grad(module([student], [teacher]), module.scales[0])
    torch.testing.assert_close(gradient, torch.zeros(2, dtype=torch.float64))
    best = module([student], [teacher]).item()
    assert best == pytest.approx((1 + variance.log().mean().item()) / 2)  # the entropy, less its constant
    for away in (-0.3, 0.3):
        module.scales[0].data += away
        assert module([student], [teacher]).item() > best
        module.scales[0].data -= away


def test_nst_is_the_squared_distance_of_the_pixels_gram_matrices():
    # Huang and Wang, section 4.1: with this kernel it is the style loss of Gatys et al.
    student, teacher = numbers(3, 5, 2, 2), numbers(3, 4, 2, 2, seed=1)
    s, t = (F.normalize(x.flatten(2), dim=2) for x in (student, teacher))
    grams = s.mT @ s / 5 - t.mT @ t / 4  # [B, H W, H W]
    torch.testing.assert_close(maps.nst([student], [teacher]), grams.square().sum((1, 2)).mean())


def test_ickd_by_hand():
    # After the batch norm the student's channels are (-1, 1) and (1, -1): rows (1, -1) / sqrt 2. The teacher's are
    # apart, rows (1, 0) and (0, 1): 2 (3/2 - sqrt 2) + 2 / 2, over two channels.
    student, teacher = (torch.tensor(x, dtype=torch.float64).view(1, 2, 1, 2) for x in ([1, 3, 5, 1], [4, 0, 0, 2]))
    module = Ickd(student, teacher).double()
    module.connector[0].weight.data = torch.eye(2, dtype=torch.float64).view(2, 2, 1, 1)
    assert module(student, teacher).item() == pytest.approx(2 - math.sqrt(2), rel=1e-4)
