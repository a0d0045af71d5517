"""Scores of detections by hand, against pycocotools, and against VOC's rule written out."""

import csv
import json
import math
import os
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dataset.feed.batch import Batch
from dataset.sources.coco import COCO_NAMES
from evaluation import detection
from evaluation.average_precision import interpolated
from evaluation.coco_files import category_ids, image_numbers
from evaluation.detection import Detection
from figures import per_class
from models.outputs import Outputs
from utils.errors import DataError

CPU = torch.device("cpu")
INSTANCES = Path(os.environ.get("LIMBECK_DATA", "../shared/data"), "coco_subset/annotations/instances_val2017.json")
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def image(objects=(), found=(), index=0, size=(480, 640), canvas=None, window=None):
    """A sample: objects (class, box, flags, area), detections (class, score, box), on a canvas of that size.

    Flags are of "c" (crowd) and "d" (difficult); both boxes are in pixels of the stored image.
    """
    canvas, window = canvas or size, window or (0, 0, *size)
    return {"objects": list(objects), "found": list(found), "index": index, "canvas": canvas, "window": window}


def batch(images):
    """Outputs and batch of these samples, padded as a loader does it."""
    most, found = (max([1, *(len(one[name]) for one in images)]) for name in ("objects", "found"))
    count = len(images)
    targets = {
        "classes": torch.full((count, most), -1),
        "original_boxes": torch.zeros(count, most, 4, dtype=torch.float64),
        "areas": torch.zeros(count, most, dtype=torch.float64),
        "crowd": torch.zeros(count, most, dtype=torch.bool),
        "difficult": torch.zeros(count, most, dtype=torch.bool),
        "windows": torch.tensor([one["window"] for one in images], dtype=torch.float64),
    }
    context = {
        "boxes": torch.zeros(count, found, 4),
        "scores": torch.zeros(count, found),
        "classes": torch.full((count, found), -1),
    }
    for row, one in enumerate(images):
        for place, (label, box, *rest) in enumerate(one["objects"]):
            flags, area = rest if rest else ("", (box[2] - box[0]) * (box[3] - box[1]))
            targets["classes"][row, place], targets["areas"][row, place] = label, area
            targets["original_boxes"][row, place] = torch.tensor(box, dtype=torch.float64)
            targets["crowd"][row, place], targets["difficult"][row, place] = "c" in flags, "d" in flags
        top, left, height, width = one["window"]
        scale = np.array(one["canvas"])[[1, 0, 1, 0]] / [width, height, width, height]
        for place, (label, score, box) in enumerate(sorted(one["found"], key=lambda item: -item[1])):
            context["classes"][row, place], context["scores"][row, place] = label, score
            context["boxes"][row, place] = torch.from_numpy((np.array(box) - [left, top, left, top]) * scale)
    sizes, index = (torch.tensor([one[name] for one in images]) for name in ("canvas", "index"))
    return Outputs(torch.zeros(0), {}, context), Batch({"weak": torch.zeros(count, 3, 1, 1)}, sizes, targets, index)


def added(images, classes, kind="coco", at_once=3):
    """The scores of these samples, to which they are added so many at a time."""
    metrics = Detection(CPU, [f"class {number}" for number in range(classes)], kind=kind)
    for start in range(0, len(images), at_once):
        metrics.add(*batch(images[start : start + at_once]))
    return metrics


def drawn(seed, images=12, classes=4, *, grid=None, flags=("", "", "", "c", "d")):
    """Random samples with boxes of all sizes, and detections near them or not; the last class has no object."""
    generator = np.random.default_rng(seed)

    def box():
        corner, size = generator.uniform(0, 300, 2), np.exp(generator.uniform(1, 5.7, 2))
        sides = np.concatenate([corner, corner + size])
        return sides if grid is None else np.round(sides / grid) * grid + [0, 0, grid, grid]

    samples = []
    for index in generator.permutation(images).tolist():
        objects = [
            (
                int(generator.integers(classes - 1)),
                box(),
                str(generator.choice(flags)),
                float(generator.uniform(9, 2e4)),
            )
            for _ in range(generator.integers(6))
        ]
        found = []
        for _ in range(generator.integers(14)):
            near = objects[generator.integers(len(objects))] if objects and generator.random() < 0.8 else None
            label = near[0] if near and generator.random() < 0.8 else int(generator.integers(classes))
            place = box() if near is None else near[1] + generator.normal(0, 6, 4) * (grid is None)
            found.append((label, float(generator.integers(1, 12)) / 12, place))
        samples.append(image(objects, found, index))
    return samples


