"""The times of multi-label steps, as a user runs them."""

import json
import sys
from collections import Counter

import pytest

from benchmarks import step
from configs import _multi_label
from dataset.sources.coco import COCO_NAMES
from utils.errors import UsageError


def test_multi_label_methods_stand_beside_their_baselines(monkeypatch, capsys):
    monkeypatch.setitem(_multi_label.NETWORKS, "tiny", "cifar_resnet8")
    monkeypatch.setitem(_multi_label.DIMENSIONS, "tiny", 64)
    words = ["--pair", "tiny/tiny", "--rounds", "1", "--steps", "1", "--batch", "2", "--side", "32"]
    words += ["--methods", "mld", "lsh", "cpsd_mse", "cpsd_teachers"]
    monkeypatch.setattr(sys, "argv", ["step", "--task", "multi_label", *words])
    step.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    operations = {row["method"]: row["operations"] for row in rows}
    baselines = [row for row in rows if row["method"] not in step.MULTI_LABEL]
    assert [row["operations"] for row in baselines] == [0] * 4
    assert operations["mld"] == 0
    assert 0 < operations["lsh"] < 0.1
    assert operations["cpsd_teachers"] == pytest.approx(9, abs=0.01)  # ten forward passes for one
    assert 0 < operations["cpsd_mse"] < 9


def test_methods_and_their_baseline_differ_in_the_terms_alone():
    compared = [*step.of_coco("resnet34/resnet18", step.MULTI_LABEL)]
    assert sorted(name for one in compared for name in one.methods) == sorted(step.MULTI_LABEL)
    for _, baseline, methods in compared:
        for name, recipe in methods.items():
            assert recipe.student == baseline.student, name
            assert recipe.last.optim == baseline.last.optim, name
            assert recipe.teachers == baseline.teachers or name.startswith("cpsd"), name


def test_ten_teachers_know_every_class_twice():
    (one,) = step.of_coco("resnet34/resnet18", ["cpsd_mse"])
    teachers = one.methods["cpsd_mse"].teachers.values()
    assert {teacher.name for teacher in teachers} == {"resnet18"}
    assert len(teachers) == 10
    assert Counter(name for teacher in teachers for name in teacher.classes) == Counter(COCO_NAMES * 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "mldd"], "--methods mldd: no method of multi_label; there is asymmetric, mld"),
        (["--pair", "resnet18"], "--pair resnet18: expected teacher/student, such as resnet32x4/resnet8x4"),
        (["--side", "0"], "--side 0: at least 1"),
    ],
)
def test_wrong_options_are_refused(monkeypatch, words, message):
    monkeypatch.setattr(sys, "argv", ["step", "--task", "multi_label", *words])
    with pytest.raises(UsageError) as refused:
        step.parse()
    assert message in str(refused.value)
