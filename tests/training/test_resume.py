"""A run that is killed, stopped or moved to other ranks ends as the run that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, call
from processes import alive, wait_until
from small_run import KILL_AT_STEP, KILL_BEFORE_RENAME, learned, words

from figures.curves import read_metrics


@pytest.fixture(scope="module")
def uninterrupted(finished):
    return learned(finished)


@pytest.mark.parametrize(
    "breaking",
    [
        pytest.param(KILL_AT_STEP.format(step=2, signal="SIGKILL"), id="before the first checkpoint"),
        pytest.param(KILL_AT_STEP.format(step=11, signal="SIGKILL"), id="in mid-epoch"),
        pytest.param(KILL_BEFORE_RENAME.format(number=2), id="inside a checkpoint"),
        pytest.param(KILL_BEFORE_RENAME.format(number=4), id="between best and last"),
    ],
)
def test_a_killed_run_resumes_bit_for_bit(digits, tmp_path, uninterrupted, breaking, train, altered):
    altered(breaking, *words(digits, tmp_path), code=-signal.SIGKILL)
    train(*words(digits, tmp_path))
    assert learned(tmp_path / "run") == uninterrupted


def test_a_lengthened_run_equals_one_that_was_as_long_from_the_start(digits, tmp_path, train):
    steps = ["optim.schedule=step", "optim.milestones=1"]
    train(*words(digits, tmp_path, *steps, "epochs=2"))
    longer = train(*words(digits, tmp_path, *steps))
    assert "resumes with other settings: epochs 2 -> 3" in longer.stdout
    train(*words(digits, tmp_path, *steps, "name=whole"))
    assert learned(tmp_path / "run") == learned(tmp_path / "whole")
    # Any run may start from its student.
    weights = f"student.weights={tmp_path / 'run' / 'student.safetensors'}"
    train(*words(digits, tmp_path, weights, "name=on", "epochs=1"))


def test_sigterm_saves_and_exits_75(digits, tmp_path, uninterrupted, train, altered):
    stopped = altered(KILL_AT_STEP.format(step=9, signal="SIGTERM"), *words(digits, tmp_path), code=75)
    assert "stopped by a signal after step 9" in stopped.stderr
    resumed = train(*words(digits, tmp_path))
    assert "resumes after step 9" in resumed.stdout
    assert learned(tmp_path / "run") == uninterrupted


def test_two_ranks_stop_and_one_resumes(digits, tmp_path, train):
    run = tmp_path / "run"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    stop = KILL_AT_STEP.format(step=9, signal="SIGTERM")
    stopped = call(*torchrun, "tests/door.py", stop, *words(digits, tmp_path), code=1)
    assert stopped.stderr.count("stopped by a signal after step 10") == 1  # ranks agree every ten steps
    resumed = train(*words(digits, tmp_path))
    assert "resumes after step 10" in resumed.stdout
    assert [row["step"] for row in read_metrics(run) if row["kind"] == "train"] == [3, 6, 9, 12, 15, 18]


def test_a_plain_command_starts_a_rank_on_each_gpu(digits, tmp_path, altered):
    two_gpus = "import torch; torch.cuda.device_count = lambda: 2"  # the ranks themselves find none and use gloo
    altered(two_gpus, *words(digits, tmp_path, "epochs=1"), code=0)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["ranks"] == 2
    refused = altered(two_gpus, *words(digits, tmp_path), code=2).stderr  # by the ranks: other epochs
    assert "epochs 1 -> 3" in refused
    assert refused.count("\n") == 1


def test_ctrl_c_leaves_no_process_behind(digits, tmp_path):
    command = [sys.executable, "train_with_distillation.py", *words(digits, tmp_path), "data.num_workers=2"]
    process = subprocess.Popen(
        [*command, "epochs=500"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "run" / "last.pt").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    children = _children(process.pid)
    assert len(children) >= 2
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 75, output
    assert "Traceback" not in output
    wait_until(lambda: not any(map(alive, children)))


def _children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
