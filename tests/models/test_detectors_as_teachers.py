"""What detectors give as teachers, and what is not computed."""

import copy
from dataclasses import replace

import pytest
import torch
from small_detectors import (
    ALL,
    POINTS,
    RETINA,
    SIDE,
    SMALL,
    TWO,
    K,
    looks,
    network_of,
    pixels,
    scene_of,
    sharp,
)

from models.outputs import FOUND
from utils.errors import UsageError


def test_a_teacher_looks_at_the_regions_of_its_student_and_proposes_none(monkeypatch):
    student = network_of(TWO, ["pooled"]).train()
    teacher = network_of(TWO, ["pooled", "logits"], seed=5).eval()
    images = pixels()
    scene = scene_of(images)
    given = looks(student, images, scene)
    monkeypatch.setattr(teacher.body.rpn.head, "forward", None)
    taught = looks(teacher, images, replace(scene, student=given))
    assert torch.equal(taught.context["regions"], given.context["regions"])
    assert taught.logits.shape == given.logits.shape == (len(given.context["labels"]), K + 1)
    assert taught.features["pooled"].shape == given.features["pooled"].shape == (len(given.logits), 32)
    assert taught.context["head_weight"].shape == (K + 1, 32)
    itself = looks(copy.deepcopy(student).eval(), images, replace(scene, student=given))
    assert itself.logits.shape == given.logits.shape


@pytest.mark.parametrize("name", ALL)
def test_what_is_not_read_is_not_computed(name):
    teacher = network_of(name, ["fpn*"]).eval()
    images = pixels()
    calls = []
    for path, module in teacher.body.named_modules():
        if path.startswith(("rpn", "roi_heads", "head")):
            module.register_forward_hook(lambda *_, path=path: calls.append(path))
    student = looks(network_of(POINTS).train(), images, scene_of(images))
    outputs = looks(teacher, images, replace(scene_of(images), student=student))
    assert not calls
    assert outputs.logits.shape == (0,)
    assert set(outputs.features) == {f"fpn{level}" for level in teacher.body.backbone.levels}
    stages = network_of(name, ["stage2"]).eval()
    stages.body.backbone.fpn.register_forward_hook(lambda *_: calls.append("fpn"))
    assert set(looks(stages, images, replace(scene_of(images), student=student)).features) == {"stage2"}
    assert not calls


@pytest.mark.parametrize("name", ALL)
def test_what_a_teacher_finds_beside_what_it_is_read_for_is_what_it_predicts(name):
    """Of images of different sizes, in training batches as in validation."""
    images, sizes = pixels(), torch.tensor([[SIDE, SIDE - 10], [40, SIDE]])
    alone = sharp(network_of(name, seed=5)).eval()
    predicted = alone.predict(images, replace(scene_of(images, sizes=sizes), targets={})).context
    assert (predicted["classes"] >= 0).any()
    student = looks(network_of(name, ["pooled"] if name == TWO else ["cross_tower*"]), images, scene_of(images))
    beside = ["pooled", "logits"] if name == TWO else ["cross_logits", "logits"]
    for reads in ([], ["fpn*"], beside):
        teacher = network_of(name, [*FOUND, *reads]).eval()
        teacher.load_state_dict(alone.state_dict())
        taught = looks(teacher, images, replace(scene_of(images, sizes=sizes), student=student))
        for one in FOUND:
            assert torch.equal(taught.context[one], predicted[one]), reads
    without = network_of(name, beside).eval()
    without.load_state_dict(alone.state_dict())
    given = looks(without, images, replace(scene_of(images, sizes=sizes), student=student))
    assert torch.equal(taught.logits, given.logits)
    read = "regions" if name == TWO else "cross_logits"
    assert torch.equal(taught.context[read], given.context[read])


def test_a_two_stage_teacher_of_a_student_without_regions_is_refused():
    images = pixels()
    student = looks(network_of(RETINA).train(), images, scene_of(images))
    with pytest.raises(UsageError, match=r"looks at the regions of its student, which has none.*fpn"):
        looks(network_of(TWO, ["pooled"]).eval(), images, replace(scene_of(images), student=student))


@pytest.mark.parametrize("name", [RETINA, POINTS])
def test_crosskd_runs_the_rest_of_the_teachers_towers_on_the_students_maps(name):
    student = sharp(network_of(name, ["cross_tower*", "cross_box_tower*", "tower*"])).train()
    teacher = sharp(network_of(name, ["cross_logits", "cross_boxes", "logits", "dense_boxes"], seed=3)).eval()
    teacher.requires_grad_(False)
    images = pixels()
    given = looks(student, images, scene_of(images))
    with torch.no_grad():
        taught = looks(teacher, images, replace(scene_of(images), student=given))
    assert taught.context["cross_logits"].shape == given.logits.shape == taught.logits.shape
    assert taught.context["cross_boxes"].shape == taught.context["dense_boxes"].shape == (*given.logits.shape[:2], 4)
    (taught.context["cross_logits"].square().sum() + taught.context["cross_boxes"].square().sum()).backward()
    touched = {key for key, one in student.named_parameters() if one.grad is not None}
    assert "body.backbone.body.conv1.weight" in touched
    assert not any("cls_logits" in key or "bbox_reg" in key for key in touched)
    # the same head on the same maps gives what it gives by itself
    again = network_of(name, ["cross_logits", "cross_boxes", "dense_boxes"]).eval()
    again.load_state_dict(student.state_dict())
    same = looks(again, images, replace(scene_of(images), student=looks(student.eval(), images, scene_of(images))))
    torch.testing.assert_close(same.context["cross_logits"], same.logits)
    torch.testing.assert_close(same.context["cross_boxes"], same.context["dense_boxes"])


@pytest.mark.parametrize(("name", "convolutions"), [(RETINA, 3), (POINTS, 2)])
def test_after_how_many_convolutions_crosskd_crosses(name, convolutions):
    """As in its authors' files."""
    network = network_of(name, ["cross_tower*", "fpn*"]).eval()
    given = looks(network, pixels(), scene_of(pixels())).features
    level = network.body.backbone.levels[0]
    tower = network.body.head.classification_head.conv
    maps = tower[: len(tower) * convolutions // 4](given[f"fpn{level}"])
    torch.testing.assert_close(given[f"cross_tower{level}"], maps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": replace(SMALL, channels=64)}, "64 channels, the student's 32"),
        ({"classes": ("a", "b")}, "and 2 classes, the student's"),
    ],
)
def test_crosskd_says_what_differs(options, message):
    images = pixels()
    student = looks(network_of(RETINA, ["cross_tower*"]).train(), images, scene_of(images))
    teacher = network_of(RETINA, ["cross_logits"], **options).eval()
    with pytest.raises(UsageError, match=message):
        looks(teacher, images, replace(scene_of(images), student=student))
    bare = looks(network_of(RETINA).train(), images, scene_of(images))
    with pytest.raises(UsageError, match="gives no cross_tower1"):
        looks(teacher, images, replace(scene_of(images), student=bare))
