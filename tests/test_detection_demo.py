"""The demo of detectors from end to end, on a few canvases and for an epoch."""

import gc
import importlib
import json
import runpy
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from demo import canvases, detection


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The demo in this process, in a folder of its own; it gives the commands that were run."""
    commands = []

    def run_tool(*command):
        commands.append(command)
        script, *flags = (word for word in command if word not in ("-m", "--at_a_time", "2"))  # all in this process
        short = {"train_with_distillation.py": ["*.epochs=1"], "figures.detections": []}
        monkeypatch.setattr(sys, "argv", [script, *flags, *short.get(script, ["--num_workers", "1"])])
        if script.endswith(".py"):
            runpy.run_path(script, run_name="__main__")
        else:
            importlib.import_module(script).main()
        gc.collect()  # shards that were open

    monkeypatch.setattr(detection, "WORK", tmp_path)
    monkeypatch.setattr(detection, "SEEDS", (0,))
    monkeypatch.setattr(detection, "SINGLES", {"train": 25, "val": 5})
    monkeypatch.setattr(detection, "CANVASES", {"train": 16, "val": 9})  # too few to judge a teacher by
    monkeypatch.setattr(detection, "run_tool", run_tool)
    return commands


def test_it_draws_packs_trains_and_compares_and_does_not_repeat(small, tmp_path, capfd):
    detection.main()
    table = capfd.readouterr().out.partition("last epoch")[2]
    for title in detection.ROWS:
        scores = table.partition(f"  {title} ")[2].splitlines()[0].split()
        assert [0 <= float(score) <= 100 for score in scores] == [True] * 2, title
    assert (tmp_path / "curves.png").exists()
    assert (tmp_path / "detections.png").exists()
    runs = tmp_path / "runs"
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/student.safetensors")}
    assert len(before) == len(detection.ROWS) + 2
    detection.run_tool(*small[-2])
    assert capfd.readouterr().out.count(": trained before") == len(before) - 1
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_folder_is_laid_out_as_coco_s_is(small, tmp_path):
    detection.write_coco(tmp_path)
    values = json.loads((tmp_path / "annotations" / "instances_val2017.json").read_text())
    drawn = [digits for _, digits in canvases.canvases(detection.SEVERAL, "val", 9)]
    assert sorted(path.name for path in (tmp_path / "val2017").iterdir()) == [
        image["file_name"] for image in values["images"]
    ]
    of_image = [[] for _ in drawn]
    for one in values["annotations"]:
        x, y, width, height = one["bbox"]
        assert one["area"] == pytest.approx(width * height)
        of_image[one["image_id"]].append((one["category_id"], (x, y, x + width, y + height)))
    for found, digits in zip(of_image, drawn, strict=True):
        for (label, box), digit in zip(found, digits, strict=True):
            assert (label, box) == (digit.label, pytest.approx(digit.box))


def test_a_canvas_shows_digits_in_their_boxes_without_much_overlap():
    digits, rng = load_digits(), np.random.default_rng(0)
    kind = canvases.Kind(40, 4, 4)
    canvas, drawn = canvases.draw_canvas(digits.images[:4], digits.target[:4], kind, rng)
    assert (canvas.shape, canvas.dtype) == ((40, 40), np.uint8)
    assert [digit.label for digit in drawn] == [0, 1, 2, 3]
    for number in range(10):
        canvas, [digit] = canvases.draw_canvas(
            digits.images[number : number + 1], digits.target[number : number + 1], kind, rng
        )
        assert digit.label == number
        rows, columns = np.nonzero(canvas > canvas.max() / 3)
        edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert np.abs(np.subtract(digit.box, edges)).max() < 1.5  # of a pixel
        assert max(digit.box[2] - digit.box[0], digit.box[3] - digit.box[1]) <= kind.sizes[1]
    crowded = canvases.Kind(16, 60, 60)
    _, few = canvases.draw_canvas(np.repeat(digits.images[:1], 60, 0), np.arange(60), crowded, rng)
    assert few[0].label == 0
    assert len(few) < 5  # there is no place for more
