"""Multi-label scores by hand, against the reference implementations, scikit-learn and a slow reference."""

import csv
import json
import math
from contextlib import suppress
from fractions import Fraction

import numpy as np
import pytest
import torch
from batches import batch_of
from conftest import ROOT, call
from dataset_helpers import examples
from evaluation_ranks import CLASSES, added, sample
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_fscore_support
from torch.nn import functional as F

from evaluation import multi_label
from evaluation.average_precision import KINDS, average_precision, count, highest, oracle
from evaluation.voc_files import image_ids, read_results, result_file
from models.outputs import Outputs
from utils.errors import DataError

GOLDEN = ROOT / "tests/golden"


def golden(name, case):
    """The arrays of a case, and its parameters."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key.removeprefix(f"{case}."): file[key] for key in file.files if key.startswith(f"{case}.")}
    return arrays, json.loads(str(arrays["params"]))


def in_order(summary, *names):
    return [summary[name] for name in names or ("OP", "OR", "OF1", "CP", "CR", "CF1")]


def tied(images, classes, seed):
    """Scores of few values, and targets."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(-3, 4, (images, classes)).astype(np.float32)
    return scores, generator.integers(-1, 2, (images, classes)).astype(np.int8)


# References


@pytest.mark.parametrize("case", ["basic", "allneg_row_nopos_class"])
def test_l2d(case):
    x, _ = golden("l2d_metrics", case)
    scores, targets = x["in.scores"], x["in.target"]
    found = np.nan_to_num(average_precision(scores, targets))  # L2D counts a class without positives as 0
    np.testing.assert_allclose(found, x["AP"], rtol=1e-9)
    assert found.mean() == pytest.approx(x["mAP"], rel=1e-9)
    predicted = oracle(scores, targets)
    assert np.array_equal(predicted, x["pred"])
    counts = count(predicted, targets)
    assert [counts.summary()["OF1"], counts.f1.mean()] == pytest.approx([float(x["OF1"]), float(x["CF1"])], rel=1e-9)


@pytest.mark.parametrize("case", ["basic", "difficult"])
def test_lshfm(case):
    x, parameters = golden("lshfm_metrics", case)
    scores, targets = x["in.scores"], x["in.target01"]
    positives = targets.sum(0)
    found = average_precision(scores, targets, "positives")
    np.testing.assert_allclose(found * positives / (positives + 1e-8), x["AP"], rtol=1e-9)  # 1e-8 is LSHFM's
    summary = count(scores >= parameters["threshold"], targets).summary()
    assert in_order(summary) == pytest.approx(x["OP_OR_OF1_CP_CR_CF1_percent"] / 100, rel=1e-9)
    voc = np.choose(x["in.target_voc"].astype(int) + 1, [0, -1, 1])  # there 0 is difficult and -1 absent
    found = average_precision(scores, voc, "voc")
    np.testing.assert_allclose(found, x["AP_voc_allpoint"], rtol=1e-8)  # it adds 1e-8 to numbers of images
    assert 100 * found.mean() == pytest.approx(x["mAP_voc_percent"], rel=1e-8)
    ignored_is_present = average_precision(scores, voc, "positives")
    np.testing.assert_array_equal(ignored_is_present, average_precision(scores, voc != 0, "positives"))


def test_cpsd():
    x, parameters = golden("cpsd_metrics", "thr08")
    logits, targets = x["in.logits"], x["in.target01"]
    found = average_precision(logits, targets, "positives")
    np.testing.assert_allclose(found, x["AP"], rtol=1e-6)  # these are float32
    passes = x["in.scores_sigmoid"] >= parameters["threshold"]
    assert in_order(count(passes, targets).summary()) == pytest.approx(x["OP_OR_OF1_CP_CR_CF1"], rel=1e-9)
    top3 = count(passes & highest(logits, parameters["topk"]), targets).summary()
    assert in_order(top3) == pytest.approx(x["top3_OP_OR_OF1_CP_CR_CF1"], rel=1e-9)
    metrics = added(torch.from_numpy(logits[:, :5]), torch.from_numpy(targets[:, :5]), [range(40)], threshold=0.8)
    whole = count(passes[:, :5], targets[:, :5]).summary()
    assert in_order(metrics.compute(), *whole) == pytest.approx([100 * value for value in whole.values()])
    for number, known in enumerate(x["in.target_pm1_0difficult"].T):
        kept = known != 0
        (skipped,) = average_precision(logits[kept, number, None], (known[kept, None] > 0), "positives")
        assert skipped == pytest.approx(x["AP_difficult_skipped"][number], rel=1e-6)


