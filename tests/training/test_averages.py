"""Averages of weights: the moving one and that of the last epochs, what of them is kept, and norms that stay."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT, trained
from small_run import KILL_AT_STEP, learned, words
from torch import nn

from figures.curves import read_metrics
from training.average import Average

GOLDEN = np.load(ROOT / "tests/golden/cpsd_ema.npz")


class Counter(nn.Module):
    """A weight, a statistic and a count."""

    def __init__(self, start):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(start).clone())
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("count", torch.tensor(0))


def test_golden_moving_average():
    network = Counter(GOLDEN["d9997.in.w0"])
    average = Average(network, json.loads(str(GOLDEN["d9997.params"]))["decay"])
    average.update_parameters(network)  # the first is the start
    for number, (value, expected) in enumerate(zip(GOLDEN["d9997.in.w"], GOLDEN["d9997.ema"], strict=True), 1):
        network.weight.data.copy_(torch.from_numpy(value))
        network.count.fill_(number)
        average.update_parameters(network)
        np.testing.assert_allclose(average.module.weight.detach().numpy(), expected, rtol=1e-5)
        assert int(average.module.count) == number  # the reference's stays behind


def test_an_average_of_epochs_is_of_copies():
    network = Counter(torch.tensor([1.0, 10.0]))
    average = Average(network)
    for number in range(1, 11):
        network.weight.data.copy_(torch.tensor([number, 10.0 * number]))
        network.mean.fill_(number)
        network.count.fill_(7 * number)
        average.update_parameters(network)
    torch.testing.assert_close(average.module.weight.data, torch.tensor([5.5, 55.0]))  # not 5.6
    torch.testing.assert_close(average.module.mean, torch.full((2,), 5.5))
    assert int(average.module.count) == 70


AVERAGED = ("train_params.average_last=2", "epochs=4", "train_params.ema_decay=0.98", "optim.schedule=step")


@pytest.fixture(scope="module")
def averaged(digits, tmp_path_factory):
    runs = tmp_path_factory.mktemp("averaged")
    trained(*words(digits, runs, *AVERAGED))
    return runs / "run"


def test_the_best_of_student_moving_average_and_last_epochs_is_kept(averaged, run):
    rows = [row for row in read_metrics(averaged) if row["kind"] == "val"]
    assert ["average_top1" in row for row in rows] == [False, False, False, True]
    names = {"student": "top1", "ema": "ema_top1", "average": "average_top1"}
    scores = {(name, row["epoch"]): row[name] for row in rows for name in names.values() if name in row}
    position = json.loads(torch.load(averaged / "best.pt", weights_only=True)["position"])
    assert scores[names[position["best_of"]], position["epoch"]] == max(scores.values())
    for what in (averaged, averaged / "student.safetensors"):
        assert f"top1 {max(scores.values()):.3f}" in run("--eval", str(what))[1]


def test_an_average_is_that_of_the_students_after_the_last_epochs(digits, averaged, run, tmp_path):
    assert run(*words(digits, tmp_path, *AVERAGED, "epochs=3"))[0] == 0
    before = torch.load(tmp_path / "run/last.pt", weights_only=True)["student"]
    last = torch.load(averaged / "last.pt", weights_only=True)
    assert last["average_updates"] == 2
    for name, value in last["average"].items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (last["student"][name] + before[name]) / 2, rtol=1e-5, atol=1e-6)


def test_a_run_that_is_killed_in_the_last_epochs_averages_the_same(digits, averaged, tmp_path, train, altered):
    kill = KILL_AT_STEP.format(step=21, signal="SIGKILL")
    altered(kill, *words(digits, tmp_path, *AVERAGED), code=-9)
    train(*words(digits, tmp_path, *AVERAGED))
    assert learned(tmp_path / "run") == learned(averaged)
