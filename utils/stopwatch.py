"""How long the parts of the work on a device take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Stopwatch:
    """Seconds of parts of the work on a device, by name, summed; off at first.

    On a GPU they are its own time, between events in the current stream: it is not waited for until they are read.

    Args:
        device: that works.

    Attributes:
        on: whether parts that begin are measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.on, self.on_gpu = False, device.type == "cuda"
        self._begun: dict[str, float | torch.cuda.Event] = {}
        self._ended: list[tuple[str, float | torch.cuda.Event, float | torch.cuda.Event]] = []
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure what is done within."""
        self._start(name)
        yield
        self._stop(name)

    def around(self, module: nn.Module, name: str, within: str = "") -> None:
        """Measure every call of ``module``, which must not be compiled, or those ``within`` another part alone."""

        def start(*_: object) -> None:
            if not within or within in self._begun:
                self._start(name)

        module.register_forward_pre_hook(start)
        module.register_forward_hook(lambda *_: self._stop(name))

    def read(self) -> dict[str, float]:
        """Seconds of each part so far."""
        for name, begin, end in self._ended:
            self._seconds[name] = self._seconds.get(name, 0.0) + _between(begin, end)
        self._ended.clear()
        return dict(self._seconds)

    def _start(self, name: str) -> None:
        if self.on:
            self._begun[name] = self._now()

    def _stop(self, name: str) -> None:
        if (begin := self._begun.pop(name, None)) is not None:
            self._ended.append((name, begin, self._now()))

    def _now(self) -> float | torch.cuda.Event:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between(begin: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    """Seconds from one to the other."""
    if isinstance(begin, float) and isinstance(end, float):
        return end - begin
    assert isinstance(begin, torch.cuda.Event)
    assert isinstance(end, torch.cuda.Event)
    end.synchronize()
    return begin.elapsed_time(end) / 1e3