@examples(50)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 10**6))
def test_scikit_learn_with_ties(images, classes, seed):
    scores, targets = tied(images, classes, seed)
    present = targets != 0
    some = present.any(0)
    found = average_precision(scores, targets)
    assert np.array_equal(np.isnan(found), ~some)
    if some.any():
        expected = average_precision_score(present[:, some], scores[:, some], average=None)
        np.testing.assert_allclose(found[some], expected, rtol=1e-12)
        predicted, options = scores >= 1, {"zero_division": 0}
        counts = count(predicted, present)
        each = precision_recall_fscore_support(present, predicted, average=None, labels=range(classes), **options)
        if classes > 1:
            np.testing.assert_allclose([counts.precision, counts.recall, counts.f1], each[:3], rtol=1e-12)
            kept = np.flatnonzero(some)
            macro = precision_recall_fscore_support(present, predicted, average="macro", labels=kept, **options)
            micro = precision_recall_fscore_support(present, predicted, average="micro", **options)
            summary = in_order(counts.summary(), "CP", "CR", "OP", "OR", "OF1")
            assert summary == pytest.approx([*macro[:2], *micro[:3]], rel=1e-12)


def slow(scores, targets, kind):
    """Average precision of one class [N], from its definition."""
    skips = kind.startswith("voc")
    kept = [(-score, known != 0) for score, known in zip(scores, targets) if not (skips and known == -1)]
    kept.sort()  # negatives first among equals
    total = sum(known for _, known in kept)
    points, right = [], 0  # recall and precision down to each positive
    for place, (_, known) in enumerate(kept, 1):
        if known:
            right += 1
            points.append((Fraction(right, total), Fraction(right, place)))
    best = [max(p for r, p in points if r >= recall) for recall, _ in points]
    if kind == "voc07":
        best = [max(p for r, p in points if r >= Fraction(tenth, 10)) for tenth in range(11)]
    values = [p for _, p in points] if kind == "positives" else best
    return float(sum(values) / len(values))


@examples(60)
@given(st.integers(1, 40), st.sampled_from(["positives", "voc", "voc07"]), st.integers(0, 10**6))
def test_against_the_slow_reference_with_ties(images, kind, seed):
    scores, targets = tied(images, 1, seed)
    (found,) = average_precision(scores, targets, kind)
    if math.isnan(found):
        assert not ((targets == 1) if kind.startswith("voc") else (targets != 0)).any()
    else:
        assert found == pytest.approx(slow(scores[:, 0], targets[:, 0], kind), rel=1e-12)


# By hand


def test_average_precision_by_hand():
    scores = np.arange(7.0)[::-1, None]
    targets = np.array([[-1, 1, 0, 0, 1, 1, 0]]).T
    # Without the ignored: precision 1, 2/4, 3/5 at recall 1/3, 2/3, 1, so that 3/5 is reached at both of the last.
    expected = {"voc": (1 + 0.6 + 0.6) / 3, "voc07": (4 * 1 + 7 * 0.6) / 11, "step": (1 + 1 + 3 / 5 + 4 / 6) / 4}
    for kind, value in expected.items():
        assert average_precision(scores, targets, kind) == pytest.approx([value], rel=1e-12)


