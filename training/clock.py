"""The progress bar of an epoch, its speed, and the time that it waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterator

from torch import Tensor

from utils.console import on_terminal, progress


class Clock:
    """The progress of an epoch, its speed, and the share of time spent waiting for data."""

    def __init__(self, total: int, done: int, title: str, shown: bool) -> None:
        self._bar = progress(total=total, initial=done, desc=title, unit="step", disable=not (shown and on_terminal()))
        self._title, self._start, self._waited, self._steps = title, time.perf_counter(), 0.0, 0

    def waiting_for(self, batches: Iterator[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """The batches, timed."""
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - start
            if batch is None:
                return
            self._steps += 1
            yield batch
            self._bar.update()

    def speed(self, batch_size: int) -> dict[str, float]:
        """Images a second and the share of time spent waiting, since the last call."""
        elapsed = time.perf_counter() - self._start
        values = {"images_per_second": self._steps * batch_size / elapsed, "data_wait": self._waited / elapsed}
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0
        return values

    def show(self, values: dict[str, float]) -> None:
        """Beside the bar on a terminal, on a line of its own elsewhere."""
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if name not in ("epoch", "step"))
        if self._bar.disable:
            print(f"{self._title}, step {int(values['step'])}: {text}", flush=True)
        else:
            self._bar.set_postfix_str(text)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()
