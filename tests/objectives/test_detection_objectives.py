"""Objectives of detectors: by hand, beside torchvision's, and on batches with nothing to compare."""

import math

import pytest
import slow_features as slow
import torch
from feature_cases import BOXES, CANVAS, CLASSES, LEARNED
from small_tensors import numbers, row, tensor
from torch import nn
from torch.nn import functional as F
from torchvision import ops

import objectives
from objectives.boxes import box_regression, detection
from objectives.crosskd import crosskd, generalized_iou
from objectives.fgd import Fgd, regions
from objectives.levels import Cwd, Mgd, pkd
from objectives.logits import dkd, kd
from objectives.lshfm import LshfmWindows
from objectives.reviewkd import ReviewKDLevels


def test_the_detectors_own_losses_together_and_apart():
    losses = tensor(1, 2, 4, 8, 16)
    assert detection(losses).item() == 31
    parts = ("classes", "boxes", "centerness", "objectness", "proposals")
    assert [detection(losses, part=part).item() for part in parts] == losses.tolist()
    with pytest.raises(ValueError, match="part=mask: all, or one of classes, boxes, centerness, objectness, proposals"):
        detection(losses, part="mask")


def test_pkd_by_hand():
    # (1, 2, 3) and (2, 4, 6) correlate by 1, (1, 2, 3) and (1, 3, 2) by a half; one minus their mean.
    student, teacher = torch.cat([row(1, 2, 3), row(1, 2, 3)], 1), torch.cat([row(2, 4, 6), row(1, 3, 2)], 1)
    assert pkd([student], [teacher]).item() == pytest.approx(0.25)
    assert pkd([student, -student], [student, student]).item() == pytest.approx(2)  # levels are summed