def test_recalls_of_the_eleven_points_are_exact():
    positives = np.ones((10, 1), np.int8)  # 0.3 of 10 is 3 of them, which 3 / 10 >= 0.1 * 3 denies in floats
    targets = np.insert(positives, [3, 6, 7], 0, axis=0)
    scores = np.arange(13.0)[::-1, None]
    points = [1, 1, 1, 1, 6 / 7, 6 / 7, 6 / 7, 7 / 9, 10 / 13, 10 / 13, 10 / 13]
    assert average_precision(scores, targets, "voc07") == pytest.approx([sum(points) / 11], rel=1e-12)


def test_ties_are_no_gain():
    scores = np.zeros((4, 1))
    targets = np.array([[1, 1, 0, 0]]).T
    assert average_precision(scores, targets, "step") == [0.5]
    assert average_precision(scores, targets, "positives") == pytest.approx([(1 / 3 + 2 / 4) / 2])


def test_the_oracle_knows_how_many():
    scores = np.array([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [2, 2, 1], [-np.inf, 1, np.nan]])
    targets = np.array([[0, 0, 0], [0, 1, -1], [1, 1, 1], [1, 0, 0], [1, 0, 0]])
    expected = [[0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 0]]
    assert np.array_equal(oracle(scores, targets), expected)


def test_top_3_of_equal_scores_are_the_first_and_nan_is_the_last():
    scores = np.array([[0, 1, 0, 0, 0], [np.nan, -np.inf, 5, 1, 0]])
    assert np.array_equal(highest(scores, 3), [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
    assert highest(scores, 9).all()


def test_nothing_of_nothing_is_0():
    nothing = np.zeros((2, 3), np.int8)
    assert set(count(nothing > 0, nothing).summary().values()) == {0.0}
    counts = count(np.array([[True, False, True]]), np.array([[1, 1, 0]]))
    assert counts.f1.tolist() == [1, 0, 0]
    # The last class is never present: CP and CR are of two classes, OP is of all predictions.
    assert counts.summary() == pytest.approx({"CP": 0.5, "CR": 0.5, "CF1": 0.5, "OP": 0.5, "OR": 0.5, "OF1": 0.5})


# The scores of a run


def test_scores_by_hand():
    logits = torch.tensor([[2.0, 1, 1.5, 0.5, -1], [-1, -1, -1, -1, -1]])
    targets = torch.tensor([[1, -1, 0, 1, 0], [0, 0, 0, 0, 1]], dtype=torch.int8)
    losses = F.binary_cross_entropy_with_logits(logits, (targets != 0).float(), reduction="none")
    third, half = 100 / 3, 50.0
    skipped = {"mAP": (100 + 100 + 50) / 3, "CP": 200 / 3, "CR": 200 / 3, "CF1": 200 / 3, "OP": 200 / 3}
    skipped |= {"OR": 200 / 3, "OF1": 200 / 3, "CF1_top3": third, "OF1_top3": 40.0}
    counted = {"mAP": (100 + 100 + 100 + 50) / 4, "CP": 75.0, "CR": 75.0, "CF1": 75.0, "OP": 75.0}
    counted |= {"OR": 75.0, "OF1": 75.0, "CF1_top3": half, "OF1_top3": 400 / 7}
    skipped |= {"CF1_oracle": 20.0, "OF1_oracle": 40.0}  # the second image's scores are equal, and none is the highest
    counted |= {"CF1_oracle": 40.0, "OF1_oracle": 400 / 7}
    for kind, expected, loss in (("voc", skipped, losses[targets >= 0].mean()), ("step", counted, losses.mean())):
        scores = added(logits, targets, [[0], [1]], average_precision=kind).compute()
        assert next(iter(scores)) == "mAP"
        assert scores == pytest.approx({**expected, "loss": loss.item(), "images": 2}, rel=1e-6)


@examples(25)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.sampled_from(KINDS), st.randoms(), st.integers(0, 99))
def test_any_order_and_any_split_over_ranks_give_the_same_bits(places, kind, random, seed):
    logits, targets = sample(len(places), seed)
    logits = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed)) * (seed % 2)
    targets[0, 0] = 1
    one = added(logits, targets, [range(len(places))], average_precision=kind)
    expected = (one.compute(), one.rows())
    spread = []
    for rank in range(3):
        numbers = [number for number, place in enumerate(places) if place == rank]
        random.shuffle(numbers)
        parts = [numbers[:2], numbers[2:]] if numbers else []
        spread.append(added(logits, targets, parts, average_precision=kind))
    shares = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multi_label, "gather", lambda value: shares.append(value) or [value])
        for metrics in spread:
            with suppress(DataError):
                metrics.compute()
        patch.setattr(multi_label, "gather", lambda value: shares)
        assert all((metrics.compute(), metrics.rows()) == expected for metrics in spread)


