"""The numbers of the page about runs: what is measured of networks, and how charts draw it."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from figures.outputs import Detected, Truth
from figures.report import measures
from figures.report.charts import PLACES, aligned, banded, chart
from figures.report.seen import Bench


def made_bench(task, labels, **logits):
    """A bench of logits [N, K] by name."""
    samples = np.zeros(len(labels))
    bench = Bench([], task, tuple("abc"), samples, 0.5, np.arange(len(labels)), np.array(labels))
    bench.logits = {name: np.array(values, np.float32) for name, values in logits.items()}
    return bench


def test_agreement_by_hand():
    labels = [0, 1, 2, 0]
    student = [[2, 0, 0], [4, 1, 0], [0, 0, 1], [0, 1, 0]]
    teacher = [[2, 0, 0], [0, 3, 0], [1, 0, 0], [0, 1, 0]]
    bench = made_bench("single_label", labels, student=student, teacher=teacher)
    found = measures.agreement(bench, [bench.logits["student"]], bench.logits["teacher"])
    assert found.equal.tolist() == [0.5]
    assert (found.both, found.student, found.teacher, found.none) == (0.25, 0.25, 0.25, 0.25)
    p, q = (np.exp(np.array(one, float)) for one in (teacher, student))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    apart = (p * np.log(p / q)).sum(1)
    assert found.divergence[0] == pytest.approx(apart.mean())
    sure = p.max(1)  # 0.79, 0.91, 0.58, 0.58
    assert found.counts.tolist() == np.histogram(sure, 10, (0, 1))[0].tolist() == [0, 0, 0, 0, 0, 2, 0, 1, 0, 1]
    assert found.equal_by[5] == 0.5
    assert found.divergence_by[9] == pytest.approx(apart[1])
    assert np.isnan(found.equal_by[0])


def test_agreement_of_several_labels_by_hand():
    labels = [[1, 0, -1], [0, 0, 1]]
    student, teacher = [[1, 1, 1], [-1, -1, -1]], [[1, -2, -1], [-1, 1, 3]]
    bench = made_bench("multi_label", labels, student=student, teacher=teacher)
    found = measures.agreement(bench, [bench.logits["student"]], bench.logits["teacher"])
    assert found.equal[0] == pytest.approx(2 / 6)
    p, q = (1 / (1 + np.exp(-np.array(one, float))) for one in (teacher, student))
    apart = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert found.divergence[0] == pytest.approx(apart.mean())
    assert found.counts.sum() == 6
    assert measures.wrong(bench, bench.logits["student"]).tolist() == [[False, True, False], [False, False, True]]


def test_sure_teachers_of_several_labels_are_averaged_without_rounding_to_certainty():
    bench = made_bench("multi_label", [[1, 0, 1]], student=[[0, 0, 0]], a=[[40, -200, 1]], b=[[40, -200, 3]])
    run = SimpleNamespace(path=Path("run"))
    bench.students, bench.teachers = {run.path: "student"}, {run.path: {"a": "a", "b": "b"}}
    teacher = bench.taught_by(run)
    mean = (1 / (1 + np.exp(-1.0)) + 1 / (1 + np.exp(-3.0))) / 2
    np.testing.assert_allclose(teacher, [[40, -200, np.log(mean / (1 - mean))]], rtol=1e-6)
    assert np.isfinite(measures.agreement(bench, [bench.logits["student"]], teacher).divergence).all()


def test_classes_and_confusions_by_hand():
    bench = made_bench("single_label", [0, 0, 2, 2], one=[[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])
    logits = bench.logits["one"]
    np.testing.assert_equal(measures.recalls(bench, logits), [50, np.nan, 100])
    assert measures.confusion(bench, [logits, logits]).tolist() == [[2, 2, 0], [0, 0, 0], [0, 0, 4]]


def test_objects_are_found_once_and_what_is_not_scored_counts_for_nothing():
    truth = Truth(
        np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]),
        np.array([0, 0, 1]),
        np.array([False, False, True]),
    )
    boxes = np.array(
        [[0.0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10], [20, 0, 30, 10]]
    )
    found = Detected(boxes, np.array([0, 0, 1, 1, 1, 0]), np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.4], np.float32))
    match = measures.matched(truth, found)
    assert match.hit.tolist() == [True, False, False]
    assert match.right.tolist() == [True, False, False, False, False, False]
    assert match.shown.tolist() == [True, True, True, False, True, False]  # of what is ignored, and below the threshold


def test_curves_share_places_and_seeds_a_band():
    x, (a, b) = aligned([[(1, 1.0), (2, 3.0), (3, float("nan")), (4, 5.0)], [(2, 2.0), (3, 4.0)]])
    assert x.tolist() == [1, 2, 3, 4]
    np.testing.assert_equal(a, [1, 3, 4, 5])
    np.testing.assert_equal(b, [np.nan, 2, 4, np.nan])
    line = banded("both", [a, b], 0)
    np.testing.assert_equal(line.values, [np.nan, 2.5, 4, np.nan])
    assert (line.low[1], line.high[1]) == (2, 3)
    long = [(step, step / 1000) for step in range(1000)]
    x, (values,) = aligned([long])
    assert len(x) == PLACES
    np.testing.assert_allclose(values, x / 1000, atol=1e-3)
    assert aligned([[], [(3, 1.0)]])[1][0].tolist() == pytest.approx([np.nan], nan_ok=True)


NEARLY = np.nextafter(100.0, 0)


@pytest.mark.parametrize("kind", ["lines", "bars", "stack"])
@pytest.mark.parametrize("unit", ["", "%"])
@pytest.mark.parametrize(
    "values",
    [[1.0], [0.0, 0.0], [1e-8, 1e9], [-3.0, 2.0], [5.0, 5.0], [100.0, 100.0], [NEARLY, 100.0], [-1.0, -1.0], [250.0]],
)
def test_charts_of_odd_values_stay_inside(kind, unit, values):
    x = np.arange(len(values)) + 1.0
    (line,) = aligned([list(zip(x, values))])[1]
    looks = {"x_name": "<x>", "unit": unit, "kind": kind, "may_be_steep": True, "legend": True}
    drawn = chart("<t>", x, [banded("<n>", [line, line], 0)], **looks)
    assert "<t>" not in drawn.svg
    assert "<n>" not in drawn.svg
    assert "nan" not in drawn.svg
    places = [float(one) for one in re.findall(r'\b(?:c?[xy]|[xy][12])="(-?[\d.]+)"', drawn.svg)]
    assert min(places) >= -1
    assert kind == "stack" or max(places) <= 361  # whose shares are of 100
