"""What a run prints: before it begins, and while it trains."""

import re
from types import SimpleNamespace

import pytest
import torch

from dataset.loader import DataConfig
from knowledge_distiller import Term
from training import announce, clock
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase
from utils import console
from utils.distributed import Ranks

GPU = Ranks(0, 1, torch.device("cuda", 0))


def test_what_does_not_suit_the_machine_is_printed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(announce.os, "sched_getaffinity", lambda _: range(4))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")

    def notes(data, params, ranks):
        return " | ".join(announce._notes(DataConfig("x", **data), TrainConfig(**params), ranks))

    assert notes({"num_workers": 2}, {"amp": "bf16"}, GPU) == ""
    assert "train_params.amp=bf16 is faster" in notes({"num_workers": 2}, {}, GPU)
    assert "channels_last=true is faster" in notes({"num_workers": 2}, {"channels_last": False}, GPU)
    assert "the GPU waits" in notes({"num_workers": 0}, {}, GPU)
    assert "black frame at 288 pixels" in notes({"num_workers": 2, "input_size": 288}, {"amp": "bf16"}, GPU)
    shown = notes({"num_workers": 3}, {}, Ranks(0, 2, torch.device("cpu")))
    assert shown == "data.num_workers=3 for each of 2 ranks is more than the cores here, 4"


def test_twenty_lines_of_eighty_columns_whatever_there_is_to_say(monkeypatch):
    monkeypatch.setattr(announce, "_network", lambda network, config, *_: f"{config.name} " * 40)
    names = [f"teacher{number}" for number in range(20)]
    phase = Phase(3, {name: Term("kd", 0.5, options={"temperature": 2.0}) for name in names}, OptimConfig())
    distiller = SimpleNamespace(student=None, teachers=dict.fromkeys(names, SimpleNamespace(network=None)))
    trainer = SimpleNamespace(
        state=SimpleNamespace(distiller=distiller, phases={"distillation": phase}),
        params=TrainConfig(),
        ranks=Ranks(0, 1, torch.device("cpu")),
        loader=SimpleNamespace(batches=1, batch_size=8),
    )
    split = type("Split", (), {"classes": ["a"], "__len__": lambda self: 1})()
    configs = dict.fromkeys(["student", *names], SimpleNamespace(name="resnet18"))
    entries = announce.described(DataConfig("x" * 99), (split, split), configs, trainer)
    assert [entry.split()[0] for entry in entries[:3]] == ["data", "crop", "student"]
    lines = "\n".join(entries).splitlines()
    assert len(lines) == 20
    assert max(map(len, lines)) == 80
    assert lines[1].startswith(" " * 12 + "x")
    assert lines[0].startswith("  data      1 + 1 image of 1 class in xxx")
    assert lines[-1].strip() == "and 128 lines more"


@pytest.mark.parametrize(
    ("epochs", "optim", "notes"),
    [
        (2, {"milestones": (1, 2, 3)}, ["optim.milestones=2,3: not reached within 2 epochs"]),
        (4, {"milestones": (1, 2, 3)}, []),
        (2, {"milestones": (9,), "schedule": "cosine"}, []),
        (1, {"milestones": (), "warmup_epochs": 1}, ["optim.warmup_epochs=1 lasts for all of 1 epoch"]),
    ],
)
def test_what_of_the_schedule_the_epochs_do_not_reach_is_printed(epochs, optim, notes):
    assert [*announce._late(Phase(epochs, {}, OptimConfig(**optim)))] == notes


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (78_042, "78 k"), (11_689_512, "11.7 M"), (2e12, "2 T")],
)
def test_counts_are_short(count, text):
    assert announce._short(count) == text


class Time:
    """A clock that stands still but where it is moved on."""

    now = 100.0

    def perf_counter(self):
        return self.now


def moved_on(time, number, each):
    """``number`` batches, each of which takes ``each`` seconds."""
    for _ in range(number):
        time.now += each
        yield {}


def steps(bar, time, number, each, ends=True):
    """A run of ``number`` steps, each of ``each`` seconds, shown every ten."""

    for step, _ in enumerate(bar.epoch("epoch 1/1", moved_on(time, number, each), number, 0, 0), start=1):
        if step % 10 == 0:
            bar.show({"step": step, "epoch": 1, "loss": 2.3456, "kd": 1.0, "top1": 45.678}, f"remark {step}")
        if step == number and not ends:
            return


def test_the_time_left_is_printed_in_lines_and_after_fifty_steps(monkeypatch, capsys):
    time = Time()
    monkeypatch.setattr(clock, "time", time)
    with clock.Clock(120, ("top1",), shown=True) as bar:
        steps(bar, time, 100, 1.0)
    output = capsys.readouterr().out
    assert "epoch 1/1, step 60: loss 2.346, kd 1, top1 45.68, elapsed 00:59, left 01:00; remark 60\n" in output
    assert re.findall("about .* for the .* to come", output) == ["about 01:10 for the 70 steps to come"]


@pytest.mark.parametrize(
    ("number", "each", "told"),
    [(100, 45.0, "about 1:12:45 for the 97 steps to come, and validation after each epoch\n"), (50, 1.0, "")],
)
def test_a_slow_step_does_not_wait_for_fifty_to_say_how_long_it_takes_and_the_last_says_nothing(
    number, each, told, monkeypatch, capsys
):
    time = Time()
    monkeypatch.setattr(clock, "time", time)
    with clock.Clock(number, (), shown=True) as bar:
        for _ in bar.epoch("epoch 1/1", moved_on(time, number, each), number, 0, 0):
            pass
    assert capsys.readouterr().out == told


def test_the_bar_shows_loss_accuracy_and_time_at_eighty_columns_and_no_more_after_an_error(monkeypatch, capsys):
    time = Time()
    monkeypatch.setattr(clock, "time", time)
    monkeypatch.setattr(clock, "on_terminal", lambda: True)
    monkeypatch.setattr(console, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    with clock.Clock(10**6, ("top1",), shown=True) as bar:
        steps(bar, time, 33, 5.0, ends=False)
    captured = capsys.readouterr()
    remark, estimate = captured.out.splitlines()  # once, above the bar
    assert remark == "remark 10"
    assert estimate.startswith("about 1388:5")
    drawn = captured.err.split("\r")
    assert any("loss 2.346, top1 45.68, left 1388:5" in line for line in drawn), drawn
    assert max(map(len, drawn)) <= 80
    assert drawn[-1] == ""