# COCO


class WithDifficult(COCOeval):
    """COCO's own evaluation, which has no objects to be ignored but crowds."""

    def _prepare(self):
        super()._prepare()
        for annotations in self._gts.values():
            for annotation in annotations:
                annotation["ignore"] = int(annotation["iscrowd"] or annotation.get("difficult", 0))


def by_pycocotools(truth, results, classes=None):
    """The six scores in percent, and the precision of each class."""
    with redirect_stdout(None):
        known = COCO() if isinstance(truth, dict) else COCO(str(truth))
        if isinstance(truth, dict):
            known.dataset = truth
            known.createIndex()
        evaluation = WithDifficult(known, known.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, 100 * evaluation.stats[:6])), evaluation.eval["precision"][..., 0, -1]


def as_coco(images, classes):
    """The ground truth and the results as the authors' format has them; boxes as the network gave them, float32."""
    annotations, results = [], []
    for one in sorted(images, key=lambda one: one["index"]):
        for label, (x1, y1, x2, y2), flags, area in one["objects"]:
            fields = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": int("c" in flags)}
            fields |= {"difficult": int("d" in flags), "id": len(annotations) + 1}
            annotations.append({"image_id": one["index"], "category_id": label, **fields})
        for label, score, box in sorted(one["found"], key=lambda item: -item[1]):
            x1, y1, x2, y2 = np.float32(box).tolist()
            fields = {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(np.float32(score))}
            results.append({"image_id": one["index"], "category_id": label, **fields})
    truth = {"images": [{"id": one["index"]} for one in images], "annotations": annotations}
    return {**truth, "categories": [{"id": number} for number in range(classes)]}, results


@given(st.integers(0, 10**6))
@examples(12)
def test_pycocotools_finds_the_same_in_random_detections(seed):
    images = drawn(seed, images=20)
    truth, results = as_coco(images, 4)
    if not results:
        return
    metrics = added(images, 4)
    scores, (expected, precision) = metrics.compute(), by_pycocotools(truth, results)
    theirs = {name: math.nan if value < 0 else value for name, value in expected.items()}
    assert scores.pop("images") == 20
    assert scores == pytest.approx(theirs, abs=1e-9, rel=0, nan_ok=True)
    for place, row in enumerate(metrics.rows()[:-1]):
        values = precision[:, :, place]
        whole = [values, values[0], values[5]]
        expected = [None if (part < 0).any() else pytest.approx(100 * part.mean(), abs=1e-9) for part in whole]
        assert [row[name] for name in NAMES[:3]] == expected


@pytest.mark.skipif(not INSTANCES.exists(), reason=f"no annotations at {INSTANCES}: set LIMBECK_DATA")
def test_pycocotools_finds_the_same_in_the_file_of_results_by_the_annotations_of_coco(tmp_path):
    instances = json.loads(INSTANCES.read_text())
    classes = [category["name"] for category in instances["categories"]]
    places = {category["id"]: number for number, category in enumerate(instances["categories"])}
    generator, images = np.random.default_rng(0), []
    for index, one in enumerate(instances["images"]):
        objects, found = [], []
        for annotation in (each for each in instances["annotations"] if each["image_id"] == one["id"]):
            x, y, width, height = annotation["bbox"]
            label, box = places[annotation["category_id"]], (x, y, x + width, y + height)
            objects.append((label, box, "c" * annotation["iscrowd"], annotation["area"]))
            for _ in range(generator.integers(1, 4)):
                near = np.array(box) + generator.normal(0, 0.07, 4) * [width, height, width, height]
                found.append((label if generator.random() < 0.8 else 0, generator.random(), near))
        size = (one["height"], one["width"])
        canvas = tuple(round(side * 0.37) for side in size)
        images.append(image(objects, found, index, size, canvas))
    metrics = Detection(CPU, classes)
    for start in range(0, len(images), 7):
        metrics.add(*batch(images[start : start + 7]))
    scores = metrics.compute()
    metrics.write_predictions(tmp_path, [f"val2017/{one['file_name']}" for one in instances["images"]])
    expected, _ = by_pycocotools(INSTANCES, str(tmp_path / "detections.json"))
    assert 20 < scores["AP"] < 80
    assert scores == pytest.approx({**expected, "images": 30}, abs=1e-9, rel=0)
    first = json.loads((tmp_path / "detections.json").read_text())[0]
    assert first["image_id"] == instances["images"][first["index"]]["id"]
    assert first["key"].endswith(instances["images"][first["index"]]["file_name"])


