"""A run's folder: who writes it, what it remembers, what becomes of damage, full disks, loggers and signals."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from at_step import at_step
from conftest import ROOT
from run_folders import begin, no_remarks
from small_run import learned, words
from torch.utils import tensorboard

import train_with_distillation as door
from dataset import Samples
from figures.curves import read_metrics
from training import advice, logs
from training.facts import changes, facts_of
from training.run_folder import RunFolder
from training.signals import Stop
from utils.distributed import Ranks
from utils.errors import DataError, UsageError

ONE = Ranks(0, 1, torch.device("cpu"))


# Who writes it


def test_a_folder_that_a_living_run_writes_is_refused(tmp_path):
    first, second = (RunFolder(tmp_path / "run") for _ in range(2))
    begin(first, no_remarks, {}, fresh=False)
    holder = rf"run is written by a run that is still going \(process {os.getpid()} on {socket.gethostname()}\)"
    for fresh in (False, True):
        with pytest.raises(UsageError, match=holder):
            begin(second, no_remarks, {}, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    first.close()
    begin(second, no_remarks, {}, fresh=True)
    with pytest.raises(UsageError, match=holder):
        begin(first, no_remarks, {}, fresh=False)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_a_run_prints_so_and_continues(tmp_path, monkeypatch, capsys, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr("os.environ", {name: value for name, value in os.environ.items() if "LOCKS" not in name})
    begin(RunFolder(tmp_path / "run"), no_remarks, {}, fresh=False)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_folder_that_cannot_be_written_names_the_setting(tmp_path, monkeypatch, number):
    def mkdir(*_args, **_more):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(UsageError, match=f"train_params.output_path: .*run cannot be written: {os.strerror(number)}"):
        begin(RunFolder(tmp_path / "run"), no_remarks, {}, fresh=False)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match=r"train_params.output_path: .*run.*: Not a directory"):
        begin(RunFolder(tmp_path / "run"), no_remarks, {}, fresh=False)


# What it read


class Split(Samples):
    def __init__(self, classes="abc", labels=(0, 1, 2, 0), keys="wxyz"):
        self.classes, self.labels, self._keys = tuple(classes), np.array(labels), list(keys)

    def __len__(self):
        return len(self.labels)

    def read(self, index):
        raise NotImplementedError

    def keys(self):
        return self._keys


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (Split(), ""),
        (Split("abcd"), "the train split had 3 classes then, 4 now (d is new)"),
        (Split("ab", (0, 1, 1, 0)), "had 3 classes then, 2 now (c is gone)"),
        (Split("bac"), "had 3 classes then, 3 now (label 0 was a, is b, label 1 was b, is a)"),
        (Split(labels=(0, 1, 2, 0, 1), keys="wxyzv"), "had 4 images then, 5 now"),
        (Split(labels=(0, 1, 2, 1)), "had other images or labels (SHA-256"),
        (Split(keys="wxzy"), "had other images or labels (SHA-256"),
    ],
)
def test_other_data_is_distinguished_from_the_same_data_elsewhere(now, message):
    then, none = facts_of({"train": Split()}, torch.nn.ModuleDict(), {}), torch.nn.ModuleDict()
    found = changes(json.loads(json.dumps(then)), facts_of({"train": now}, none, {}))
    assert message in found
    assert bool(message) == bool(found)


def test_a_resumed_run_refuses_other_data_and_other_teachers(digits, tmp_path, run, finished, monkeypatch):
    distilled = words(digits, tmp_path, "train_params.epochs=1", "teachers.teacher.name=cifar_resnet8")
    distilled.append("teachers.teacher.expect=0")
    distilled.append("method=wsld")
    distilled.append("teachers.teacher.expect=0")
    weights = tmp_path / "teacher.safetensors"
    distilled.append(f"teachers.teacher.weights={weights}")
    shutil.copy(finished / "student.safetensors", weights)
    assert run(*distilled)[0] == 0
    moved = shutil.copytree(digits / "lmdb", tmp_path / "moved")
    assert run(*distilled, f"data.data_path={moved}")[0] == 0
    for name, other in (("train", "x"), ("val", "train"), ("x", "val")):
        (moved / name).rename(moved / other)
    code, _, errors = run(*distilled, f"data.data_path={moved}")
    assert code == 2
    assert "the train split had 120 images then, 41 now" in errors
    (tmp_path / "run/facts.json").unlink()  # as older versions left it
    other = torch.load(finished / "last.pt", weights_only=True)["student"]
    torch.save({name: value + 1 for name, value in other.items()}, weights.with_suffix(".pth"))
    (tmp_path / "run/config.json").write_text(
        (tmp_path / "run/config.json").read_text().replace("teacher.safetensors", "teacher.pth")
    )
    distilled[-1] = f"teachers.teacher.weights={weights.with_suffix('.pth')}"
    assert run(*distilled)[0] == 0  # notes what there is now
    torch.save(other, weights.with_suffix(".pth"))
    code, _, errors = run(*distilled)
    assert code == 2
    assert "teachers.teacher had other weights (SHA-256 " in errors


# Loggers


def broken(*_args, **_more):
    raise RuntimeError("out of order")


@pytest.mark.parametrize("place", ["__init__", "add_scalar", "close", "thread"])
def test_a_broken_tensorboard_is_one_line(tmp_path, monkeypatch, capsys, place):
    if place == "thread":
        monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", broken)
    else:
        monkeypatch.setattr(tensorboard.SummaryWriter, place, broken)
    monkeypatch.setattr("threading.excepthook", pytest.fail)
    log = logs.Logs(tmp_path, 0, 0, {}, None)
    for step in range(1, 30):
        log.log("train", {"epoch": 1, "step": step, "loss": 1.0})
    log.close()
    assert len(read_metrics(tmp_path)) == 29
    printed = capsys.readouterr().err
    assert printed == "TensorBoard is off, the run continues without it: RuntimeError: out of order\n"


@pytest.mark.parametrize("place", ["init", "log", "finish"])
def test_a_broken_wandb_is_one_line(tmp_path, monkeypatch, capsys, place):
    works = {"init": lambda **_: types.SimpleNamespace(**wandb), "log": lambda *_, **__: None, "finish": lambda: None}
    wandb = {**works, place: broken}
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(**wandb))
    log = logs.Logs(tmp_path, 0, 0, {}, "project")
    for step in (1, 2, 3):
        log.log("train", {"epoch": 1, "step": step, "loss": 1.0})
    log.close()
    assert len(read_metrics(tmp_path)) == 3
    off = "Weights & Biases is off, the run continues without it: RuntimeError: out of order\n"
    assert capsys.readouterr().err == off


def test_broken_curves_do_not_end_a_run(digits, tmp_path, run, monkeypatch):
    monkeypatch.setattr("figures.curves.draw", broken)
    code, output, errors = run(*words(digits, tmp_path, "train_params.epochs=1"))
    assert code == 0
    assert "curves.png is off" in errors
    assert "best after epoch 1" in output
    (row, *_), environment = read_metrics(tmp_path / "run"), json.loads((tmp_path / "run/environment.json").read_text())
    assert row["seconds"] > 0
    assert row["time"].endswith("+00:00")
    assert environment["devices"] == ["cpu"]
    assert environment["hosts"] == [socket.gethostname()]
    assert "images 41," in output


@pytest.mark.parametrize("git", [None, "#!/bin/sh\necho dubious ownership >&2; exit 128\n"])
def test_without_git_there_is_no_revision(tmp_path, monkeypatch, git):
    monkeypatch.setenv("PATH", str(tmp_path))
    if git is not None:
        (tmp_path / "git").write_text(git)
        (tmp_path / "git").chmod(0o755)
    begin(RunFolder(tmp_path / "run"), no_remarks, {}, fresh=False)
    assert json.loads((tmp_path / "run/environment.json").read_text())["git"] is None


# What a user can do something about


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        MemoryError("Unable to allocate 7 GiB"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_short_memory_names_what_to_lower(error):
    with pytest.raises(UsageError, match=r"lower data.batch_size .* train_params.accumulate"), advice.advising():
        raise error


def test_a_file_that_cannot_be_read_is_named():
    with pytest.raises(DataError, match="here/x: Is a directory"), advice.advising():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", "here/x")


@pytest.mark.parametrize(
    "error", [RuntimeError("other"), OSError(errno.EIO, "other"), DataError("other: Cannot allocate memory")]
)
def test_other_errors_stay(error):
    with pytest.raises(type(error), match="other"), advice.advising():
        raise error


# What asks it to stop


@pytest.fixture
def hangup_counts():
    """SIGHUP is not ignored, which it is below nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup_counts")