def test_pkd_resizes_the_student_and_refuses_other_channels():
    student, teacher = numbers(2, 3, 4, 6), numbers(2, 3, 8, 12, seed=1)
    larger = F.interpolate(student, (8, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(pkd([student], [teacher]), pkd([larger], [teacher]))
    with pytest.raises(ValueError, match=r"pkd compares levels of equal channels, not \[\(3, 4\)\]"):
        pkd([student], [numbers(2, 4, 4, 6)])


def test_cwd_by_hand():
    # Shares of 1/2 and 1/2 from 3/4 and 1/4 at T = 2: ln 2 - 3/4 ln 3 ... from the teacher's side, times T^2.
    student, teacher = row(0, 0), 2 * row(3, 1).log()
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    module = Cwd([student], [teacher], temperature=2.0)
    assert module([student], [teacher]).item() == pytest.approx(expected)
    assert module([teacher + 5], [teacher]).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("masked", [0.0, 0.4, 1.0])
def test_mgd_makes_the_teachers_maps_of_what_is_left(masked):
    student, teacher = [numbers(2, 3, 4, 6), numbers(2, 3, 2, 3)], [numbers(2, 3, 4, 6, seed=2), numbers(2, 3, 2, 3)]
    module = Mgd(student, teacher, masked=masked).double()
    weights = {name: value.numpy() for name, value in module.state_dict().items()}
    torch.manual_seed(3)
    kept = [(torch.rand(len(x), 1, *x.shape[2:], dtype=x.dtype) >= masked).numpy() for x in student]
    assert masked not in (0, 1) or all(one.all() or not one.any() for one in kept)
    torch.manual_seed(3)
    value = module(student, teacher)
    expected = slow.mgd([x.numpy() for x in student], [x.numpy() for x in teacher], weights, kept)
    assert value.item() == pytest.approx(expected)
    torch.manual_seed(3)
    assert torch.equal(module(student, teacher), value)  # the same again, from the same seed
    assert masked in (0, 1) or not torch.equal(module(student, teacher), value)


def test_fgd_knows_where_objects_are_on_maps_that_are_not_square():
    # 8 pixels a location. The first box touches rows 1 and 2, columns 0 to 3; the second column 3 of row 0 to 3 alone.
    boxes = torch.tensor([[[1.0, 10, 31, 17], [25, 0, 32, 32], [0, 0, 48, 32]]])
    inside, outside = regions([boxes[0, :2]], (32, 48), (4, 6))
    eighth, quarter = 1 / 8, 1 / 4
    expected = torch.tensor(
        [
            [0, 0, 0, quarter, 0, 0],
            [eighth, eighth, eighth, quarter, 0, 0],
            [eighth, eighth, eighth, quarter, 0, 0],
            [0, 0, 0, quarter, 0, 0],
        ]
    )
    torch.testing.assert_close(inside[0], expected)
    torch.testing.assert_close(outside[0], (expected == 0) / 14)


def test_fgd_by_hand():
    # Without attention (maps of one size everywhere) and context: squared distances, averaged inside and outside.
    student, teacher = torch.ones(1, 1, 2, 2), torch.tensor([[[[-1.0, 1], [1, 1]]]])
    options = {"foreground": 1.0, "background": 0.5, "attention": 0.0, "relation": 0.0}
    module = Fgd([student], [teacher], **options)
    scene = torch.tensor([[[0.0, 0, 8, 16]]]), torch.tensor([[3]]), torch.ones(1, 1), torch.zeros(1, 3, 16, 16)
    assert module([student], [teacher], *scene).item() == pytest.approx(4 / 2)  # inside of two locations
    scene = torch.tensor([[[8.0, 0, 16, 16]]]), *scene[1:]
    assert module([student], [teacher], *scene).item() == pytest.approx(0.5 * 4 / 2)


def test_fgd_takes_what_is_not_learned_for_background():
    maps = [[numbers(2, 3, 4, 4, seed=seed)] for seed in (0, 1)]
    module = Fgd(*maps).double()
    boxes, canvas = BOXES[:2], CANVAS[:2]
    none = module(*maps, boxes, torch.full((2, 2), -1), torch.ones(2, 2), canvas)
    for learned in (0, -1):
        ignored = module(*maps, boxes, CLASSES[:2], torch.full((2, 2), learned), canvas)
        assert torch.equal(ignored, none)
    assert not torch.equal(module(*maps, boxes, CLASSES[:2], LEARNED[:2], canvas), none)


def test_box_regression_by_hand():
    # The boxes of classes 2 and 1; the third region is background. 4 and 9 from the teacher, 1 and 4 from the truth.
    student, teacher = torch.zeros(3, 3, 4), torch.full((3, 3, 4), 50.0)
    teacher[0, 2], teacher[1, 1] = torch.tensor([2.0, 0, 0, 0]), torch.tensor([0.0, 3, 0, 0])
    labels, truth = torch.tensor([2, 1, 0]), torch.tensor([[1.0, 0, 0, 0], [0, 0, 2, 0], [7, 7, 7, 7]])
    given = student, teacher, labels, truth
    assert box_regression(*given).item() == pytest.approx((4 + 9) / 3)
    # Errors 1 and 4 beside the teacher's 1 and 13: no worse anywhere, so nothing to learn.
    assert box_regression(*given, bounded=True).item() == 0
    assert box_regression(*given, bounded=True, margin=0.5).item() == pytest.approx(1 / 3)
    assert box_regression(*given, bounded=True, margin=9.5).item() == pytest.approx((1 + 4) / 3)
    with pytest.raises(ValueError, match=r"same regions and classes, not \[3, 3, 4\] and \[3, 2, 4\]"):
        box_regression(student, teacher[:, :2], labels, truth)


@pytest.mark.parametrize("bounded", [False, True])
def test_box_regression_has_gradients_for_true_classes_alone(bounded):
    student, teacher = numbers(5, 4, 4).requires_grad_(), numbers(5, 4, 4, seed=1)
    labels, truth = torch.tensor([0, 1, 3, 3, 2]), numbers(5, 4, seed=2)
    torch.autograd.gradcheck(lambda x: box_regression(x, teacher, labels, truth, bounded=bounded, margin=0.3), student)
    (gradient,) = torch.autograd.grad(box_regression(student, teacher, labels, truth, bounded=True, margin=99), student)
    learned = gradient.abs().sum(2).nonzero().tolist()
    assert learned == [[1, 1], [2, 3], [3, 3], [4, 2]]
    none = box_regression(student[:0], teacher[:0], labels[:0], truth[:0], bounded=bounded)
    assert none.item() == 0  # no region at all
    background = box_regression(student, teacher, torch.zeros(5, dtype=torch.long), truth, bounded=bounded)
    (gradient,) = torch.autograd.grad(background, student)
    assert background.item() == 0
    assert gradient.eq(0).all()


def test_objectives_on_logits_serve_box_heads_whose_first_class_is_background():
    student, teacher, labels = numbers(6, 5), numbers(6, 5, seed=1), torch.tensor([0, 0, 4, 2, 0, 1])
    p, q = ((x.softmax(1)) for x in (student, teacher))
    of_label = torch.arange(5) == labels[:, None]
    target = torch.stack([torch.stack([x[of_label], 1 - x[of_label]], 1) for x in (p, q)])  # [2, R, 2]
    others = torch.stack([x[~of_label].view(6, 4) / (1 - x[of_label])[:, None] for x in (p, q)])
    expected = sum(weight * (b * (b / a).log()).sum(1) for weight, (a, b) in zip((1, 0.25), (target, others)))
    value = dkd(student, teacher, labels, alpha=1.0, beta=0.25, temperature=1.0)
    torch.testing.assert_close(value, expected.mean())
    torch.testing.assert_close(kd(student, teacher, temperature=1.0), (q * (q / p).log()).sum(1).mean())


def predictions(seed):
    """Logits and boxes of two images with two locations of three anchors each."""
    corner, size = 40 * numbers(2, 6, 2, seed=seed).abs(), 5 + 30 * numbers(2, 6, 2, seed=seed + 1).abs()
    return 2 * numbers(2, 6, 4, seed=seed + 2), torch.cat([corner, corner + size], 2)


USABLE, POSITIVES = torch.tensor([[True, False], [True, True]]), torch.tensor(3.0)


def test_crosskd_is_the_quality_focal_loss_and_the_generalised_iou():
    (logits, boxes), (own_logits, own_boxes) = predictions(0), predictions(5)
    p, q = (x[..., 1:].sigmoid() for x in (logits, own_logits))
    classes = ((p - q).abs() * -(q * p.log() + (1 - q) * (1 - p).log())).sum(2)
    far = q.amax(2) * ops.generalized_box_iou_loss(boxes, own_boxes)
    counts = USABLE.repeat_interleave(3, 1)
    value = crosskd(logits, boxes, own_logits, own_boxes, USABLE, POSITIVES, box_weight=1.5)
    torch.testing.assert_close(value, ((classes + 1.5 * far) * counts).sum() / 3)
    other = logits.clone()
    other[..., 0] = 99  # is no class
    assert torch.equal(crosskd(other, boxes, own_logits, own_boxes, USABLE, POSITIVES, box_weight=1.5), value)
    none = crosskd(logits, boxes, own_logits, own_boxes, USABLE, POSITIVES, box_weight=0.0)
    torch.testing.assert_close(none, (classes * counts).sum() / 3)


def test_crosskd_by_hand():
    # From 1/4 to 1/2, whose cross-entropy is (ln 4 + ln 4/3) / 2; squares moved by half a side: 1/3.
    logits, own = (torch.tensor([[[0.0, math.log(p / (1 - p))]]]) for p in (0.25, 0.5))
    moved, still = torch.tensor([[[3.0, 1.0, 7.0, 5.0]]]), torch.tensor([[[1.0, 1.0, 5.0, 5.0]]])
    usable, positives = torch.ones(1, 1, dtype=torch.bool), torch.tensor(1.0)
    classes, boxes = 0.25 * (math.log(4) + math.log(4 / 3)) / 2, 0.5 * (1 - 1 / 3)
    assert crosskd(logits, moved, own, still, usable, positives).item() == pytest.approx(classes + boxes)


def test_crosskd_is_zero_at_the_teacher_and_knows_its_gradients():
    (logits, boxes), (own_logits, own_boxes) = predictions(0), predictions(5)
    rest = USABLE, POSITIVES
    inputs = logits.requires_grad_(), boxes.requires_grad_()
    torch.autograd.gradcheck(lambda x, y: crosskd(x, y, own_logits, own_boxes, *rest), inputs)
    assert crosskd(own_logits, own_boxes, own_logits, own_boxes, *rest).item() == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match=r"same anchors and classes, not \[2, 6, 4\] .* and \[2, 3, 4\]"):
        crosskd(logits, boxes, own_logits[:, :3], own_boxes[:, :3], *rest)


@pytest.mark.parametrize("shift", [0.0, 15.0, -15.0, 40.0, -40.0])
@pytest.mark.parametrize("near", [1.0, 1e-3])
def test_crosskd_in_float32_is_as_good_as_in_float64(shift, near):
    (logits, boxes), (own_logits, own_boxes) = predictions(0), predictions(5)
    given = [own_logits + near * logits + shift, own_boxes + near * boxes, own_logits + shift, own_boxes]
    given = [x.float() for x in given]
    results = []
    for dtype in (torch.float32, torch.float64):
        x, y, *own = (one.detach().to(dtype, copy=True) for one in given)
        value = crosskd(x.requires_grad_(), y.requires_grad_(), *own, USABLE, POSITIVES)
        value.backward()
        results.append((value.double(), x.grad.double(), y.grad.double()))
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-4, atol=2e-4 * exact.abs().max().item() + 1e-37)


