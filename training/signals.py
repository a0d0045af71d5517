"""What asks a run to stop: a signal, or a reader of its output that has gone."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any, cast

from utils import starting
from utils.errors import Stopped
from utils.starting import say

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)  # SIGUSR1 is Slurm's warning
_AT_ONCE = 130  # a shell's exit code for Ctrl-C


class Stop:
    """Takes note, while it is entered, of what asks the command to stop.

    Until `defer` it ends there and then, with one line and the exit code of `Stopped`, for there is nothing to save.
    From then on the training loop reads `asked` after each step; a Ctrl-C that comes after another request ends the
    process at once.
    """

    def __init__(self) -> None:
        self.asked = ""  # what asked, as messages name it
        self._deferred = False

    def __enter__(self) -> Stop:
        starting.end()
        nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        kept = [number for number in _SIGNALS if number != signal.SIGHUP or not nohup]
        self._handlers = {number: signal.signal(number, self._note) for number in kept}
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (cast(Any, stream and _Stream(stream, self)) for stream in self._streams)
        return self

    def __exit__(self, *_error: object) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, _Stream):
                stream.end()
        sys.stdout, sys.stderr = self._streams
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def defer(self) -> None:
        """From now on there is something to save first."""
        self._deferred = True

    def ask(self, who: str, *, why: str = "", at_once: bool = False) -> None:
        """Stop as soon as may be, because of ``who``; ``why`` is printed behind it."""
        if not self._deferred:
            say(f"{Stopped.__name__}: stopped by {who}{why} before the first step; the same command begins again")
            raise SystemExit(Stopped.exit_code)
        if self.asked and at_once:
            say("stopped at once; the same command resumes from the last checkpoint, if there is one")
            os._exit(_AT_ONCE)
        if not self.asked:
            self.asked = who
            say(f"stopped by {who}{why}: saving after this step; Ctrl-C again to stop at once")

    def _note(self, number: int, _frame: object) -> None:
        self.ask("a signal", why=f" ({signal.Signals(number).name})", at_once=number == signal.SIGINT)


class _Stream:
    """A text stream that loses what cannot be written, in place of an error; one that nobody reads asks to stop."""

    def __init__(self, stream: Any, stop: Stop) -> None:
        self._stream, self._stop = stream, stop

    def write(self, text: str) -> int:
        """As the stream does."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        """As the stream does."""
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def end(self) -> None:
        """Lose what cannot be written even now, which would become Python's exit code."""
        try:
            self._stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _fail(self, error: OSError) -> None:
        if error.errno == errno.EPIPE:  # a full disk may have space again
            self._stop.ask("a closed pipe")