def test_two_ranks_find_what_one_process_finds(tmp_path):
    call("tests/evaluation/evaluation_ranks.py", str(tmp_path))
    first, second = json.loads((tmp_path / "both.json").read_text())
    metrics = added(*sample(41), [range(41)])
    one = [metrics.compute(), metrics.rows()]
    assert first == second
    assert first[:2] == [one, one]
    assert "not one validation image could be read" in first[2]


def test_no_image_is_named_and_no_class_present_gives_no_map():
    with pytest.raises(DataError, match="not one validation image could be read"):
        added(*sample(0), [range(0)]).compute()
    logits, targets = sample(4)
    assert math.isnan(added(logits, targets * 0, [range(4)]).compute()["mAP"])
    assert math.isnan(added(logits, -targets.abs(), [range(4)], average_precision="voc").compute()["mAP"])
    assert added(logits, targets * 0 - 1, [range(4)]).compute()["mAP"] == 100  # all are ignored, which counts


def test_one_class_and_one_image():
    scores = added(torch.tensor([[0.0]]), torch.tensor([[1]], dtype=torch.int8), [[0]]).compute()
    assert scores.pop("loss") == pytest.approx(math.log(2))
    assert scores.pop("images") == 1
    assert set(scores.values()) == {100.0}  # a sigmoid of just the threshold is a prediction


def test_nan_is_the_lowest_score_and_no_prediction():
    targets = torch.tensor([[1, 0], [0, 1], [0, 0]], dtype=torch.int8)
    logits = torch.tensor([[1.0, 0], [2, 3], [math.nan, -1]])
    scores = added(logits, targets, [range(3)]).compute()
    lowest = added(logits.nan_to_num(-9), targets, [range(3)]).compute()
    assert math.isnan(scores.pop("loss"))
    assert scores == {name: value for name, value in lowest.items() if name != "loss"}
    constant = added(logits * math.nan, targets, [range(3)]).compute()
    assert constant["mAP"] == pytest.approx(100 / 3)  # a guess
    assert constant["OF1"] == 0


def test_infinite_logits_that_are_right_cost_nothing():
    logits = torch.tensor([[math.inf, -math.inf]])
    assert added(logits, torch.tensor([[1, 0]], dtype=torch.int8), [[0]]).compute()["loss"] == 0


def test_half_precision_logits_that_the_sigmoid_would_make_equal_are_ranked():
    logits = torch.tensor([[12.0], [11.5], [11.0]], dtype=torch.float16)
    assert len(logits.sigmoid().unique()) == 1
    targets = torch.tensor([[1], [0], [0]], dtype=torch.int8)
    assert added(logits, targets, [range(3)]).compute()["mAP"] == 100


def test_what_is_added_may_be_overwritten():
    logits, targets = sample(6)
    expected = added(logits.clone(), targets.clone(), [range(6)]).compute()
    metrics = multi_label.MultiLabel(torch.device("cpu"), CLASSES)
    index, images = torch.arange(6), torch.zeros(6, 3, 1, 1, dtype=torch.uint8)
    metrics.add(Outputs(logits), batch_of(images, index=index, present=targets))
    for tensor in (logits, targets, index):
        tensor.zero_()
    assert metrics.compute() == expected