def test_crosskd_knows_logits_next_to_each_other():
    (logits, boxes), (own_logits, _) = predictions(0), predictions(5)
    near = (own_logits + 1e-5 * logits).float(), own_logits.float()
    values = [
        crosskd(x, boxes.to(x), y, boxes.to(x), USABLE, POSITIVES, box_weight=0.0).item()
        for x, y in (near, [one.double() for one in near])
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_crosskd_is_finite_for_boxes_of_no_area_and_sure_logits():
    usable, positives = torch.ones(1, 1, dtype=torch.bool), torch.tensor(1.0)
    places = torch.zeros(1, 2, 4), torch.tensor([[[5.0, 5, 5, 5], [9, 9, 3, 3]]]), torch.full((1, 2, 4), 1e5)
    for place in places:
        for own in (torch.zeros(1, 2, 4), torch.tensor([[[0.0, 0, 9, 9], [1, 1, 1, 8]]])):
            for sure in (0.0, 200.0, -200.0):
                logits, boxes = torch.full((1, 2, 3), sure).requires_grad_(), place.clone().requires_grad_()
                value = crosskd(logits, boxes, -logits.detach(), own, usable, positives)
                value.backward()
                assert value.isfinite()
                assert logits.grad.isfinite().all()
                assert boxes.grad.abs().max() < 1e4
    assert generalized_iou(torch.zeros(4), torch.zeros(4)).item() == 0


def test_lshfm_windows_refuses_what_it_cannot_compare():
    student, teacher = [[numbers(1, 3, size, size) for size in (4, 2)] for _ in range(2)]
    head = numbers(6, 27)
    for options, message in (
        ({"hash_distance": "none", "feature_distance": "none"}, "hash_distance and feature_distance are none"),
        ({"feature_distance": "l2_normalised"}, "feature_distance=l2_normalised: one of l2, l1, none"),
    ):
        with pytest.raises(ValueError, match=message):
            LshfmWindows(student, teacher, head, **options)
    with pytest.raises(ValueError, match=r"towers of equal channels, not of \[3, 5\]"):
        LshfmWindows(student, [numbers(1, 5, 4, 4)], head)
    with pytest.raises(ValueError, match="which have 21 locations; those that the teacher has too have 20"):
        LshfmWindows(student, teacher, head, hashes=2).double()(student, teacher, torch.ones(1, 21, dtype=torch.bool))


def test_lshfm_windows_learns_nothing_where_no_location_is_usable():
    student, teacher = [numbers(2, 3, 4, 4).requires_grad_()], [numbers(2, 3, 4, 4, seed=1)]
    module = LshfmWindows(student, teacher, numbers(6, 27), hashes=5).double()
    value = module(student, teacher, torch.zeros(2, 16, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert student[0].grad.eq(0).all()


SCENE = [BOXES[:1], CLASSES[:1], LEARNED[:1], CANVAS[:1]]
OF_LEVELS = {
    "pkd": (lambda s, t: pkd, []),
    "cwd": (Cwd, []),
    "mgd": (Mgd, []),
    "fgd": (Fgd, SCENE),
    "fgd of no objects": (Fgd, [SCENE[0], torch.full((1, 2), -1), torch.zeros(1, 2), SCENE[3]]),
    "fgd of an object everywhere": (
        Fgd,
        [torch.tensor([[[0.0, 0, 32, 32]]]), *(x[:, :1] for x in SCENE[1:3]), SCENE[3]],
    ),
    "reviewkd_levels": (ReviewKDLevels, []),
}


@pytest.mark.parametrize("name", OF_LEVELS)
def test_levels_of_one_pixel_and_float32(name):
    make, scene = OF_LEVELS[name]
    smallest = 2 if name == "reviewkd_levels" else 1  # which has batch norms
    for change in (lambda x: x, lambda x: 0 * x, lambda x: 0 * x + 3, lambda x: 1e4 * x):
        results = []
        for dtype in (torch.float32, torch.float64):
            maps = [
                [numbers(1, 3, size, size, seed=seed + size).to(dtype) for size in (8, smallest)] for seed in (0, 9)
            ]
            torch.manual_seed(0)
            module = make(*maps)
            module = module.to(dtype) if isinstance(module, nn.Module) else module
            student = [change(x).requires_grad_() for x in maps[0]]
            torch.manual_seed(1)
            value = module(student, maps[1], *scene) if name != "mgd" else unmasked(module)(student, maps[1])
            value.backward()
            assert value.isfinite()
            assert all(x.grad is None or x.grad.isfinite().all() for x in student)
            results.append(value.double())
        rounding = 1e-2 if name == "reviewkd_levels" else 1e-5  # batch norms enlarge that of constant maps
        torch.testing.assert_close(*results, rtol=rounding, atol=0)


def unmasked(module):
    module.masked = 0.0  # random numbers of float32 are others than those of float64
    return module


def test_gradients_of_levels_keep_the_memory_format():
    for name in ("pkd", "cwd", "mgd", "fgd"):
        make, scene = OF_LEVELS[name]
        maps = [[numbers(1, 3, size, size, seed=seed).float() for size in (8, 4)] for seed in (0, 9)]
        student, teacher = ([x.contiguous(memory_format=torch.channels_last) for x in side] for side in maps)
        module = make(student, teacher)
        if isinstance(module, nn.Module):
            module.to(memory_format=torch.channels_last)
        gradients = torch.autograd.grad(module([x.requires_grad_() for x in student], teacher, *scene), student)
        assert all(one.is_contiguous(memory_format=torch.channels_last) for one in gradients), name


def test_every_objective_of_detectors_is_found_by_its_name():
    for name in (
        "detection",
        "pkd",
        "cwd",
        "mgd",
        "fgd",
        "crosskd",
        "box_regression",
        "reviewkd_levels",
        "lshfm_windows",
    ):
        assert objectives.get(name).is_ours
