"""The five ways a run may end other than well, and the exit code of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """The user's configuration or input is wrong; raised before any work is done."""

    exit_code = 2


class DataError(RuntimeError):
    """Stored data is damaged or missing, or cannot be written."""

    exit_code = 3


class Diverged(ArithmeticError):
    """The loss is no longer finite."""

    exit_code = 4


class RankLost(Exception):
    """Another rank of the run ended, or does not answer."""

    exit_code = 5


class Stopped(Exception):
    """A signal asked the run to stop; its state is saved and the same command resumes it."""

    exit_code = 75


@contextmanager
def naming(what: str) -> Iterator[None]:
    """A UsageError or DataError from within begins with ``what`` it is about, where it does not already."""
    try:
        yield
    except (UsageError, DataError) as error:
        if str(error).startswith(what):
            raise
        raise type(error)(f"{what}: {error}") from None


def in_one_line(error: BaseException) -> str:
    """The class of an error, and its text without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


ExpectedError = (UsageError, DataError, Diverged, RankLost, Stopped)
