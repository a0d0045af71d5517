"""Ranks that die or hang: the others print which and when, a restart resumes; what all would print is printed once."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from conftest import ROOT, call
from small_run import KILL_AT_STEP, learned, words
from torch import distributed as dist

from utils.console import exit_with_its_code
from utils.distributed import _attempt, printed_once, ranks
from utils.errors import RankLost, UsageError

# Both ranks give up after seconds in a collective, but wait for each other at the start however slow the machine is.
HURRY = """
import datetime, os
from torch import distributed
init = distributed.init_process_group
distributed.init_process_group = lambda *a, **more: init(*a, **{**more, "timeout": datetime.timedelta(seconds=8)})
if os.environ["RANK"] == "1":
"""


def test_a_killed_rank_comes_back_at_the_first_restart(digits, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    call(*torchrun, "train_with_distillation.py", *words(digits, tmp_path, "name=whole"))
    kill = KILL_AT_STEP.format(step=9, signal="SIGKILL").replace("\n", "\n    ")
    once = f'import os\nif (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", "0"):\n    {kill}'
    done = call(*torchrun, "tests/door.py", once, *words(digits, tmp_path))
    assert "resumes after step 8" in done.stdout
    assert done.stderr.count("RankLost: rank 1 ended or does not answer at step 10") == 1
    assert learned(tmp_path / "run") == learned(tmp_path / "whole")


def test_a_hung_rank_is_named_with_the_step_and_the_setting(digits, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    hang = HURRY + KILL_AT_STEP.format(step=4, signal="SIGSTOP").replace("\n", "\n    ")
    started = []
    for rank in "01":
        place = {**os.environ, **address, "WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "tests/door.py", hang, *words(digits, tmp_path)]
        started.append(subprocess.Popen(command, cwd=ROOT, env=place, stderr=subprocess.PIPE, text=True))
    try:
        _, printed = started[0].communicate(timeout=120)
    finally:
        started[1].send_signal(signal.SIGKILL)
        started[1].communicate()
    assert started[0].returncode == 5, printed
    assert "RankLost: rank 1 ended or does not answer at step 5 (Timed out waiting; seen by rank 0)" in printed
    assert "train_params.timeout_minutes" in printed
    assert "Traceback" not in printed


def test_every_start_of_the_ranks_has_a_name_of_its_own():
    store, draws, names = dist.HashStore(), random.Random(0), []
    for attempt in range(6):
        missing = draws.randrange(3) if attempt % 2 else None  # one of the ranks died before it came
        limit = timedelta(seconds=60 if missing is None else 0.5)
        found = {}

        def join(rank, pause, found=found, limit=limit):
            time.sleep(pause)
            try:
                found[rank] = _attempt(store, rank, 3, limit)
            except (RuntimeError, RankLost):
                found[rank] = None

        there = [rank for rank in range(3) if rank != missing]
        threads = [threading.Thread(target=join, args=(rank, draws.random() / 5)) for rank in there]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == len(there)
        assert len(set(found.values())) == 1
        if missing is None:
            names.append(found[0])
        else:
            assert not any(found.values())
    assert len(set(names)) == 3


def test_half_of_an_environment_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match="WORLD_SIZE=4 is set and RANK is not"), ranks(1):
        pass


@pytest.mark.parametrize(
    ("rank", "ended", "printed", "code"),
    [
        ("0", False, "warning\nUsageError: wrong\n", 2),
        ("1", True, "", 75),  # by torchrun, because the first has ended
        ("1", False, "warning\nUsageError: wrong\n", 2),  # the others know nothing of it
    ],
)
def test_what_all_would_print_before_they_meet_is_printed_once(monkeypatch, capsys, rank, ended, printed, code):
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(time, "sleep", lambda seconds: ended and sys.exit(75))
    with pytest.raises(SystemExit) as end:
        exit_with_its_code(_warn_and_fail)()
    assert (capsys.readouterr().err, end.value.code) == (printed, code)


def _warn_and_fail():
    with printed_once():
        print("warning", file=sys.stderr)
        raise UsageError("wrong")
