"""The seconds in which a command imports its modules: a signal ends it there with one line in place of a traceback."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

_OF_PYTHON: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


def begin() -> None:
    """From now on Ctrl-C and SIGTERM end the process with one line, and 130 or 143 as shells have it."""
    for number in _OF_PYTHON:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell sets it for what runs in the background
            signal.signal(number, _stop)


def end() -> None:
    """Let Python do what it does on these signals, where `begin` was called."""
    for number, handler in _OF_PYTHON.items():
        if signal.getsignal(number) is _stop:
            signal.signal(number, handler)


def say(line: str) -> None:
    """Print on stderr past Python's buffers, which a signal may have found half written; of several ranks the first."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):
            os.write(2, f"{chr(10) * os.isatty(2)}{line}\n".encode())


def _stop(number: int, _frame: Any) -> None:
    say(f"stopped by a signal ({signal.Signals(number).name}) before it had begun; the same command begins again")
    os._exit(128 + number)
