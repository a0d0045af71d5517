"""A teacher's boxes in place of the truth: the detector's own losses on other targets, by hand and of each detector."""

from dataclasses import replace

import pytest
import torch
from small_detectors import ALL, BOXES, CLASSES, TWO, looks, network_of, pixels, scene_of, sharp

import objectives
from objectives.pseudo_boxes import pseudo_boxes

TRUTH = ((1, 1, 1), (1, 1, 0))  # which boxes are objects
SURE = torch.tensor(TRUTH, dtype=torch.float32)  # scores


def learning(name, reads=("losses", "losses_on")):
    """A student and what it gives for two images, whose losses are on `TRUTH`."""
    network = network_of(name, reads).train()
    return network, looks(network, pixels(), scene_of(pixels()))


def slopes(network, value):
    """The gradient of all parameters, 0 where there is none."""
    parameters = [*network.parameters()]
    given = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, given)])


def test_what_is_learned_from_by_hand():
    given = {}

    def losses(targets):
        given.update(targets)
        return torch.tensor([1.0, 2, 4, 8, 16])

    boxes, classes = torch.tensor([[[0.0, 0, 9, 9]]]).expand(1, 4, 4), torch.tensor([[2, 0, 1, -1]])
    scores = torch.tensor([[0.95, 0.9, 0.89, 0.99]])  # the last is none
    assert pseudo_boxes(losses, boxes, scores, classes).item() == 31
    assert given["learned"].tolist() == [[1, 1, 0, 0]]
    assert given["boxes"] is boxes
    assert given["classes"] is classes
    pseudo_boxes(losses, boxes, scores, classes, least_score=0.0)
    assert given["learned"].tolist() == [[1, 1, 1, 0]]


def test_it_asks_for_losses_and_for_what_is_found():
    entry = objectives.get("pseudo_boxes")
    assert entry.needs_teacher
    assert entry.asks("student") == {"losses_on"}
    assert entry.asks("teacher") == {"boxes", "scores", "classes"}
    assert not entry.features("student") | entry.features("teacher")
    assert entry.options["least_score"].default == 0.9


@pytest.mark.parametrize("name", ALL)
def test_a_teacher_that_finds_the_truth_teaches_what_the_truth_does(name):
    network, given = learning(name)
    own, taught = given.context["losses"].sum(), pseudo_boxes(given.losses_on, BOXES, SURE, CLASSES)
    assert torch.equal(taught, own)
    assert torch.equal(slopes(network, taught), slopes(network, own))
    half = pseudo_boxes(given.losses_on, BOXES, 0.5 * SURE, CLASSES, least_score=0.5)
    assert torch.equal(half, own)


@pytest.mark.parametrize("name", ALL)
def test_what_is_below_the_threshold_is_background(name):
    network, given = learning(name)
    sure = SURE.clone()
    sure[0, 1] = 0.8
    without = looks(network, pixels(), scene_of(pixels(), learned=((1, 0, 1), (1, 1, 0))))
    taught = pseudo_boxes(given.losses_on, BOXES, sure, CLASSES)
    assert torch.equal(taught, without.context["losses"].sum())
    assert not torch.equal(taught, given.context["losses"].sum())


@pytest.mark.parametrize("name", ALL)
def test_where_nothing_is_found_there_is_background_alone(name):
    network, given = learning(name)
    for boxes, scores, classes in ((BOXES, 0 * SURE, CLASSES), (BOXES[:, :0], SURE[:, :0], CLASSES[:, :0])):
        losses = given.losses_on({"boxes": boxes, "classes": classes, "learned": (scores > 0).to(torch.int8)})
        assert losses[1] == losses[2] == losses[4] == 0  # boxes, centerness, proposals
        assert losses[0] > 0
        gradient = slopes(network, pseudo_boxes(given.losses_on, boxes, scores, classes))
        assert gradient.isfinite().all()
        assert gradient.any()


@pytest.mark.parametrize("name", ALL)
def test_boxes_without_area_are_background(name):
    network, given = learning(name)
    flat = BOXES.clone()
    flat[0, 1, 2] = flat[0, 1, 0] + 0.5
    flat[1, 0, 3] = flat[1, 0, 1]
    without = looks(network, pixels(), scene_of(pixels(), learned=((1, 0, 1), (0, 1, 0))))
    assert torch.equal(pseudo_boxes(given.losses_on, flat, SURE, CLASSES), without.context["losses"].sum())


@pytest.mark.parametrize("name", ALL)
def test_images_without_boxes_of_their_own_are_learned_from(name):
    network, given = learning(name)
    none = looks(network, pixels(), scene_of(pixels(), learned=((0, 0, 0), (0, 0, 0))))
    torch.testing.assert_close(
        pseudo_boxes(none.losses_on, BOXES, SURE, CLASSES), given.context["losses"].sum(), rtol=1e-6, atol=0
    )


def test_the_box_head_looks_at_no_regions_of_the_truth_where_nothing_reads_these():
    network = network_of(TWO, ["losses_on", "fpn*"]).train()
    calls = []
    network.body.roi_heads.box_head.register_forward_hook(lambda *_: calls.append(1))
    given = looks(network, pixels(), scene_of(pixels()))
    assert not calls
    assert given.logits.shape == (0,)
    assert "fpn0" in given.features
    _, both = learning(TWO)
    assert torch.equal(pseudo_boxes(given.losses_on, BOXES, SURE, CLASSES), both.context["losses"].sum())
    assert len(calls) == 1


@pytest.mark.parametrize("name", ALL)
def test_losses_on_other_targets_have_the_precision_of_the_pass(name):
    network = network_of(name, ["losses", "losses_on"]).train()
    with torch.autocast("cpu", torch.bfloat16):
        given = looks(network, pixels(), scene_of(pixels()))
        with torch.autocast("cpu", enabled=False):
            taught = pseudo_boxes(given.losses_on, BOXES, SURE, CLASSES)
    assert torch.equal(taught, given.context["losses"].sum())


@pytest.mark.parametrize("teacher", ALL)
@pytest.mark.parametrize("student", ALL)
def test_boxes_pass_between_detectors_of_any_kind(student, teacher):
    images = pixels()
    finding = sharp(network_of(teacher, ["boxes", "scores", "classes"], seed=3)).eval()
    network, given = learning(student)
    with torch.no_grad():
        found = looks(finding, images, replace(scene_of(images), student=given))
    value = pseudo_boxes(
        given.losses_on, *(found.context[one] for one in ("boxes", "scores", "classes")), least_score=0.3
    )
    assert value.isfinite()
    assert slopes(network, value).isfinite().all()
    assert not found.context["scores"].requires_grad
