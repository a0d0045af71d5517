"""A run's folder: who writes it, what it remembers, what becomes of damage, full disks, loggers and signals."""

import errno
import gc
import json
import os
import resource
import shutil
import signal
import socket
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from test_resume import learned, words
from torch.utils import tensorboard

import train_with_distillation as door
from figures.curves import read_metrics
from training import advice, checkpoint, logs
from training.facts import changes, facts_of
from training.meters import Meters
from training.run_folder import RunFolder
from training.signals import Stop
from utils.distributed import Ranks
from utils.errors import DataError, UsageError

ONE = Ranks(0, 1, torch.device("cpu"))


def no_remarks(begun):
    """On a run of other settings."""
    return ()


@pytest.fixture
def run(monkeypatch, capfd):
    """The door in this process: its exit code, and what it printed."""

    def call(*words):
        monkeypatch.setattr("sys.argv", ["train_with_distillation.py", *words])
        try:
            door.main()
            code = 0
        except SystemExit as end:
            code = end.code
        gc.collect()  # shards that were open
        printed = capfd.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory):
    """A run of three epochs that nothing befell, in a folder called run."""
    runs = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["", *words(digits, runs)])
        door.main()
    gc.collect()
    return runs / "run"


@pytest.fixture
def copy(finished, tmp_path):
    """That run again, to be spoiled."""
    config = json.loads((finished / "config.json").read_text())
    config["train_params"]["output_path"] = str(tmp_path)
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    return tmp_path / "run"


def at_step(step, do, monkeypatch):
    """Do something when a training step has been taken in."""
    add = Meters.add

    def adding(self, outputs, labels, number):
        add(self, outputs, labels, number)
        if number == step:
            do()

    monkeypatch.setattr(Meters, "add", adding)


# Who writes it