def test_a_signal_is_acknowledged_and_the_saved_run_resumes(digits, tmp_path, run, finished, monkeypatch):
    command = words(digits, tmp_path)
    with monkeypatch.context() as patch:
        at_step(9, lambda: signal.raise_signal(signal.SIGHUP), patch)
        code, _, errors = run(*command)
    assert code == 75
    assert "stopped by a signal (SIGHUP): saving after this step; Ctrl-C again to stop at once\n" in errors
    assert "Stopped: stopped by a signal after step 9;" in errors
    assert run(*command)[0] == 0
    assert learned(tmp_path / "run") == learned(finished)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT"])
def test_every_signal_is_noted_and_the_first_counts(capfd, name):
    with Stop() as stop:
        stop.defer()
        signal.raise_signal(getattr(signal, name))
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked == "a signal"
    assert capfd.readouterr().err.count("\n") == 1


def test_a_second_ctrl_c_ends_at_once(monkeypatch, capfd):
    monkeypatch.setattr("os._exit", sys.exit)
    with Stop() as stop:
        stop.defer()
        signal.raise_signal(signal.SIGINT)
        assert stop.asked == "a signal"
        with pytest.raises(SystemExit) as end:
            signal.raise_signal(signal.SIGINT)
    assert end.value.code == 130
    assert capfd.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("place", ["networks.open_splits", "networks.build_distillers"])
