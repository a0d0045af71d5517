"""The picture of what detectors find."""

import itertools
import json

import numpy as np
import pytest
import torch
from dataset_helpers import image_bytes
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from dataset.inspection.boxes import class_color, draw_boxes
from dataset.jpeg.tiles import tile
from dataset.store.index import Index, describe
from dataset.store.record import Boxes, Record
from dataset.store.writer import ShardWriter
from figures import detections, outputs
from figures.outputs import Detected, Detections, Photo
from models.outputs import Outputs
from training import checkpoint
from utils.errors import DataError, UsageError

CLASSES = ("dog", "$x$ cat", "Straße")


def photo(key="a.jpg", size=(60, 80), window=None, ignored=(False, True)):
    """A photo with a dog at its left, and a cat."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    boxes, window = np.array([[5.0, 10, 30, 50], [40, 20, 70, 55]]), np.array(window or (0, 0, *size), float)
    return Photo(key, pixels, window, boxes, np.array([0, 1]), np.array(ignored))


def found(*scores):
    """Detections of those scores, of cats."""
    boxes = np.array([[40.0, 20, 70, 55]] * len(scores)).reshape(-1, 4)
    return Detected(boxes, np.ones(len(scores), np.int64), np.array(scores, np.float32))


@pytest.fixture
def close():
    yield
    plt.close("all")


def boxes_of(axes):
    """Corners of the boxes, and whether each is dashed."""
    boxes = [patch for patch in axes.patches if not patch.get_fill()]
    return {tuple(np.ravel(box.get_bbox().get_points())): box.get_linestyle() != "-" for box in boxes}


def texts_of(axes):
    return sorted(text.get_text() for text in axes.texts)


@pytest.mark.usefixtures("close")
def test_ground_truth_and_predictions_stand_side_by_side():
    networks = {"one": [found(0.9, 0.4)], "two": [found(0.55)], "none": [found()]}
    figure = detections.plot([photo()], networks, CLASSES)
    truth, *others = figure.axes
    assert boxes_of(truth) == {(5, 10, 30, 50): False, (40, 20, 70, 55): True}
    assert texts_of(truth) == ["$x$ cat", "dog"]
    assert [texts_of(axes) for axes in others] == [["$x$ cat 0.90"], ["$x$ cat 0.55"], []]
    names = ["ground truth, dashed: not scored", "one", "two", "none", "a.jpg"]
    assert [text.get_text() for text in figure.texts] == names
    low = detections.plot([photo()], networks, CLASSES, threshold=0.3)
    assert texts_of(low.axes[1]) == ["$x$ cat 0.40", "$x$ cat 0.90"]


@pytest.mark.parametrize(("count", "photos", "across"), [(1, 5, 2), (1, 1, 1), (2, 3, 1), (5, 2, 1)])
@pytest.mark.usefixtures("close")
def test_photos_are_large_and_do_not_meet(count, photos, across):
    shapes = itertools.cycle([(60, 80), (80, 60), (30, 120), (80, 80)])
    shown = [photo(str(number), next(shapes)) for number in range(photos)]
    figure = detections.plot(shown, {f"run {run}": [found(0.9)] * photos for run in range(count)}, CLASSES)
    figure.canvas.draw()
    frames = [axes.get_window_extent() for axes in figure.axes]
    assert len(frames) == photos * (1 + count)
    assert all(max(frame.width, frame.height) >= 300 for frame in frames)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(frames, 2))
    assert len({round(frame.y0) for frame in frames}) == -(-photos // across)
    assert all(figure.bbox.x0 <= frame.x0 and frame.x1 <= figure.bbox.x1 for frame in frames)
    assert all(figure.bbox.y0 <= frame.y0 and frame.y1 <= figure.bbox.y1 for frame in frames)


@pytest.mark.usefixtures("close")
def test_boxes_lie_where_their_objects_are_in_a_window_at_another_size():
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[10:15, 20:30] = 255  # of a window at (100, 200) that is four times as large
    one = Photo(
        "a", pixels, np.array([100.0, 200, 80, 160]), np.array([[280.0, 140, 320, 160]]), *np.zeros((2, 1), int)
    )
    axes = detections.plot([one], {}, CLASSES).axes[0]
    axes.figure.canvas.draw()
    (box,) = (patch for patch in axes.patches if not patch.get_fill())
    (image,) = axes.images
    left, right, bottom, top = image.get_extent()
    columns, rows = np.flatnonzero(pixels.any((0, 2))), np.flatnonzero(pixels.any((1, 2)))
    across, down = (right - left) / 40, (bottom - top) / 20
    white = [left + columns[0] * across, top + rows[0] * down, left + (columns[-1] + 1) * across]
    assert [*white, top + (rows[-1] + 1) * down] == np.ravel(box.get_bbox().get_points()).tolist()


def drawn(boxes, labels, size=(200, 300)):
    """Axes with these boxes, 300 pixels wide."""
    figure = plt.figure(figsize=(3, 2), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.zeros((*size, 3), np.uint8), extent=(0, size[1], size[0], 0))
    count = len(boxes)
    draw_boxes(axes, np.array(boxes, float), np.arange(count), labels, np.zeros(count, bool))
    return axes


@pytest.mark.usefixtures("close")
def test_labels_hide_neither_each_other_nor_their_objects_where_there_is_room():
    boxes = [(40, 60, 90, 110), (40, 60, 92, 112), (120, 60, 170, 110), (200, 10, 260, 60), (5, 150, 60, 195)]
    labels = ["first", "second", "third thing", "near the top", "at the edge"]
    axes = drawn(boxes, labels)
    axes.figure.canvas.draw()
    frames = [text.get_window_extent() for text in axes.texts]
    assert sorted(text.get_text() for text in axes.texts) == sorted(labels)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(frames, 2))
    for frame, text in zip(frames, axes.texts):
        x1, y1, x2, y2 = boxes[labels.index(text.get_text())]
        inside = Rectangle((x1 + 2, y1 + 2), x2 - x1 - 4, y2 - y1 - 4, transform=axes.transData)
        assert not frame.overlaps(inside.get_window_extent()), text.get_text()
        assert axes.bbox.x0 <= frame.x0, text.get_text()
        assert frame.x1 <= axes.bbox.x1, text.get_text()
        assert axes.bbox.y0 <= frame.y0, text.get_text()
        assert frame.y1 <= axes.bbox.y1, text.get_text()


@pytest.mark.usefixtures("close")
def test_what_lies_beyond_the_image_is_left_out():
    axes = drawn([(310, 10, 350, 50), (-50, 20, 0, 60), (10, 10, 10, 60), (250, 150, 350, 250)], list("abcd"))
    assert [text.get_text() for text in axes.texts] == ["d"]
    assert drawn(np.zeros((0, 4)), []).texts[:] == []


def test_classes_have_colours_of_their_own():
    colors = {tuple(round(channel, 2) for channel in class_color(label)) for label in range(36)}
    assert len(colors) == 36
    assert all(np.dot(color, (0.299, 0.587, 0.114)) > 0.2 for color in colors)  # are seen on dark photos
    for label in range(35):
        near = np.abs(np.subtract(class_color(label), class_color(label + 1)))
        assert near.max() > 0.3, label


def test_runs_of_one_split_are_drawn_together(tmp_path, monkeypatch, capsys):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    of_run = {folder: Detections([photo()], [found(0.9, 0.2)], CLASSES, ["a.jpg"]) for folder in folders}
    of_run[folders[2]] = of_run[folders[2]]._replace(split=["b.jpg"])
    asked = []
    monkeypatch.setattr(detections, "detections_of_run", lambda run, images: asked.append(images) or of_run[run])
    monkeypatch.setattr("sys.argv", ["", *map(str, folders[:2]), "--images", "3", "--threshold", "0.1"])
    detections.main()
    assert asked == [3, 3]
    picture = folders[0] / "detections.png"
    assert capsys.readouterr().out == f"a: 2 detections of 0.1 or more\nb: 2 detections of 0.1 or more\n{picture}\n"
    assert picture.stat().st_size > 10_000
    monkeypatch.setattr("sys.argv", ["", str(folders[0]), str(folders[2])])
    with pytest.raises(SystemExit, match="2"):
        detections.main()
    assert f"{folders[2]} has other classes or other validation images than {folders[0]}" in capsys.readouterr().err


def write_split(folder, image=lambda *shape: tile(image_bytes(*shape))):
    """Four photos of several shapes, the second without objects."""
    objects = Boxes(((3.0, 4.0, 30.0, 20.0), (10.0, 6.0, 22.0, 23.5)), (1, 0), (False, True), (False, False))
    folder.mkdir(parents=True)
    with ShardWriter(folder / "00000.lmdb", 1 << 20) as writer:
        for number, (high, wide) in enumerate([(24, 32), (24, 32), (64, 40), (32, 90)]):
            target = Boxes((), (), (), ()) if number == 1 else objects
            writer.add(Record(f"{number}.jpg", image(number, high, wide), target), high, wide)
        writer.finish()
    Index("val", "detection", ("dog", "cat"), 4, (describe(folder / "00000.lmdb", 4),)).write(folder)


class Sees(torch.nn.Module):
    """A detector that finds all objects, and keeps a place where there is none."""

    def predict(self, images, scene):
        nothing = torch.zeros(len(images), 1, 4)
        classes = torch.cat([scene.targets["classes"], torch.full((len(images), 1), -1)], 1)
        boxes = torch.cat([scene.targets["boxes"], nothing], 1)
        context = {"boxes": boxes, "classes": classes, "scores": torch.full(classes.shape, 0.75)}
        return Outputs(torch.zeros(0), {}, context)


def write_config(folder, **more):
    """Of a run of a detector on the split in ``folder``."""
    data = {"data_path": str(folder / "lmdb"), "val_crop": "short_side", "val_resize": 64, "num_workers": 0}
    data |= {"val_batch_size": 2, "batch_size": 2, **more}
    config = {"data": data, "student": {"name": "fasterrcnn_resnet18_fpn"}, "task": "detection", "task_options": {}}
    config["phases"] = {"distillation": {"epochs": 1, "terms": {}}}
    (folder / "config.json").write_text(json.dumps(config))


def test_what_the_student_of_a_run_finds(tmp_path, monkeypatch):
    write_split(tmp_path / "lmdb/val")
    write_config(tmp_path)
    with pytest.raises(UsageError, match=r"is not a run folder with a best\.pt"):
        outputs.detections_of_run(tmp_path, 9)
    checkpoint.save(tmp_path / "best.pt", {"position": "{}"})
    asked = []
    monkeypatch.setattr(outputs, "build_network", lambda config, *_, **__: asked.append(config.weights) or Sees())
    seen = outputs.detections_of_run(tmp_path, 9)
    assert asked == [str(tmp_path / "best.pt")]
    assert (seen.classes, seen.split) == (("dog", "cat"), [f"{number}.jpg" for number in range(4)])
    assert [one.key for one in seen.photos] == seen.split
    assert [one.window.tolist() for one in seen.photos] == [[0, 0, 24, 32]] * 2 + [[0, 0, 64, 40], [0, 0, 32, 90]]
    assert [one.pixels.shape for one in seen.photos] == [(64, 85, 3)] * 2 + [(102, 64, 3), (64, 180, 3)]
    for one, detected in zip(seen.photos, seen.detected, strict=True):
        count = 0 if one.key == "1.jpg" else 2
        assert one.classes.tolist() == detected.classes.tolist() == [1, 0][:count]
        assert one.ignored.tolist() == [False, True][:count]
        assert one.pixels.any((1, 2)).all()
        np.testing.assert_allclose(detected.boxes, one.boxes, atol=1e-4)
    assert [one.key for one in outputs.detections_of_run(tmp_path, 2).photos] == ["0.jpg", "3.jpg"]


@pytest.mark.filterwarnings("ignore:skipped:RuntimeWarning")
def test_a_split_of_which_no_image_can_be_read_is_named(tmp_path, monkeypatch):
    write_split(tmp_path / "lmdb/val", lambda *_: b"no image")
    write_config(tmp_path, on_fault="skip")
    checkpoint.save(tmp_path / "best.pt", {"position": "{}"})
    monkeypatch.setattr(outputs, "build_network", lambda *_, **__: Sees())
    with pytest.raises(DataError, match="not one image could be read"):
        outputs.detections_of_run(tmp_path, 9)


def test_a_run_of_another_task_is_named(finished):
    with pytest.raises(UsageError, match="is no run of a detector: its task is single_label"):
        detections.detections_of_run(finished, 2)
