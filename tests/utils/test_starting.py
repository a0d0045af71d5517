"""Signals in the seconds in which a command imports its modules."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from training.signals import Stop
from utils.console import exit_with_its_code, resumable
from utils.starting import begin

COMMANDS = [
    *("train_with_distillation.py", "dataset/img2lmdb.py", "-m tools.export", "-m figures.tsne", "-m partition"),
    *("-m benchmarks.loader", "-m demo"),
]


@pytest.fixture(autouse=True)
def of_python():
    """Python's handlers, which children get too: a shell ignores Ctrl-C for what runs in the background."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield [*handlers.values()]
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def started(tmp_path):
    """A function that starts a command, which gets a signal when it imports torch or NumPy."""

    def start(command, name, **environment):
        for module in ("torch", "numpy"):
            (tmp_path / f"{module}.py").write_text(
                f"import os, signal, time\nos.kill(os.getpid(), signal.{name})\ntime.sleep(60)\n"
            )
        return subprocess.run(
            [sys.executable, *command.split()],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return start


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_while_modules_load_is_one_line(started, command, name, code):
    done = started(command, name)
    line = f"stopped by a signal ({name}) before it had begun; the same command begins again\n"
    assert (done.returncode, done.stderr, done.stdout) == (code, line, "")


def test_of_several_ranks_the_first_says_so(started):
    assert started(COMMANDS[0], "SIGINT", RANK="1").stderr == ""


def test_a_command_that_has_begun_takes_signals_itself(capsys, of_python):
    begin()
    for kind, line in ((exit_with_its_code, "stopped"), (resumable, "stopped; the same command resumes from here")):
        with pytest.raises(SystemExit) as ended:
            kind(lambda: signal.raise_signal(signal.SIGINT))()
        assert (ended.value.code, capsys.readouterr().err) == (130, f"{line}\n")
        begin()
    with Stop() as stop:
        stop.defer()
        signal.raise_signal(signal.SIGTERM)
    assert stop.asked == "a signal"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == of_python


def test_a_signal_that_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begin()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
