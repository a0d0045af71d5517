"""Checkpoints and logs that are damaged, of another run, or find no space."""

import errno
import json
import os
import resource
import signal
import types
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from at_step import at_step
from run_folders import begin, no_remarks
from small_run import learned, words

import train_with_distillation as door
from configs import digits as demo
from figures.curves import read_metrics
from training import checkpoint, logs
from training.run_folder import RunFolder
from utils.distributed import Ranks
from utils.errors import DataError

ONE = Ranks(0, 1, torch.device("cpu"))


# Damage


def test_a_damaged_last_checkpoint_names_the_way_to_the_best(digits, run, copy, finished):
    command = words(digits, copy.parent)
    whole = (copy / "last.pt").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    best = json.loads(torch.load(copy / "best.pt", weights_only=True)["position"])
    for content in (bytes(flipped), whole[: len(whole) // 2], b""):
        (copy / "last.pt").write_bytes(content)
        code, _, error = run(*command)
        assert code == 3
        assert "last.pt is damaged" in error
        assert f"delete it, and the same command resumes from best.pt, after epoch {best['epoch']}" in error
    (copy / "last.pt").unlink()
    code, output, _ = run(*command)
    assert code == 0
    assert "last.pt is missing: best.pt takes its place" in output
    assert f" after step {best['step']}" in output
    assert learned(copy) == learned(finished)


def test_no_checkpoint_is_never_a_silent_start(digits, run, copy):
    command, scores = words(digits, copy.parent), (copy / "metrics.jsonl").read_text()
    (copy / "last.pt").unlink()
    (copy / "best.pt").write_bytes(b"")
    code, _, error = run(*command)
    assert code == 3
    assert "best.pt is damaged" in error
    (copy / "best.pt").unlink()
    code, _, error = run(*command)
    assert code == 3
    assert "metrics.jsonl has scores: put one back, or start over with --fresh" in error
    assert (copy / "metrics.jsonl").read_text() == scores


def without(name):
    return lambda last: {key: value for key, value in last.items() if key != name}


def replaced(name, value):
    return lambda last: {**last, name: value}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda last: [1, 2], "TypeError"),
        (without("meters"), "meters"),
        (replaced("position", "{}"), "stage"),
        (replaced("position", '{"stage": 7}'), "IndexError"),
        (
            replaced("ema", None),
            "EMA: conv1.weight none -> [16, 3, 3, 3]",
        ),
        (replaced("meters", torch.zeros(9)), "does not fit this run"),
        (replaced("optimizer", {"state": {}, "param_groups": []}), "parameter group"),
        (lambda last: last["student"].pop("fc.weight") is None or last, "student: fc.weight none -> [10, 64]"),
        (lambda last: last["student"].update({"fc.bias": torch.zeros(7)}) or last, "student: fc.bias [7] -> [10]"),
        (lambda last: last["optimizer"]["param_groups"][0].pop("momentum") is None or last, "the optimizer's momentum"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_name(digits, run, copy, spoil, message):
    torch.save(spoil(torch.load(copy / "last.pt", weights_only=True)), copy / "last.pt")
    code, _, error = run(*words(digits, copy.parent))
    assert code == 2
    assert message in error
    assert "last.pt does not fit this run" in error


def test_what_torch_fills_in_may_be_missing(digits, run, copy):
    last = torch.load(copy / "last.pt", weights_only=True)
    del last["optimizer"]["param_groups"][0]["maximize"]
    torch.save(last, copy / "last.pt")
    assert run(*words(digits, copy.parent))[0] == 0


@pytest.mark.parametrize("name", ["config.json", "facts.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"{", b"[]", b"null"])
def test_damaged_json_is_named(tmp_path, name, content):
    first, second = (RunFolder(tmp_path / "run") for _ in range(2))
    begin(first, no_remarks, {}, fresh=False)
    first.close()
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is damaged .*: restore it; or delete it"):
        begin(second, no_remarks, {}, fresh=False)


def test_json_with_damage_inside_is_named(tmp_path):
    facts = {"data": {"train": {"classes": ["a"], "images": 3, "sha256": "0"}}, "teachers": {"teacher": "0"}}
    first, second = (RunFolder(tmp_path / "run") for _ in range(2))
    begin(first, no_remarks, facts, fresh=False)
    first.close()
    for value in (None, [], {}, 3, "x", {"train": []}, {"train": {"clasres": []}}, {"train": {"classes": [[]]}}):
        (tmp_path / "run/facts.json").write_text(json.dumps({**facts, "data": value}))
        try:
            begin(second, no_remarks, facts, fresh=False)
        except DataError as error:
            assert "facts.json is damaged" in str(error)  # noqa: PT017
        else:
            assert value == {}  # as of a run from before there were facts
        second.close()
    for name, message in (("lacks", "it lacks a setting"), ("epochs", "TypeError")):
        begun = {} if name == "lacks" else {**asdict(demo.cfg()), "train_params": {"epochs": {}}}
        (tmp_path / "run/config.json").write_text(json.dumps(begun))
        with pytest.raises(DataError, match=f"config.json is damaged .*{message}"):
            begin(second, demo.cfg().resume_remarks, facts, fresh=False)
        second.close()


def test_damaged_metrics_are_left_out_and_kept(tmp_path, capsys):
    rows = [json.dumps({"kind": "train", "step": step, "epoch": 1, "loss": 1.0}).encode() for step in range(1, 4)]
    damaged = b"\n".join([rows[0], b"\xff\xfe\0\0", rows[1], b'{"kind": "val"}', b"[]", b"3", rows[2][:20]])
    (tmp_path / "metrics.jsonl").write_bytes(damaged)
    logs.Logs(tmp_path, 0, 1, {}, None).close()
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]
    assert "4 lines cannot be read and are left out" in capsys.readouterr().err
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == damaged


# Full disks


def full(*_args, **_more):
    raise DataError("the disk is full")


def read_only(*_args, **_more):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize(
    ("fail", "first", "fails", "best_epoch"),
    [
        (full, 3, ["best.pt", "last.pt", "last.pt"], 2),
        (read_only, 3, ["best.pt", "last.pt", "last.pt"], 2),
        (full, 5, ["last.pt"], 1),  # best.pt and the exported student are there
    ],
)
def test_a_checkpoint_without_space_is_tried_again(
    digits, tmp_path, run, finished, monkeypatch, fail, first, fails, best_epoch
):
    write, calls = checkpoint.write_atomically, []

    def failing(path, content):
        calls.append(path.name)
        (fail if first <= len(calls) < first + len(fails) else write)(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", failing)
    tops = iter(range(60, 0, -10))  # of student and EMA in turn: the first epoch is the best
    monkeypatch.setattr(door.Scorer, "__call__", lambda *_: {"top1": next(tops), "images": 41.0})
    monkeypatch.setattr(door.Scorer, "write", lambda *_: None)
    code, _, error = run(*words(digits, tmp_path))
    assert code == 0
    assert error.count("the one before it stays") == len(fails)
    assert calls[first - 1 :][: len(fails)] == fails
    last, best = (torch.load(tmp_path / "run" / name, weights_only=True)["position"] for name in ("last.pt", "best.pt"))
    assert json.loads(last)["step"] == 18
    assert json.loads(last)["best"] == json.loads(best)["best"]  # what best.pt holds
    assert json.loads(best)["epoch"] == best_epoch
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [row["step"] for row in read_metrics(finished)]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_run_whose_last_checkpoint_is_not_saved_fails(digits, tmp_path, run, monkeypatch, stopped):
    monkeypatch.setattr(checkpoint, "write_atomically", full)
    if stopped:
        at_step(2, lambda: signal.raise_signal(signal.SIGTERM), monkeypatch)
    code, _, error = run(*words(digits, tmp_path, "train_params.epochs=1"))
    assert code == 3
    assert f"the state after step {2 if stopped else 6} is not saved: the disk is full" in error


def test_lines_without_space_are_written_later(tmp_path, monkeypatch, capsys):
    log = logs.Logs(tmp_path, 0, 0, {}, None)
    opened = Path.open
    for step in range(1, 6):
        monkeypatch.setattr(Path, "open", read_only if step in (2, 3) else opened)
        log.log("train", {"epoch": 1, "step": step})
    log.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_half_a_line_is_taken_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logs, "_tensorboard", lambda *_: types.SimpleNamespace(add_scalar=print, close=print))
    log, limits = logs.Logs(tmp_path, 0, 0, {}, None), resource.getrlimit(resource.RLIMIT_FSIZE)
    log.log("train", {"epoch": 1, "step": 1})
    size = (tmp_path / "metrics.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))  # as a disk with space for ten bytes
    try:
        log.log("train", {"epoch": 1, "step": 2})
        assert (tmp_path / "metrics.jsonl").stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.log("train", {"epoch": 1, "step": 3})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    assert "no space for a line" in capsys.readouterr().err  # and not in a file, for which there is no space


def test_lines_without_space_at_the_end_are_printed(tmp_path, monkeypatch, capsys):
    log = logs.Logs(tmp_path, 0, 0, {}, None)
    monkeypatch.setattr(Path, "open", read_only)
    log.log("train", {"epoch": 1, "step": 77})
    log.close()
    assert '"step": 77' in capsys.readouterr().err
