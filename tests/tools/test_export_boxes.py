"""Programs of one-stage detectors find what the student finds, on any canvas, in any number of images."""

import pytest
import torch
from PIL import Image
from small_programs import assert_same, canvases, found_by, programs_of, student_of
from small_students import pixels

from export.card import about_of
from export.facts import Facts
from export.usage import usage

FACTS = Facts("run", ["training, 1 epoch: 1 x detection"], [], "boxes", {}, "python", [], {})


@pytest.fixture(scope="module")
def retinanet(tmp_path_factory):
    """A student and its programs, where some images have no detection."""
    student = student_of("retinanet_vgg11_c5")
    noise = split_by_threshold(student, student.network.body)
    folder = tmp_path_factory.mktemp("retinanet")
    pytest.importorskip("onnxruntime")
    programs = programs_of(student, folder, "pt2", "onnx")
    return student, programs, noise, folder


@pytest.mark.parametrize("name", ["pt2", "onnx"])
def test_retinanet(retinanet, name):
    student, programs, noise, _ = retinanet
    for images, sizes in [noise, *canvases()]:
        expected = found_by(student, images, sizes)
        assert_same(programs[name](images, sizes), expected)
        assert_same(programs[name](images[:1], sizes[:1]), found_by(student, images[:1], sizes[:1]))


def test_fcos_on_squares(tmp_path):
    student = student_of("fcos_cifar_resnet8_fpn", val_crop="squash")
    (program,) = programs_of(student, tmp_path, "pt2").values()
    for count in (1, 3):
        images, sizes = pixels(count, 64), torch.tensor([[64, 64]] * count)
        expected = found_by(student, images, sizes)
        assert (expected[2] >= 0).all()  # crowded: as many as are kept
        assert_same(program(images, sizes), expected)


def test_the_python_of_a_card_finds_it_in_pixels_of_the_file(retinanet, tmp_path, monkeypatch, capsys):
    student, _, _, folder = retinanet
    about = about_of(student, FACTS)
    assert "sizes" in about["input"]
    monkeypatch.chdir(folder)
    Image.fromarray(pixels(1, 128)[0, :, :, :100].permute(1, 2, 0).numpy()).save("image.png")
    head, *blocks = [lines.replace("image.jpg", "image.png") for _, lines in usage(student, ["pt2", "onnx"])]
    assert len(blocks) == 2
    names = {}
    exec(head, names)
    images, sizes, scale = names["canvas"]("image.png")
    assert images.shape == (1, 3, 96, 64)
    assert sizes.tolist() == [[81, 64]]
    assert (sizes[0, [1, 0, 1, 0]] * scale).round().tolist() == [100, 128, 100, 128]
    expected = found_by(student, torch.from_numpy(images), torch.from_numpy(sizes))
    for block in blocks:
        # 0.5 is above all scores of such a student
        exec(block.replace("0.5", "0"), names)
        assert_same(tuple(map(torch.as_tensor, (names["boxes"], names["scores"], names["classes"]))), expected)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * expected[1].shape[1]


def split_by_threshold(student, settings):
    """Noise, dark to bright, with its sizes; ``settings`` get a lowest score by which half of it shows nothing."""
    images = pixels(6, 64) // torch.tensor([1, 2, 3, 5, 8, 13], dtype=torch.uint8).view(-1, 1, 1, 1)
    sizes = torch.tensor([[64, 64], [50, 64]] * 3)
    settings.score_thresh = 0.0
    best = found_by(student, images, sizes)[1].amax(1).sort().values
    settings.score_thresh = (best[2] + best[3]).item() / 2
    counts = (found_by(student, images, sizes)[2] >= 0).sum(1)
    assert (counts == 0).sum() == 3
    return images, sizes
