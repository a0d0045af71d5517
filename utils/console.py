"""What a person sees: progress, the last line of a failed command, and the names of pictures."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

from tqdm import tqdm

from utils import starting
from utils.errors import DataError, ExpectedError, UsageError

_Error = TypeVar("_Error", bound=BaseException)
_FULL = os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)

tqdm.set_lock(RLock())  # its own is a semaphore too, which a kill would leave in /dev/shm


def exit_with_its_code(main: Callable[[], object], on_interrupt: str = "stopped") -> Callable[[], None]:
    """Decorate a command: an expected error is printed as one line and ends the process with its exit code."""

    @wraps(main)
    def command() -> None:
        try:
            starting.end()
            main()
        except ExpectedError as error:
            sys.exit(report(error))
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)  # as of any tool that this ends, for its work may not be done
        except OSError as error:
            sys.exit(report(UsageError(f"{error.filename or 'input or output'}: {error.strerror or error}")))
        except KeyboardInterrupt:
            print(on_interrupt, file=sys.stderr)
            sys.exit(130)

    return command


def resumable(main: Callable[[], object]) -> Callable[[], None]:
    """As `exit_with_its_code`, of a command that goes on where it was stopped."""
    return exit_with_its_code(main, "stopped; the same command resumes from here")


def as_shown(error: _Error) -> _Error | DataError:
    """``error``, or the DataError that it is where a disk is full."""
    if isinstance(error, UsageError) and any(text in str(error) for text in _FULL):
        return DataError(f"{error}; free some space and run the same command again")
    return error


def report(error: BaseException) -> int:
    """Print ``error`` on one line; returns its exit code."""
    shown = as_shown(error)
    print(f"{type(shown).__name__}: {shown}", file=sys.stderr)
    return shown.exit_code  # type: ignore[attr-defined]


def progress(**options: Any) -> tqdm:
    """A bar on a terminal; a line every ten seconds in a file or pipe."""
    if on_terminal():
        return tqdm(dynamic_ncols=True, **options)
    line = {"bar_format": "{desc}: {n_fmt}/{total_fmt} in {elapsed}, {rate_fmt}\n", "leave": True}
    return tqdm(mininterval=10, delay=10, **{**options, **line})


def scores_line(scores: dict[str, float]) -> str:
    """Scores as they are printed."""
    shown = {name: value for name, value in scores.items() if name not in ("epoch", "step")}
    return ", ".join(
        f"{name} {value:.0f}" if name.endswith("images") else f"{name} {value:.3f}" for name, value in shown.items()
    )


def png(text: str) -> Path:
    """A picture to write, as a command line's ``type``."""
    path = Path(text)
    if path.suffix != ".png" or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: name a .png file in a folder that exists")
    return path


def on_terminal() -> bool:
    """Whether a person watches."""
    return sys.stderr.isatty()