# Files


@pytest.fixture
def written(tmp_path):
    """Scores of 9 of 11 samples; the folder that they are written to; logits, targets and names of the 9."""
    logits, targets = sample(11)
    logits = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)) / 7
    targets[0] = torch.tensor([1, 1, 1, 1, -1])
    metrics = added(logits, targets, [range(9)], average_precision="voc")
    metrics.compute()
    keys = [f"JPEGImages/{number:06d}.jpg" for number in range(11)]
    metrics.write(tmp_path)
    metrics.write_predictions(tmp_path, keys)
    return metrics, tmp_path, (logits[:9].numpy(), targets[:9].numpy(), image_ids(keys[:9]))


def test_the_table_has_a_row_a_class_and_the_means(written):
    metrics, folder, (_, targets, _) = written
    rows = list(csv.DictReader((folder / "per_class.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == [*CLASSES, "mean of 4 classes"]
    numbers = ["AP_voc", "AP_step", "AP_positives", "AP_voc07", "precision", "recall", "F1"]
    assert list(rows[0]) == ["class", "positives", "ignored", *numbers]
    assert [int(row["positives"]) for row in rows[:-1]] == (targets == 1).sum(0).tolist()
    assert [row["ignored"] for row in rows] == [*map(str, (targets == -1).sum(0)), ""]
    assert [rows[4][name] for name in ("AP_voc", "AP_voc07", "precision", "recall", "F1")] == [""] * 5
    for name in numbers:
        values = [float(row[name]) for row in rows[:-1] if row[name]]
        assert float(rows[-1][name]) == pytest.approx(sum(values) / len(values), abs=1e-3)
    assert float(rows[-1]["AP_voc"]) == pytest.approx(metrics.compute()["mAP"], abs=1e-4)


def test_scores_from_files_are_those_from_memory(written):
    _, folder, (logits, targets, names) = written
    files = sorted(path.name for path in (folder / "results").iterdir())
    assert files[:2] == ["comp1_cls_test_Stra%C3%9Fe%2F%C3%A9.txt", "comp1_cls_test_dining%20table.txt"]
    assert len(files) == len(CLASSES)
    first = (folder / "results/comp1_cls_test_person.txt").read_text()
    assert first.startswith(f"000000 {logits[0, 0]:.9g}\n000001 ")
    read = read_results(folder / "results", CLASSES, names)
    assert np.array_equal(read.astype(np.float32), logits)
    for kind in KINDS:
        expected = average_precision(logits, targets, kind)
        np.testing.assert_array_equal(average_precision(read, targets, kind), expected)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("000001\n", "not an image and its score"),
        ("7 1.5\n", "no score of the"),
    ],
)
def test_damaged_result_files_are_named(written, content, said):
    _, folder, (_, _, names) = written
    path = result_file(folder / "results", "dining table")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(DataError, match=rf"dining%20table\.txt.*{said}"):
        read_results(folder / "results", CLASSES, names)


def test_images_of_one_name_keep_their_folders_and_without_keys_they_are_numbers(tmp_path):
    assert image_ids(["a/1.jpg", "b/2.jpg"]) == ["1", "2"]
    assert image_ids(["a/1.jpg", "b/1.jpg"]) == ["a/1.jpg", "b/1.jpg"]
    metrics = added(*sample(3), [[2, 0]])
    metrics.compute()
    metrics.write_predictions(tmp_path, [])
    first = result_file(tmp_path / "results", "person").read_text()
    assert [line.split()[0] for line in first.splitlines()] == ["0", "2"]


def test_file_names_are_safe_and_differ(tmp_path):
    names = ["a/b", "a_b", "a%2Fb", "a b", "..", "\udcff", "é", "e\u0301"]
    files = [result_file(tmp_path, name) for name in names]
    assert len(set(files)) == len(names)
    assert all(path.parent == tmp_path and path.name.isascii() and " " not in path.name for path in files)