def test_difficult_objects_and_crowds_by_hand():
    box, other = (10, 10, 60, 60), (200, 200, 280, 280)
    right = (0, 0.5, other)
    here = [(0, score, box) for score in (0.9, 0.8)]
    duplicate = 100 * (51 + 50 * 2 / 3) / 101
    for flags, expected in (("c", 100), ("d", 50), ("", duplicate)):  # a difficult object takes one of the two
        scores = added([image([(0, box, flags, 2500), (0, other)], [*here, right])], 1).compute()
        assert scores["AP50"] == pytest.approx(expected)
    assert math.isnan(added([image([(0, box, "d", 2500)], here)], 1).compute()["AP"])


# VOC


def devkit(images, classes, kind):
    """VOCevaldet.m in Python: pixels are counted, from 1."""
    result = []
    for label in range(classes):
        truth = {
            one["index"]: [[(x1 + 1, y1 + 1, x2, y2), bool(flags), False] for (c, (x1, y1, x2, y2), flags, _) in
                           one["objects"] if c == label]
            for one in images
        }  # fmt: skip
        positives = sum(not ignored for objects in truth.values() for _, ignored, _ in objects)
        ranked = [
            (-score, one["index"], -order, (x1 + 1, y1 + 1, x2, y2))
            for one in images
            for order, (c, score, (x1, y1, x2, y2)) in enumerate(reversed(one["found"]))
            if c == label
        ]
        right = wrong = 0
        precisions = []
        for _, index, _, (left, top, r, bottom) in sorted(ranked, key=lambda item: item[:3]):
            most, best = -math.inf, None
            for thing in truth[index]:
                a, b, c, d = thing[0]
                width, height = min(r, c) - max(left, a) + 1, min(bottom, d) - max(top, b) + 1
                if width > 0 and height > 0:
                    union = (r - left + 1) * (bottom - top + 1) + (c - a + 1) * (d - b + 1) - width * height
                    if width * height / union > most:
                        most, best = width * height / union, thing
            if most >= 0.5:
                if best[1]:
                    continue
                if not best[2]:
                    best[2] = True
                    right += 1
                    precisions.append(right / (right + wrong))
                    continue
            wrong += 1
        if not positives:
            result.append(math.nan)
            continue
        after = [max(precisions[place:]) for place in range(len(precisions))]
        recalls = [(place + 1) / positives for place in range(len(after))]
        if kind == "voc":
            result.append(sum(after) / positives)
        else:
            levels = [max([p for p, r in zip(after, recalls) if r >= t / 10 - 1e-12], default=0) for t in range(11)]
            result.append(sum(levels) / 11)
    return result


@pytest.mark.parametrize("kind", ["voc", "voc07"])
@given(st.integers(0, 10**6), st.sampled_from([1, 20]))
@examples(20)
def test_the_devkit_finds_the_same(kind, seed, grid):
    images = drawn(seed, grid=grid)
    for one in images:
        one["found"] = [(label, score, np.round(box)) for label, score, box in one["found"]]
    metrics = added(images, 4, kind)
    scores = metrics.compute()
    expected = devkit(images, 4, kind)
    found = [math.nan if row["AP50"] is None else row["AP50"] / 100 for row in metrics.rows()[:-1]]
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)
    if not all(map(math.isnan, expected)):
        assert scores["AP50"] == pytest.approx(100 * np.nanmean(expected), abs=1e-9)
    beside = added(images, 4).compute()["AP"]
    assert list(scores) == ["AP50", "AP", "images"]
    assert scores["AP"] == pytest.approx(beside, abs=0, nan_ok=True)


def test_voc_by_hand():
    a, b, hard = (0, 0, 10, 10), (20, 20, 40, 40), (50, 50, 70, 70)
    objects = [(0, a), (0, b), (0, hard, "d", 400)]
    found = [
        (0, 0.9, hard),  # ignored, and so is
        (0, 0.85, hard),  # any other
        (0, 0.8, (0, 0, 10, 20)),  # IoU 0.5: right
        (0, 0.7, a),  # the same object again: wrong
        (1, 0.6, b),  # another class, which has no object
        (0, 0.5, b),  # right: 2 of 3
        (0, 0.4, (80, 80, 90, 90)),  # wrong
    ]
    for kind, expected in (("voc", (1 + 2 / 3) / 2), ("voc07", (6 * 1 + 5 * 2 / 3) / 11)):
        assert added([image(objects, found)], 2, kind).compute()["AP50"] == pytest.approx(100 * expected)
    assert interpolated(np.array([0.5, 1.0]), 4, "voc") == 0.5


# Laws


