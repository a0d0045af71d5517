"""Distillation of label-wise embeddings: by hand, by a slow reference, and its laws."""

from itertools import product

import pytest
import slow_multi_label as slow
import torch
from small_tensors import numbers, tensor

from objectives.label_embeddings import label_embeddings
from objectives.relations import rkd_distance

CLASSES = 5
ONE = {"by class": {"instance_aware": 0.0}, "by image": {"class_aware": 0.0}, "both": {}}


def sample(batch=6, seed=0):
    """Student, teacher, present: the first image shows nothing, the second one everything, the third ignores one."""
    student, teacher = (numbers(batch, CLASSES, size, seed=10 * seed + size) for size in (3, 4))
    present = (numbers(batch, CLASSES, seed=seed + 5) > 0).to(torch.int8)
    present[:1], present[1:2], present[2:3, 0] = 0, 1, -1
    return student.requires_grad_(), teacher, present


def shown(count, *, by_class):
    """One class in `count` of four images, or as many classes in one image; [4, 4]."""
    present = torch.zeros(4, 4, dtype=torch.int8)
    present[:count, 1] = 1
    return present if by_class else present.T


def test_by_hand():
    # Distances 1 2 3 over 2 to 1 1 2 over 4/3: a quarter off in two pairs, that is in four places, for three vectors.
    student, teacher = (torch.zeros(4, 4, 1, dtype=torch.float64) for _ in range(2))
    student[:3, 1, 0], teacher[:3, 1, 0] = torch.tensor([0.0, 1, 3]), torch.tensor([0.0, 1, 2])
    value = label_embeddings(student, teacher, shown(3, by_class=True), class_aware=2.0)
    assert value.item() == pytest.approx(2 * 4 / 32 / 3)
    transposed = student.transpose(0, 1), teacher.transpose(0, 1), shown(3, by_class=False)
    assert label_embeddings(*transposed, instance_aware=5.0).item() == pytest.approx(5 * 4 / 32 / 3)


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("which", ONE)
def test_against_the_slow_reference(which, batch):
    given = sample(batch, seed=batch)
    expected = slow.label_embeddings(*(x.tolist() for x in given), **ONE[which])
    assert label_embeddings(*given, **ONE[which]).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_every_pattern_of_three_images_and_three_classes_against_the_slow_reference():
    student, teacher = numbers(3, 3, 2), numbers(3, 3, 2, seed=1)
    for row in product((0, 1), repeat=9):
        present = torch.tensor(row, dtype=torch.int8).view(3, 3)
        expected = slow.label_embeddings(student.tolist(), teacher.tolist(), present.tolist())
        assert label_embeddings(student, teacher, present).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_it_is_the_relational_distance_of_every_class_and_of_every_image():
    student, teacher, present = sample()
    groups = [("by class", student[:, c], teacher[:, c], present[:, c]) for c in range(CLASSES)]
    groups += [("by image", student[i], teacher[i], present[i]) for i in range(len(student))]
    for which in ("by class", "by image"):
        parts = [(s[y != 0], t[y != 0]) for name, s, t, y in groups if name == which]
        value = sum(rkd_distance(*part, reduction="batchmean") for part in parts if len(part[0]) > 1)
        weight = {"by class": 100, "by image": 1000}[which]
        torch.testing.assert_close(label_embeddings(student, teacher, present, **ONE[which]), weight * value)


def rotation(size):
    return torch.linalg.qr(numbers(size, size, seed=9))[0]


