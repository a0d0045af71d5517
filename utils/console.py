"""What a person sees: progress and the last line of a failed command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from tqdm import tqdm

from utils.errors import ExpectedError


def exit_with_its_code(main: Callable[[], object]) -> Callable[[], None]:
    """Decorate a command: an expected error is printed as one line and ends the process with its exit code."""

    @wraps(main)
    def command() -> None:
        try:
            main()
        except ExpectedError as error:
            sys.exit(report(error))

    return command


def report(error: BaseException) -> int:
    """Print ``error`` on one line; returns its exit code."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return error.exit_code  # type: ignore[attr-defined,no-any-return]


def progress(**options: Any) -> tqdm:  # noqa: ANN401
    """A bar on a terminal; a line every ten seconds in a file or pipe."""
    on_terminal = sys.stderr.isatty()
    return tqdm(
        mininterval=0.1 if on_terminal else 10,
        delay=0 if on_terminal else 10,
        dynamic_ncols=on_terminal,
        bar_format=None if on_terminal else "{desc}: {n_fmt}/{total_fmt} in {elapsed}, {rate_fmt}{postfix}\n",
        **options,
    )
