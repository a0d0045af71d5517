"""Programs of two-stage detectors find what the student finds, and what finds something else is refused."""

import pytest
import small_detection
import torch
from small_programs import assert_same, assert_without_paths, canvases, found_by, programs_of, student_of
from small_students import pixels

import tools.export as tool
from export.check import compare, refused, rows_of, validation_split
from models.outputs import Outputs


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    """A student with a data set of rectangles, and its programs."""
    data = small_detection.write_data(tmp_path_factory.mktemp("rectangles"))
    student = student_of("fasterrcnn_cifar_resnet8_fpn", data_path=str(data / "lmdb"), val_batch_size=3, num_workers=0)
    folder = tmp_path_factory.mktemp("programs")
    return student, programs_of(student, folder, "pt2")["pt2"], folder


def test_faster_r_cnn(regions):
    student, program, _ = regions
    empty = pixels(2, 64), torch.tensor([[0, 0], [64, 50]])  # the first has no region to look at
    assert (found_by(student, *empty)[2] >= 0).sum(1).tolist() == [0, 20]
    for images, sizes in [empty, *canvases()]:
        assert_same(program(images, sizes), found_by(student, images, sizes))


def test_no_path_of_this_machine_is_in_a_program(regions):
    assert_without_paths(regions[2])


def test_programs_are_compared_box_by_box_on_real_canvases(regions):
    student, _, folder = regions
    forms = tool.forms_of(student, ["pt2"], folder)
    checked = compare(student, forms, validation_split(student, None))
    assert [one.name for one in checked.compared[1:]] == ["model.safetensors", "model.pt2"]
    assert refused(checked, "AP", None) == {}
    assert checked.compared[2].found > 100
    assert rows_of(checked, "AP", None)[0] == ["form", "largest difference", "others", "AP"]


SPOILED = {
    "boxes": lambda boxes, scores, classes: (boxes + 1, scores, classes),
    "scores": lambda boxes, scores, classes: (boxes, scores * 0.99, classes),
    "classes": lambda boxes, scores, classes: (boxes, scores, (classes + 1) % 5),
    "fewer": lambda boxes, scores, classes: (boxes, scores, torch.cat([classes[:, 1:], -(classes[:, :1] ** 0)], 1)),
    "nan": lambda boxes, scores, classes: (boxes * torch.nan, scores, classes),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_what_finds_something_else_is_refused_by_name(regions, kind):
    student, _, _ = regions

    def look(images, scene):
        context = student.network.predict(images, scene).context
        found = SPOILED[kind](context["boxes"], context["scores"], context["classes"])
        return Outputs(images.new_empty(0), {}, dict(zip(("boxes", "scores", "classes"), found)))

    checked = compare(student, {"model.pt2": look}, validation_split(student, None))
    assert "detections are in one of both alone" in refused(checked, "AP", None)["model.pt2"]
