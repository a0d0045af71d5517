"""Packing processes: what happens in them is heard, and none is left behind."""

import errno
import os
from multiprocessing.context import SpawnProcess

import jobs
import pytest

from dataset.store.pool import work_through
from utils.errors import DataError


def test_what_happens_in_a_packing_process_is_heard(capfd):
    steps = []
    assert work_through(jobs.work, ["two", "three"], 4, steps.append) == ["TWO", "THREE"]
    assert sorted(steps) == [3, 5]
    for job, error, reason in (
        ("kill", DataError, "a packing process was killed at b/bomb"),
        ("refuse", DataError, "refused"),
        ("fail", KeyError, "bug"),
    ):
        steps.clear()
        with pytest.raises(error, match=reason):
            work_through(jobs.work, ["two", job, *(["three"] * 20)], 1, steps.append)
        assert sum(steps) == 3  # those behind it were not begun
        assert ("Traceback" in capfd.readouterr().err) == (job == "fail")
    with pytest.raises(DataError, match=r"a/slow\.JPEG: still decoding after 1 s; take it out of the list"):
        work_through(jobs.work, ["hang"], 1, steps.append, seconds=1.0)


def test_a_process_that_cannot_be_started_ends_the_others(monkeypatch):
    start, started = SpawnProcess.start, []

    def refuse_the_second(process):
        if started:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        start(process)
        started.append(process)

    monkeypatch.setattr(SpawnProcess, "start", refuse_the_second)
    with pytest.raises(BlockingIOError, match=os.strerror(errno.EAGAIN)):
        work_through(jobs.work, ["two", "three"], 2, lambda steps: None)
    assert not started[0].is_alive()
