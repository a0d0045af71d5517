"""The bar of each epoch, its speed, the time that it waits for data, and the time that a run has left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from tqdm import tqdm

from dataset.feed.batch import Batch
from utils.console import on_terminal, progress
from utils.text import counted

_STEPS, _SECONDS = 50, 60.0  # the time left is printed after so many steps, or the first that ends so much later
_BAR = "{desc} |{bar}| {n_fmt}/{total_fmt} {elapsed}{postfix}"  # with loss, top-1 and time left: 80 columns


class Moment(NamedTuple):
    """Steps and seconds until now."""

    steps: int
    seconds: float
    waited: float  # of these, for data


class Clock:
    """Where a run is: a bar an epoch, or lines.

    Args:
        steps: of the whole run.
        scores: names of those that stand beside the bar, with the loss.
        shown: whether this rank prints.
    """

    def __init__(self, steps: int, scores: tuple[str, ...], *, shown: bool) -> None:
        self._steps, self._scores, self._shown = steps, scores, shown
        self._bar = progress(disable=True)
        self._begun, self._first, self._step = 0.0, 0, 0  # when the first step here was done, which, and the last one
        self._own = 0  # steps of this process
        self._remarked = self._estimated = False
        self._count, self._waited = 0, 0.0  # steps, and seconds of waiting for data
        self._losses: dict[str, float] = {}  # that are shown, by student

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.leave = False  # a bar that an error or a signal ends must not be drawn once more
        self._bar.close()

    def epoch(self, title: str, batches: Iterator[Batch], total: int, done: int, step: int) -> Iterator[Batch]:
        """The ``batches`` of an epoch, timed; ``done`` of ``total`` came before them, and ``step`` of the run."""
        on = self._shown and on_terminal()
        self._bar = progress(total=total, initial=done, desc=title, unit="step", disable=not on, bar_format=_BAR)
        self._title, self._step = title, step
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - start
            if batch is None:
                self._bar.close()
                return
            self._count += 1
            yield batch
            self._bar.update()
            self._note_step()

    def now(self) -> Moment:
        """How far it is."""
        return Moment(self._count, time.perf_counter(), self._waited)

    def show(self, values: dict[str, float], remark: str = "", name: str = "") -> None:
        """Beside the bar on a terminal, on a line of its own elsewhere, with the ``remark``; above the bar once.

        ``name`` is that of one student of several.
        """
        left = self._left(int(values["step"]))
        ends = {"left": _duration(left)} if left is not None else {}
        if self._bar.disable:
            texts = {name: f"{value:.4g}" for name, value in values.items() if name not in ("epoch", "step")}
            if self._begun:
                ends = {"elapsed": _duration(time.perf_counter() - self._begun), **ends}
            title = f"{name}: {self._title}" if name else self._title
            line = f"{title}, step {int(values['step'])}: {_listed({**texts, **ends})}"
            print(f"{line}; {remark}" if remark else line, flush=True)
        else:
            texts = {one: f"{values[one]:.4g}" for one in ("loss", *self._scores)}
            if name:
                self._losses[name] = values["loss"]
                texts = {"losses": f"{min(self._losses.values()):.4g} to {max(self._losses.values()):.4g}"}
            self._bar.set_postfix_str(_listed({**texts, **ends}))
            if remark and not self._remarked:
                self._remarked = True
                tqdm.write(remark)

    def _note_step(self) -> None:
        self._step += 1
        self._own += 1
        if self._own == 1:  # that took the time of starting, too
            self._begun, self._first = time.perf_counter(), self._step
        left = self._left(self._step)
        if self._estimated or not left or not self._shown:  # nothing is left after the last step
            return
        if self._own >= _STEPS or time.perf_counter() - self._begun >= _SECONDS:
            self._estimated = True
            steps = counted(self._steps - self._step, "step")
            tqdm.write(f"about {_duration(left)} for the {steps} to come, and validation after each epoch")

    def _left(self, step: int) -> float | None:
        """Seconds from ``step`` to the end of the run, by the steps of this process; None before its second."""
        if step <= self._first or not self._begun:
            return None
        return (time.perf_counter() - self._begun) / (step - self._first) * (self._steps - step)


def _duration(seconds: float) -> str:
    return tqdm.format_interval(seconds)


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
