"""A teacher is evaluated before the first step: its line, and when it is refused."""

import json

import numpy as np
import pytest
import torch
from batches import batch_of
from torch import nn

import tasks
from dataset.loader import DataConfig, EvalLoader, open_split
from evaluation.topk import TopK
from models.outputs import Outputs
from models.zoo import NetworkConfig, build_network
from teachers import Live, TeacherConfig, scene_of
from training.teacher_check import check_teachers, least_expected
from utils.errors import UsageError

CPU = torch.device("cpu")


def checked(right, images, classes=10, *, logits=None, published=None, **settings):
    """Check a teacher that is right on ``right`` of ``images`` images."""
    teacher = build_network(NetworkConfig("cifar_resnet8"), classes, side=32)
    teacher.published_top1 = published
    labels = torch.arange(images) % classes
    given = nn.functional.one_hot((labels + (torch.arange(images) >= right)) % classes, classes).float()
    teacher.predict = lambda _images, _scene: Outputs(given if logits is None else logits)
    batch = batch_of(torch.zeros(images, 3, 1, 1), labels)

    def score(predict, places):
        assert places is None
        metrics = TopK(CPU)
        metrics.add(predict(batch.images["weak"], scene_of(batch)), batch)
        return metrics.compute()

    configs = {"big": TeacherConfig("cifar_resnet8", **{"weights": "w.pth", **settings})}
    live = Live(teacher, batch_statistics=True).train()
    teachers = nn.ModuleDict({"big": live})
    check_teachers(teachers, configs, tasks.get("single_label"), np.arange(classes), score)
    assert not any(module.training for module in live.modules())


@pytest.mark.parametrize(
    ("right", "images", "settings", "passes"),
    [
        (154, 512, {}, True),  # 30.1 %, just above three times chance
        (153, 512, {}, False),
        (512, 512, {}, True),
        (0, 512, {"expect": 0.0}, True),
        (153, 512, {"expect": 29.0}, True),
        (400, 512, {"expect": 90.0}, False),
        (340, 512, {"classes": 2}, False),  # 66.4 %: three times chance would be 150 %
        (342, 512, {"classes": 2}, True),
        (1, 512, {"classes": 1000}, False),
        (2, 512, {"classes": 1000}, True),
        (0, 9, {}, True),  # too few images to tell
        (0, 9, {"expect": 50.0}, False),
    ],
)
def test_a_teacher_that_could_as_well_guess_is_refused(right, images, settings, passes, capsys):
    if passes:
        checked(right, images, **settings)
    else:
        with pytest.raises(
            UsageError, match=r"teachers\.big .* order, its mean and std, and its weights \(w\.pth\)\."
        ) as error:
            checked(right, images, **settings)
        assert "teachers.big.expect=0 lets it teach" in str(error.value)
    chance = 100 / settings.get("classes", 10)
    line = f"top-1 {100 * right / images:.1f} on {images} validation images (chance {chance:.1f})\n"
    assert capsys.readouterr().out == f"teachers.big, cifar_resnet8: {line}"


def test_few_classes_have_a_bound_that_can_be_reached():
    bounds = {1000: 0.3, 100: 3.0, 10: 30.0, 7: 42.9, 6: 44.4, 3: 55.6, 2: 66.7}
    assert {classes: round(least_expected(100 / classes), 1) for classes in bounds} == bounds


def test_published_scores_and_untrained_weights_are_printed(capsys):
    checked(512, 512, published=73.314)
    assert "published 73.3 on ImageNet-1K" in capsys.readouterr().out
    checked(512, 512, weights="none")
    assert "teachers.big: weights=none: nothing has trained it\n" in capsys.readouterr().out


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_teacher_with_logits_that_are_not_finite_never_teaches(value):
    logits = torch.zeros(20, 10)
    logits[7, 3] = value
    with pytest.raises(UsageError, match=r"teachers\.big gives logits that are not finite: check its weights, w\.pth"):
        checked(20, 20, logits=logits, expect=0)


def test_spread_images_are_seen_once_over_the_ranks_by_the_same_processes(digits):
    data = DataConfig(str(digits / "lmdb"), input_size=8, val_resize=8, val_batch_size=4, num_workers=1)
    samples = open_split(data, "val", "lmdb")
    seen = []
    for rank in (0, 1):
        loader = EvalLoader(samples, data, rank, 2, CPU)
        some = loader.spread(11)
        batches = [batch["index"].tolist() for batch in some]
        assert len(batches) == len(some)
        seen += [index for batch in batches for index in batch]
        process = loader._stream.ring._workers[0].process.pid
        assert sum(len(batch["index"]) for batch in loader) == (21, 20)[rank]
        assert loader._stream.ring._workers[0].process.pid == process
        loader.close()
    assert sorted(seen) == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    assert len(loader.spread(1000)) == len(loader)


def test_a_run_with_an_untrained_teacher_stops_before_it_begins(digits, tmp_path, train):
    words = ["--cfg", "configs/cifar100.py", "method=kd", "teacher=resnet8", "student=resnet8", "name=run"]
    words += [f"data.data_path={digits / 'lmdb'}", f"train_params.output_path={tmp_path}", "data.num_workers=0"]
    words += [
        "data.input_size=16",
        "data.val_resize=16",
        "data.batch_size=40",
        "epochs=1",
        "teachers.teacher.weights=none",
    ]
    done = train(*words, code=2)
    assert "teachers.teacher: weights=none: nothing has trained it" in done.stdout
    assert "on 41 validation images, where at least 30.0 is expected" in done.stderr
    assert not (tmp_path / "run").exists()  # nothing that the next try would have to agree with
    done = train(*words, "teachers.teacher.expect=0")
    assert "teachers.teacher, cifar_resnet8: top-1 " in done.stdout
    assert json.loads((tmp_path / "run" / "config.json").read_text())["teachers"]["teacher"]["expect"] == 0