@pytest.mark.parametrize("kind", ["coco", "voc"])
@given(st.randoms(use_true_random=False), st.integers(0, 10**6))
@examples(6)
def test_neither_the_order_of_the_images_nor_the_ranks_matter(kind, random, seed):
    images = drawn(seed)
    one = added(images, 4, kind)
    expected = (str(one.compute()), str(one.rows()))
    mixed = random.sample(images, len(images))
    spread = [added(part, 4, kind, random.randint(1, 5)) for part in (mixed[:2], mixed[2:], [])]
    shares = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, "gather", lambda value: shares.append(value) or [value])
        for metrics in spread:
            with suppress(DataError):
                metrics.compute()
        patch.setattr(detection, "gather", lambda value: shares)
        assert all((str(metrics.compute()), str(metrics.rows())) == expected for metrics in spread)


def test_scores_are_of_the_stored_pixels_whatever_the_network_sees():
    images = drawn(5, grid=16)
    scores = added(images, 4).compute()
    for one in images:
        one["canvas"], one["window"] = (240, 1280), (32, 64, 480, 640)
    assert str(added(images, 4).compute()) == str(scores)
    images[0]["window"] = (32, 64, 480, 640)
    outputs, seen = batch(images)
    seen.targets["windows"][:, 1] += 100
    moved = Detection(CPU, [""] * 4)
    moved.add(outputs, seen)
    assert moved.compute()["AP"] < 0.5 * scores["AP"]


def test_a_batch_may_be_overwritten_after_it_was_added():
    images = drawn(3)
    expected = added(images, 4).compute()
    metrics = Detection(CPU, [""] * 4)
    outputs, seen = batch(images)
    metrics.add(outputs, seen)
    for tensor in (*outputs.context.values(), *seen.targets.values(), seen.index, seen.sizes):
        tensor.zero_()
    assert str(metrics.compute()) == str(expected)


@pytest.mark.parametrize("kind", detection.KINDS)
def test_where_there_is_nothing(kind):
    with pytest.raises(DataError, match="not one validation image could be read"):
        added([], 2, kind).compute()
    scores = added([image(found=[(0, 0.5, (0, 0, 9, 9))]), image(index=1)], 2, kind).compute()
    assert scores.pop("images") == 2
    assert all(map(math.isnan, scores.values()))
    box = (0, 0, 100, 100)
    missed = added([image([(0, box)])], 2, kind).compute()
    assert (missed["AP"], missed["AP50"]) == (0, 0)
    found = added([image([(0, box)], [(0, 0.1, box), (1, 0.9, box)])], 2, kind).compute()
    assert (found["AP"], found["AP50"]) == pytest.approx((100, 100))  # a class without objects does not count


@pytest.mark.parametrize(("kind", "columns"), [("coco", ["AP", "AP50", "AP75"]), ("voc", ["AP50", "AP", "AP75"])])
def test_the_table_of_classes_and_its_picture(kind, columns, tmp_path):
    a, b = (0, 0, 100, 100), (200, 200, 300, 300)
    objects = [(0, a), (0, b), (1, a), (1, b, "d", 100)]
    metrics = added([image(objects, [(0, 0.5, a), (1, 0.5, a)])], 3, kind)
    metrics.compute()
    metrics.write(tmp_path)
    with (tmp_path / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["class", "objects", "ignored", *columns]
    assert [list(row.values())[:3] for row in rows[:-1]] == [
        ["class 0", "2", "0"],
        ["class 1", "1", "1"],
        ["class 2", "0", "0"],
    ]
    half = 100 * 51 / 101 if kind == "coco" else 50
    assert [row[columns[0]] for row in rows[:-1]] == [f"{half:.4f}", "100.0000", ""]
    assert rows[-1]["class"] == "mean of 2 classes"
    figure = per_class.plot(rows)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [round(half, 4), 100]
    assert figure.axes[0].get_title().endswith("of 2 classes; 1 class without objects left out")
    per_class.plt.close(figure)


def test_ids_of_images_and_classes():
    assert image_numbers(["val2017/000000000139.jpg", "val2017/000000000285.jpg"]) == [139, 285]
    assert image_numbers(["a/1.jpg", "b/1.jpg"]) == [0, 1]
    assert image_numbers(["2008_000001.jpg", "7.jpg"]) == [0, 1]
    assert category_ids(COCO_NAMES)[:12] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]
    assert category_ids(sorted(COCO_NAMES))[0] == 5  # airplane
    assert category_ids(["toothbrush"]) == [90]
    assert category_ids(["person", "aeroplane"]) == [1, 2]
