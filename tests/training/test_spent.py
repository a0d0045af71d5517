"""Where the time of a run goes, and the setting that is named where it waits for data."""

import re
import time
from types import SimpleNamespace

import pytest
import torch
from small_run import words

from dataset.config import DataConfig
from dataset.store.reader import ShardReader
from figures.curves import read_metrics
from imagenet_train_cfg import cfg
from training import loop
from training.spent import Spent, faster_loader
from utils.settings import settings
from utils.stopwatch import Stopwatch

PROCESSES = {"time/read", "time/decode", "time/resize", "time/slot"}
TRAINER = {"time/data", "time/copy", "time/student", "time/optimizer"}


@pytest.mark.parametrize("workers", [0, 2])
def test_each_line_has_shares_of_both_times(digits, tmp_path, run, workers):
    more = ["method=wsld", "teachers.teacher.weights=none", "teachers.teacher.expect=0", "epochs=2"]
    code, _, errors = run(*words(digits, tmp_path, *more, f"data.num_workers={workers}"))
    assert not code, errors
    rows = [row for row in read_metrics(tmp_path / "run") if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    for row in rows:
        shares = {name: value for name, value in row.items() if name.startswith("time/")}
        assert shares.keys() == PROCESSES | TRAINER | {"time/teacher"}
        assert min(shares.values()) >= 0
        assert sum(shares[name] for name in PROCESSES) <= 1 + 1e-9
        assert sum(shares[name] for name in shares.keys() - PROCESSES) <= 1 + 1e-9
        assert shares["time/data"] <= row["data_wait"]
        assert min(shares["time/decode"], shares["time/student"], shares["time/teacher"]) > 0
        assert (shares["time/slot"] > 0) == bool(workers)


def test_slow_data_is_said_with_a_setting_that_helps(digits, tmp_path, run, monkeypatch):
    read = ShardReader.mapped

    def slow(self, index):
        time.sleep(0.002)
        return read(self, index)

    monkeypatch.setattr(ShardReader, "mapped", slow)
    monkeypatch.setattr(loop, "cores_of_rank", lambda: 64)
    code, output, _ = run(*words(digits, tmp_path, "epochs=1"))
    assert not code
    lines = [line for line in output.splitlines() if ", step " in line]
    assert "waits for data" not in lines[0]  # when processes start
    named = re.search(r"; waits for data: set data\.num_workers=(\d+)$", lines[1])
    row = read_metrics(tmp_path / "run")[1]
    assert row["time/data"] > 0.05
    assert row["time/read"] >= 0.002 * row["images_per_second"] * 0.99
    decoding = row["time/data"] / (1 - row["time/data"])
    assert decoding <= int(named[1]) <= decoding + 1  # as many as keep up with the trainer
    assert "time/" not in output


SHARES = {"time/data": 0.5, "time/slot": 0.0, "time/read": 0.1, "time/decode": 0.5, "time/resize": 0.2}
READING, RESIZING = {"time/read": 0.6}, {"time/resize": 0.6}


@pytest.mark.parametrize(
    ("shares", "data", "advice"),
    [
        ({}, {"num_workers": 2}, "set data.num_workers=4"),
        ({}, {"num_workers": 6}, "set data.num_workers=8"),  # there are no more cores
        ({"time/data": 0.06}, {"num_workers": 4}, "set data.num_workers=5"),
        ({"time/data": 0.9}, {"num_workers": 0}, "set data.num_workers=8"),
        ({"time/data": 0.2}, {"num_workers": 0}, "set data.num_workers=1"),
        ({}, {}, "pack with --image_size 256, and set data.train_split=train_256 in a new run"),
        ({}, {"train_split": "train_256"}, ""),
        ({}, {"resize": "linear"}, "set data.resize=antialias in a new run"),
        ({}, {"decode": "exact"}, "set data.decode=planes in a new run"),
        ({}, {"train_data_type": "img"}, "pack the images, and set data.train_data_type=lmdb in a new run"),
        ({}, {"type_of_data_aug": "pad_crop"}, ""),
        (READING, {}, "pack with --shuffle, and set data.order=blocks in a new run"),
        (READING, {"order": "blocks"}, ""),
        (RESIZING, {}, "pack with --image_size 256, and set data.train_split=train_256 in a new run"),
        ({"time/decode": 0.2}, {}, ""),  # nothing that a setting changes
        ({"time/data": 0.04}, {"num_workers": 2}, ""),
        ({"time/slot": 0.6}, {"num_workers": 2}, ""),  # the processes have time
    ],
)
def test_the_setting_that_is_named_is_that_of_what_limits(shares, data, advice):
    said = faster_loader({**SHARES, **shares}, DataConfig("x", **{"num_workers": 8, **data}), cores=8)
    assert said == advice
    assert set(re.findall(r"data\.\w+", said)) <= {one.key for one in settings(cfg)}


class Event:
    """A GPU's, by a clock of its own."""

    now = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = Event.now

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return (end.at - self.at) * 1e3


def test_on_a_gpu_the_last_step_stands_for_all_and_only_what_it_has_not_to_do_is_waiting(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    gpu = torch.device("cuda")
    spent = {"read": 1.0, "decode": 4.0, "resize": 2.0, "slot": 5.0}
    loader = SimpleNamespace(
        stopwatch=Stopwatch(gpu), config=DataConfig("x", num_workers=2), spent=lambda: dict.fromkeys(spent, 0.0)
    )
    step = Stopwatch(gpu)
    shown = Spent(loader, step)
    shown.begin()
    for last in (False, False, True):
        shown.measure(last=last)
        with loader.stopwatch("copy"):
            Event.now += 0.25 if last else 100
        with step("student"), step("teacher"):
            Event.now += 0.25
        with step("student"):
            Event.now += 0.75
    loader.spent = lambda: spent
    shares = shown.shares(3, 6.0, 5.0)
    assert [shares[f"time/{name}"] for name in spent] == [1 / 12, 4 / 12, 2 / 12, 5 / 12]
    assert shares["time/teacher"] == 0.75 / 6
    assert shares["time/student"] == 2.25 / 6  # without the teacher
    assert shares["time/copy"] == 0.75 / 6
    assert shares["time/data"] == 2.25 / 6  # of 5 seconds that the trainer waited


def test_calls_of_a_module_are_measured_within_others_and_only_when_it_is_on():
    stopwatch, module = Stopwatch(torch.device("cpu")), torch.nn.Identity()
    stopwatch.around(module, "inside", within="outside")
    stopwatch.around(module, "anywhere")
    module(1)
    assert stopwatch.read() == {}
    stopwatch.on = True
    module(1)
    assert stopwatch.read().keys() == {"anywhere"}
    with stopwatch("outside"):
        module(1)
        time.sleep(0.01)
        module(1)
    seconds = stopwatch.read()
    assert 0 < seconds["inside"] < 0.01 < seconds["outside"]
    assert stopwatch.read() == seconds
