"""Every head, and every kind of network, leaves a run as one network that others load."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_students import CLASSES, pixels, student_with

from export import formats
from export.card import about_of
from export.facts import Facts
from export.student import WEIGHTS, built, student_of
from export.usage import usage
from models.heads import HeadConfig
from models.zoo import NetworkConfig

HEADS = {  # network, options, task
    "embedding": ("cifar_resnet8", {"dimensions": 9}, "single_label"),
    "reused": ("cifar_resnet8", {}, "single_label"),
    "pooling": ("cifar_resnet8", {"kind": "max", "dimensions": 5}, "multi_label"),
    "label_embeddings": ("cifar_resnet8", {"dimensions": 8, "heads": 2, "width": 16}, "multi_label"),
    "own": ("timm/repvgg_a0", {}, "single_label"),
    "own, read for its features": ("cifar_resnet8", {}, "features"),
}
PROGRAMS = ("reused", "label_embeddings", "own, read for its features")  # the others are these in fewer layers
FACTS = Facts("run", ["training, 1 epoch: 1 x detection"], [], "boxes", {}, "python", [], {})


@pytest.mark.parametrize("head", HEADS)
def test_heads_and_branches_leave_as_one_network(head, tmp_path):
    name, options, task = HEADS[head]
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    student = student_with(NetworkConfig(name, head=HeadConfig(head.partition(",")[0], options)), task)
    formats.write_weights(student, tmp_path / WEIGHTS, {})
    exported = built(tmp_path, student.settings, str(tmp_path / WEIGHTS), CLASSES)
    names = exported.network.network.state_dict().keys()
    assert not [one for one in names if ".embedding." in one or "conv_kxk" in one]
    images = pixels(3, 32)
    expected = student.network.predict(images).read(student.output)
    assert_alike(exported.network.predict(images).read(student.output), expected)
    if head in PROGRAMS:
        formats.write_programs(exported, {"pt2": tmp_path / "model.pt2"}, {})
        program = formats.program_of(tmp_path / "model.pt2")
        assert_alike(program(images), expected)
        assert_alike(program(images[:1]), expected[:1])


def assert_alike(given, expected):
    assert (given - expected).abs().max() < 1e-4 * expected.abs().max()


def test_torchvision_loads_a_detector_by_the_lines_of_its_card(tmp_path, monkeypatch, capsys):
    network = NetworkConfig("fasterrcnn_mobilenet_v3_large_320_fpn")
    student = student_with(network, "detection", 64, val_crop="short_side", longest_side=96)
    with torch.no_grad():
        student.network.classifier.weight.normal_(0, 0.5)
    formats.write_weights(student, tmp_path / WEIGHTS, about_of(student, FACTS))
    exported = student_of(tmp_path)
    ((_, lines),) = usage(exported, ["safetensors"])
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels(1, 64)[0].permute(1, 2, 0).numpy()).save("image.jpg", quality=95)
    names = {}
    exec(lines, names)
    assert len(names["found"]["scores"]) > 0
    shown = torch.from_numpy(np.array(Image.open("image.jpg")).transpose(2, 0, 1)[None])
    ours = exported.network.predict(shown).context
    count = len(names["found"]["scores"])
    assert torch.allclose(ours["scores"][0, :count], names["found"]["scores"], atol=1e-5)
    assert torch.allclose(ours["boxes"][0, :count], names["found"]["boxes"], atol=1e-2)
