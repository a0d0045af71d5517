"""A detector's programs in files, and what they must give: what `predict` finds, on several canvases."""

import json
from pathlib import Path

import pytest
import torch
from small_detectors import SMALL, sharp
from small_students import CLASSES, pixels, student_with

from export import formats
from models.outputs import FOUND, Scene
from models.zoo import NetworkConfig

SIDES = 32, 64, 160  # canvases, from one on which maps are single cells


def student_of(name, config=SMALL, **data):
    """An untrained one with classes that differ."""
    data = {"val_crop": "short_side", "longest_side": 96, **data}
    student = student_with(NetworkConfig(name, detector=config), "detection", 64, **data)
    sharp(student.network)
    return student


def programs_of(student, folder, *names):
    """Programs by format, written and read again."""
    opened = {"pt2": formats.program_of, "onnx": formats.onnx_program_of}
    if "onnx" in names:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    paths = {name: folder / formats.FILES[name] for name in names}
    formats.write_programs(student, paths, {"names": json.dumps(CLASSES)})
    return {name: opened[name](path) for name, path in paths.items()}


def canvases():
    """Images with the sizes of what is on them: of one, three and two, with zeros beside them."""
    for number, (height, width) in enumerate(((SIDES[0], SIDES[0]), (SIDES[1], SIDES[2]), (SIDES[2], SIDES[1]))):
        count = (1, 3, 2)[number]
        images = pixels(count, SIDES[2], seed=number)[:, :, :height, :width].contiguous()
        yield images, torch.tensor([[height, width], [height - 7, width], [height, width - 31]][:count])


def found_by(student, images, sizes):
    context = student.network.predict(images, Scene(sizes, {}, torch.arange(len(images)))).context
    return tuple(context[name] for name in FOUND)


def assert_same(given, expected):
    """The same scores in order, and each detection in the other, whatever the order of equal scores."""
    (boxes, scores, classes), (others, theirs, labels) = given, expected
    assert torch.allclose(scores, theirs, atol=1e-4)
    assert torch.equal((classes >= 0).sum(1), (labels >= 0).sum(1))
    assert not boxes[classes < 0].any()
    apart = (boxes[:, :, None] - others[:, None]).abs().amax(3) / 100
    apart = torch.maximum(apart, (scores[:, :, None] - theirs[:, None]).abs())
    apart = torch.where(classes[:, :, None] == labels[:, None], apart, torch.inf)
    assert apart.amin(2).max() < 1e-4
    assert apart.amin(1).max() < 1e-4


def assert_without_paths(folder):
    """No file names a path of this machine."""
    for file in folder.iterdir():
        assert str(Path(__file__).parents[1]).encode() not in file.read_bytes()