def test_a_folder_that_a_living_run_writes_is_refused(tmp_path):
    first, second = (RunFolder(tmp_path / "run") for _ in range(2))
    first.prepare({}, no_remarks, {}, ONE, fresh=False)
    holder = rf"run is written by a run that lives \(process {os.getpid()} on {socket.gethostname()}\)"
    for fresh in (False, True):
        with pytest.raises(UsageError, match=holder):
            second.prepare({}, no_remarks, {}, ONE, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    first.close()
    second.prepare({}, no_remarks, {}, ONE, fresh=True)
    with pytest.raises(UsageError, match=holder):
        first.prepare({}, no_remarks, {}, ONE, fresh=False)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_a_run_says_so_and_goes_on(tmp_path, monkeypatch, capsys, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr("os.environ", {name: value for name, value in os.environ.items() if "LOCKS" not in name})
    RunFolder(tmp_path / "run").prepare({}, no_remarks, {}, ONE, fresh=False)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_folder_that_cannot_be_written_names_the_setting(tmp_path, monkeypatch, number):
    def mkdir(*_args, **_more):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(UsageError, match=f"train_params.output_path: .*run cannot be written: {os.strerror(number)}"):
        RunFolder(tmp_path / "run").prepare({}, no_remarks, {}, ONE, fresh=False)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match=r"train_params.output_path: .*run.*: Not a directory"):
        RunFolder(tmp_path / "run").prepare({}, no_remarks, {}, ONE, fresh=False)


# What it read


class Split:
    def __init__(self, classes="abc", labels=(0, 1, 2, 0), keys="wxyz"):
        self.classes, self.labels, self._keys = tuple(classes), np.array(labels), list(keys)

    def __len__(self):
        return len(self.labels)

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
def test_other_data_is_told_from_the_same_data_elsewhere(now, message):
    then, none = facts_of({"train": Split()}, torch.nn.ModuleDict()), torch.nn.ModuleDict()
    found = changes(json.loads(json.dumps(then)), facts_of({"train": now}, none))
    assert message in found
    assert bool(message) == bool(found)


def test_a_resumed_run_refuses_other_data_and_other_teachers(digits, tmp_path, run, finished, monkeypatch):
    distilled = words(digits, tmp_path, "train_params.epochs=1", "teachers.teacher.name=cifar_resnet8")
    distilled[1] = "configs/digits_wsld.py"
    weights = tmp_path / "teacher.safetensors"
    distilled.append(f"teachers.teacher.weights={weights}")
    shutil.copy(finished / "student.safetensors", weights)
    assert run(*distilled)[0] == 0
    moved = shutil.copytree(digits / "lmdb", tmp_path / "moved")
    assert run(*distilled, f"data.data_path={moved}")[0] == 0
    shutil.copytree(moved / "val", moved / "train", dirs_exist_ok=True)
    code, _, said = run(*distilled, f"data.data_path={moved}")
    assert code == 2
    assert "the train split had 120 images then, 41 now" in said
    (tmp_path / "run/facts.json").unlink()  # as older versions left it
    other = torch.load(finished / "last.pt", weights_only=True)["student"]
    torch.save({name: value + 1 for name, value in other.items()}, weights.with_suffix(".pth"))
    (tmp_path / "run/config.json").write_text(
        (tmp_path / "run/config.json").read_text().replace("teacher.safetensors", "teacher.pth")
    )
    distilled[-1] = f"teachers.teacher.weights={weights.with_suffix('.pth')}"
    assert run(*distilled)[0] == 0  # notes what there is now
    torch.save(other, weights.with_suffix(".pth"))
    code, _, said = run(*distilled)
    assert code == 2
    assert "teachers.teacher had other weights (SHA-256 " in said


# Damage


def test_a_damaged_last_checkpoint_names_the_way_to_the_best(digits, run, copy, finished):
    command = words(digits, copy.parent)
    whole = (copy / "last.pt").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    best = json.loads(torch.load(copy / "best.pt", weights_only=True)["position"])
    for content in (bytes(flipped), whole[: len(whole) // 2], b""):
        (copy / "last.pt").write_bytes(content)
        code, _, said = run(*command)
        assert code == 3
        assert "last.pt is damaged" in said
        assert f"delete it, and the same command goes on from best.pt, after epoch {best['epoch']}" in said
    (copy / "last.pt").unlink()
    code, told, _ = run(*command)
    assert code == 0
    assert "last.pt is missing: best.pt takes its place" in told
    assert f"goes on after step {best['step']}" in told
    assert learned(copy) == learned(finished)


def test_no_checkpoint_is_never_a_silent_start(digits, run, copy):
    command, scores = words(digits, copy.parent), (copy / "metrics.jsonl").read_text()
    (copy / "last.pt").unlink()
    (copy / "best.pt").write_bytes(b"")
    code, _, said = run(*command)
    assert code == 3
    assert "best.pt is damaged" in said
    (copy / "best.pt").unlink()
    code, _, said = run(*command)
    assert code == 3
    assert "metrics.jsonl has scores: put one back, or start over with --fresh" in said
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
    code, _, said = run(*words(digits, copy.parent))
    assert code == 2
    assert message in said
    assert "last.pt does not fit this run" in said


@pytest.mark.parametrize("name", ["config.json", "facts.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"{", b"[]", b"null"])
def test_damaged_json_is_named(tmp_path, name, content):
    first, second = (RunFolder(tmp_path / "run") for _ in range(2))
    first.prepare({}, no_remarks, {}, ONE, fresh=False)
    first.close()
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is damaged .*: restore it; or delete it"):
        second.prepare({}, no_remarks, {}, ONE, fresh=False)


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


@pytest.mark.parametrize("fail", [full, read_only])
def test_a_checkpoint_without_room_is_tried_again(digits, tmp_path, run, finished, monkeypatch, fail):
    write, calls = checkpoint.write_atomically, []

    def failing(path, content):
        calls.append(path.name)
        (fail if 3 <= len(calls) <= 5 else write)(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", failing)
    tops = iter(range(60, 0, -10))  # of student and EMA in turn: the first epoch is the best
    monkeypatch.setattr(door, "scorer", lambda *_: lambda logits: {"top1": next(tops), "images": 41.0})
    code, _, said = run(*words(digits, tmp_path))
    assert code == 0
    assert said.count("the one before it stays") == 3
    assert calls[2:5] == ["best.pt", "last.pt", "last.pt"]
    last, best = (torch.load(tmp_path / "run" / name, weights_only=True)["position"] for name in ("last.pt", "best.pt"))
    assert json.loads(last)["step"] == 18
    assert json.loads(last)["best"] == json.loads(best)["best"]  # what best.pt holds
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [row["step"] for row in read_metrics(finished)]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_run_whose_last_checkpoint_is_not_saved_fails(digits, tmp_path, run, monkeypatch, stopped):
    monkeypatch.setattr(checkpoint, "write_atomically", full)
    if stopped:
        at_step(2, lambda: signal.raise_signal(signal.SIGTERM), monkeypatch)
    code, _, said = run(*words(digits, tmp_path, "train_params.epochs=1"))
    assert code == 3
    assert f"the state after step {2 if stopped else 6} is not saved: the disk is full" in said


def test_lines_without_room_are_written_later(tmp_path, monkeypatch, capsys):
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
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))  # as a disk with room for ten bytes
    try:
        log.log("train", {"epoch": 1, "step": 2})
        assert (tmp_path / "metrics.jsonl").stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.log("train", {"epoch": 1, "step": 3})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    assert "no room for a line" in capsys.readouterr().err  # and not in a file, for which there is no room


def test_lines_without_room_at_the_end_are_printed(tmp_path, monkeypatch, capsys):
    log = logs.Logs(tmp_path, 0, 0, {}, None)
    monkeypatch.setattr(Path, "open", read_only)
    log.log("train", {"epoch": 1, "step": 77})
    log.close()
    assert '"step": 77' in capsys.readouterr().err


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
    assert printed == "TensorBoard is off, the run goes on without: RuntimeError: out of order\n"


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
    assert capsys.readouterr().err == "Weights & Biases is off, the run goes on without: RuntimeError: out of order\n"


def test_broken_curves_do_not_end_a_run(digits, tmp_path, run, monkeypatch):
    monkeypatch.setattr("figures.curves.draw", broken)
    code, told, said = run(*words(digits, tmp_path, "train_params.epochs=1"))
    assert code == 0
    assert "curves.png is off" in said
    assert "best after epoch 1" in told
    (row, *_), environment = read_metrics(tmp_path / "run"), json.loads((tmp_path / "run/environment.json").read_text())
    assert row["seconds"] > 0
    assert row["time"].endswith("+00:00")
    assert environment["devices"] == ["cpu"]
    assert environment["hosts"] == [socket.gethostname()]
    assert "images 41," in told


@pytest.mark.parametrize("git", [None, "#!/bin/sh\necho dubious ownership >&2; exit 128\n"])
def test_without_git_there_is_no_revision(tmp_path, monkeypatch, git):
    monkeypatch.setenv("PATH", str(tmp_path))
    if git is not None:
        (tmp_path / "git").write_text(git)
        (tmp_path / "git").chmod(0o755)
    RunFolder(tmp_path / "run").prepare({}, no_remarks, {}, ONE, fresh=False)
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
def test_short_memory_says_what_to_lower(error):
    with pytest.raises(UsageError, match=r"lower data.batch_size .* train_params.accumulate"), advice.advising():
        raise error


def test_a_file_that_cannot_be_read_is_named():
    with pytest.raises(DataError, match="here/x: Is a directory"), advice.advising():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", "here/x")


@pytest.mark.parametrize("error", [RuntimeError("other"), OSError(errno.EIO, "other"), DataError("other")])
def test_other_errors_stay(error):
    with pytest.raises(type(error), match="other"), advice.advising():
        raise error


# What asks it to stop


def test_a_signal_is_acknowledged_saves_and_goes_on(digits, tmp_path, run, finished, monkeypatch):
    command = words(digits, tmp_path)
    with monkeypatch.context() as patch:
        at_step(9, lambda: signal.raise_signal(signal.SIGHUP), patch)
        code, _, said = run(*command)
    assert code == 75
    assert "stopped by a signal (SIGHUP): saving after this step; Ctrl-C again to stop at once\n" in said
    assert "Stopped: stopped by a signal after step 9;" in said
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


@pytest.mark.parametrize("place", ["dataset.loader.open_split", "train_with_distillation.build_distiller"])
def test_a_signal_before_the_first_step_is_one_line(digits, tmp_path, run, monkeypatch, place):
    monkeypatch.setattr(door, place.rpartition(".")[2], lambda *_: signal.raise_signal(signal.SIGTERM))
    code, _, said = run(*words(digits, tmp_path))
    assert (code, said) == (
        75,
        "Stopped: stopped by a signal (SIGTERM) before the first step; the same command begins again\n",
    )


def test_a_closed_pipe_saves_and_stops(digits, tmp_path, run, monkeypatch):
    theirs, ours = os.pipe()
    with os.fdopen(ours, "w") as out:
        monkeypatch.setattr("sys.stdout", out)
        at_step(5, lambda: os.close(theirs), monkeypatch)
        code, _, said = run(*words(digits, tmp_path))
        print("lost", flush=True)  # nothing is left to fail at the end
    assert code == 75
    assert "Stopped: stopped by a closed pipe after step 6;" in said


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
