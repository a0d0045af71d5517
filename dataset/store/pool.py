"""Jobs over processes that talk through pipes alone.

The executors of the standard library hold named semaphores, which stay in /dev/shm when all processes are killed
together, as containers and schedulers do.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Thread
from typing import Any, TypeVar

from utils.errors import DataError, ExpectedError

Job = TypeVar("Job")
Result = TypeVar("Result")

_PAUSE = 0.01  # seconds between two looks at the processes: a look costs as much as packing a small image
_KEPT = "Finished shards are kept: run the same command again"
_packer: Connection | None = None  # of a process at work: where its progress and results go


def advance(steps: int, name: str = "") -> None:
    """Report how far the current job has come, and what it is at now, if that may take too long."""
    assert _packer is not None
    _packer.send((steps, name))


def work_through(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    processes: int,
    advanced: Callable[[int], object],
    seconds: float = 300.0,
) -> list[Result]:
    """``work`` on each of the ``jobs`` in ``processes`` of their own; returns the results in the order of the jobs.

    Args:
        work: a function of a module. It may call `advance`.
        jobs: what it is called with.
        processes: at least one.
        advanced: called with the steps that `advance` was.
        seconds: how long a job may be at one thing that it named.

    Raises:
        DataError: a process was killed, or was at one thing for too long.
        Exception: what ``work`` raised, once the running jobs are done; others are not begun.
    """
    context = get_context("spawn")
    results: dict[int, Result] = {}
    waiting = list(enumerate(jobs))[::-1]
    busy: dict[Connection, int] = {}
    at: dict[Connection, tuple[str, float]] = {}  # what each is at, and since when
    started: list[SpawnProcess] = []
    failure: Exception | None = None

    def hand_out(connection: Connection) -> None:
        if waiting and failure is None:
            busy[connection], job = waiting.pop()
            connection.send(job)
        else:
            connection.send(None)

    try:
        connections = []
        for _ in range(min(processes, len(jobs))):
            connection, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, work), daemon=True)
            process.start()
            theirs.close()
            started.append(process)
            connections.append(connection)
        for connection in connections:
            hand_out(connection)
        while busy:
            for connection in [each for each in wait(list(busy), timeout=1.0) if isinstance(each, Connection)]:
                while connection in busy and connection.poll():
                    message = connection.recv()
                    if isinstance(message, tuple):  # of `advance`
                        steps, name = message
                        advanced(steps)
                        at[connection] = name, time.monotonic()
                        continue
                    number = busy.pop(connection)
                    at.pop(connection, None)
                    if isinstance(message, Exception):
                        failure = failure or message
                    else:
                        (results[number],) = message
                    hand_out(connection)
            time.sleep(_PAUSE)
            for name, since in at.values():
                if name and time.monotonic() - since > seconds:
                    raise DataError(f"{name}: still decoding after {seconds:.0f} s; take it out of the list. {_KEPT}")
    except (EOFError, ConnectionError):
        name = at.get(connection, ("", 0.0))[0]
        where = f" at {name}" if name else ""
        raise DataError(f"a packing process was killed{where}, perhaps for memory. {_KEPT}") from None
    finally:
        for process in started:
            process.terminate()  # the last job is done, or nobody waits for it
            process.join()
    if failure is not None:
        raise failure
    return [results[number] for number in range(len(jobs))]


def _serve(connection: Connection, work: Callable[[Any], object]) -> None:
    """What a process does: jobs, until there are none."""
    global _packer
    _packer = connection
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches every process; one message is enough
    Thread(target=_end_with_parent, daemon=True).start()
    while (job := connection.recv()) is not None:
        try:
            connection.send([work(job)])
        except Exception as error:
            if not isinstance(error, (*ExpectedError, OSError)):
                traceback.print_exc()
            connection.send(error)


def _end_with_parent() -> None:
    """A packer that is killed leaves no process behind that still writes."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