def test_a_signal_before_the_first_step_is_one_line(digits, tmp_path, run, monkeypatch, place):
    monkeypatch.setattr(door, place.rpartition(".")[2], lambda *_: signal.raise_signal(signal.SIGTERM))
    code, _, errors = run(*words(digits, tmp_path))
    assert (code, errors) == (
        75,
        "Stopped: stopped by a signal (SIGTERM) before the first step; the same command begins again\n",
    )


def test_a_closed_pipe_saves_and_stops(digits, tmp_path, run, monkeypatch):
    theirs, ours = os.pipe()
    with os.fdopen(ours, "w") as out:
        monkeypatch.setattr("sys.stdout", out)
        at_step(5, lambda: os.close(theirs), monkeypatch)
        code, _, errors = run(*words(digits, tmp_path))
        print("lost", flush=True)  # nothing is left to fail at the end
    assert code == 75
    assert "Stopped: stopped by a closed pipe after step 6;" in errors


@pytest.mark.parametrize("asked", ["--help", "--methods"])
def test_a_pipe_that_has_seen_enough_of_a_text_ends_it_without_a_word(asked):
    command = [sys.executable, "train_with_distillation.py", asked]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_nohup_is_respected_and_all_is_put_back(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        streams = sys.stdout, sys.stderr
        with Stop() as stop:
            stop.defer()
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked
        assert (sys.stdout, sys.stderr) == streams
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_log_file_on_a_full_disk_ends_nothing(monkeypatch):
    with Path("/dev/full").open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        with Stop() as stop:
            stop.defer()
            print("lost", flush=True)
            assert not stop.asked