ORDER, COLUMNS = torch.tensor([3, 1, 5, 0, 2, 4]), torch.tensor([2, 0, 4, 1, 3])
CHANGES = {
    "samples in another order": lambda *x: [one[ORDER] for one in x],
    "classes in another order": lambda *x: [one[:, COLUMNS] for one in x],
    "present for ignored": lambda s, t, y: (s, t, y.abs()),
    "a rotation of the student": lambda s, t, y: (s @ rotation(3), t, y),
    "a rotation of the teacher": lambda s, t, y: (s, t @ rotation(4), y),
    "a move of the student": lambda s, t, y: (s + 3, t, y),
    "the student times a number": lambda s, t, y: (7 * s, t, y),
    "the teacher times a number": lambda s, t, y: (s, t / 7, y),
    "other embeddings of absent classes": lambda s, t, y: (
        s + 50 * (y == 0)[:, :, None],
        t - 9 * (y == 0)[:, :, None],
        y,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_value_stays_with(change):
    given = sample()
    torch.testing.assert_close(label_embeddings(*CHANGES[change](*given)), label_embeddings(*given))


@pytest.mark.parametrize("by_class", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_up_to_two_embeddings_have_no_relations(count, by_class):
    student, teacher = numbers(4, 4, 3).float().requires_grad_(), numbers(4, 4, 3, seed=1).float()
    loss = label_embeddings(student, teacher, shown(count, by_class=by_class))
    loss.backward()
    assert loss.item() == 0
    assert student.grad.eq(0).all()


def test_zero_with_no_gradient_at_the_teacher():
    _, teacher, present = sample()
    student = teacher.clone().requires_grad_()
    loss = label_embeddings(student, teacher, present)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(student.grad, 0 * student, atol=1e-9, rtol=0)


@pytest.mark.parametrize("which", ONE)
def test_gradients_in_float64(which):
    student, teacher, present = sample(batch=4)
    assert torch.autograd.gradcheck(lambda s: label_embeddings(s, teacher, present, **ONE[which]), student)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_embeddings_count_as_a_distance_of_one_millionth_with_no_gradient(dtype):
    # Distances 0 1 1 to 1 1 2: over 2/3 and 4/3.
    student, teacher = (torch.zeros(4, 4, 2, dtype=torch.float64) for _ in range(2))
    student[:3, 1], teacher[:3, 1] = tensor([0.3, 0], [0.3, 0], [0.3, 1]), tensor([0, 0], [1, 0], [-1, 0])
    student, teacher, present = student.to(dtype).requires_grad_(), teacher.to(dtype), shown(3, by_class=True)
    loss = label_embeddings(student, teacher, present)
    loss.backward()
    near = 1.5e-6  # the distance over its mean
    offs = [0.75 - near, 0.75, 0]
    expected = slow.label_embeddings(student.tolist(), teacher.tolist(), present.tolist())
    assert loss.item() == pytest.approx(100 * sum(off**2 for off in offs) / 3, rel=1e-5)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert student.grad[:, :, 0].abs().max() < 1e-4  # along the line between the equal ones there is nothing
    assert student.grad.isfinite().all()


EXTREMES = {
    "all equal": lambda s, t: (s[:1, :1].expand_as(s), t),
    "the teacher all equal": lambda s, t: (s, t[:1, :1].expand_as(t)),
    "zero": lambda s, t: (0 * s, 0 * t),
    "large": lambda s, t: (1e4 * s, 1e4 * t),
    "small": lambda s, t: (1e-4 * s, 1e-4 * t),
    "far away": lambda s, t: (s + 1e4, t),
}


@pytest.mark.parametrize("value", [None, 0, 1, -1])
@pytest.mark.parametrize("which", EXTREMES)
def test_extremes_give_finite_values_and_gradients(which, value):
    student, teacher, present = sample()
    if value is not None:
        present = torch.full_like(present, value)
    student, teacher = (x.detach().float() for x in EXTREMES[which](student, teacher))
    student.requires_grad_()
    loss = label_embeddings(student, teacher, present)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_no_value_is_waited_for():
    """Tensors without values would raise."""
    student, teacher, present = (x.detach().to("meta") for x in sample())
    label_embeddings(student.requires_grad_(), teacher, present).backward()
    assert student.grad.shape == student.shape


@pytest.mark.parametrize("apart", [0.0, 30.0])
def test_float32_is_as_good_as_float64(apart):
    student, teacher, present = (x.detach() for x in sample(batch=16))
    given = [(x + apart).float() for x in (student, teacher)]
    results = []
    for dtype in (torch.float32, torch.float64):
        leaf = given[0].to(dtype, copy=True).requires_grad_()
        loss = label_embeddings(leaf, given[1].to(dtype), present)
        results.append((loss.item(), torch.autograd.grad(loss, leaf)[0].double()))
    (single, single_gradient), (double, double_gradient) = results
    assert single == pytest.approx(double, rel=1e-5)
    assert (single_gradient - double_gradient).abs().max() <= 1e-4 * double_gradient.abs().max()
