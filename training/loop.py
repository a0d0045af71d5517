"""A student's part in the training loop: phases, steps, logs, validation. `training.together` brings the batches."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from dataset.feed.batch import Batch
from dataset.loader import TrainLoader
from teachers import Views
from training.clock import Clock
from training.ddp import under_ddp
from training.logs import Extra
from training.run_folder import RunFolder
from training.schedule import learning_rate, momentum
from training.scores import Scorer
from training.settings import TrainConfig
from training.spent import Spent, cores_of_rank, faster_loader
from training.state import State
from training.step import step_on
from utils.console import scores_line

__all__ = ["TrainConfig", "Trainer"]


class Trainer:
    """Trains a student with the batches that it is given, from the state that it is in.

    Args:
        state: of the run.
        loader: training batches.
        run: where logs go.
        name: of one student of several, which its lines begin with.
    """

    _module: nn.Module | None = None  # the distiller, compiled and under DDP, of the current phase

    def __init__(self, state: State, loader: TrainLoader, run: RunFolder, name: str = "") -> None:
        self.state, self.loader, self.run, self.name = state, loader, run, name
        self.params, self.ranks, self.task = state.params, state.ranks, state.task
        self._label = f"{name}: " if name else ""
        self._tables = Extra("tables of scores")

    def begin(self, scorer: Scorer, config: dict[str, Any], clock: Clock) -> None:
        """Open the logs.

        Args:
            scorer: of the validation.
            config: every setting.
            clock: of all students that share the batches.
        """
        self._scorer, self._clock = scorer, clock
        self._spent, self._has_logged = Spent(self.loader, self.state.stopwatch), False
        if self.ranks.first:
            self.run.open_logs(self.state.epoch, self.state.step, config, self.params.wandb_project)

    @property
    def stands(self) -> str:
        """Where it goes on from, in words."""
        if not self.state.step:
            return "a new run"
        return f"{'ended' if self.is_trained else 'resumes'} after step {self.state.step}"

    @property
    def is_trained(self) -> bool:
        """Whether its last epoch is done."""
        return self.state.epoch >= self.state.epochs

    def begin_epoch(self) -> None:
        """Get ready for the epoch of its state, of which some batches may be done; with it a phase may begin."""
        state = self.state
        if self._module is None or state.next_phase != state.phase_number:
            self._begin_phase(state.next_phase)
        state.distiller.train()
        state.distiller.set_epoch(state.epoch + 1 - state.epochs_before)
        self._spent.begin()
        self._spent.measure(last=self._is_logged(1))
        self._lap = self._clock.now()

    def take(self, batch: Batch, shared: Sequence[Views] | None) -> None:
        """A step on ``batch``, and where it is due a line of the log.

        Args:
            batch: the one that its state is before.
            shared: the views of each part of it, where several students share them.

        Raises:
            Diverged: the loss was not finite, since the last line.
        """
        state, batches, before = self.state, self.loader.batches, self.state.epochs_before
        place = state.phase.optim, state.step - before * batches, batches, state.phase.epochs
        rate = learning_rate(*place)
        assert self._module is not None
        results = step_on(state, self._module, batch, rate, momentum(*place), shared)
        state.step, state.batch = state.step + 1, state.batch + 1
        for given, part in results:
            state.meters.add(given, part, state.step)
        if self._is_logged():
            self._log(rate)
        self._spent.measure(last=self._is_logged(1))

    @property
    def is_saved_here(self) -> bool:
        """Whether a checkpoint within the epoch is due after this step."""
        every = self.params.checkpoint_steps
        return bool(every) and self.state.step % every == 0

    def end_epoch(self) -> None:
        """Validate, and save a student that is the best."""
        state, primary = self.state, self.task.primary
        state.distiller.eval()
        state.epoch, state.batch = state.epoch + 1, 0
        state.average_epochs()
        values: dict[str, float] = {"epoch": state.epoch, "step": state.step}
        better, highest = "", state.highest(primary)
        for kind, network in state.candidates().items():
            scores, prefix = self._scorer(network.predict), "" if kind == "student" else f"{kind}_"
            values |= {f"{prefix}{name}": value for name, value in scores.items()}
            if highest is None or math.isnan(highest) or scores[primary] > highest:
                better, highest = kind, scores[primary]
                if self.ranks.first:
                    self._tables.do(lambda: self._scorer.write(self.run.path))
        if self.ranks.first:
            self.run.log("val", values, self.phase_name)
            print(f"{self._label}epoch {state.epoch}: {scores_line(values)}")
        state.save(best=values if better else None, kind=better)

    def end(self) -> None:
        """Close the logs, and give the folder back.

        Raises:
            DataError: the last checkpoint could not be written.
        """
        self._release()
        self.state.raise_if_unsaved()
        self.close()

    def close(self) -> None:
        """As `end`, of a student that is not trained to its end."""
        if self.ranks.first:
            self.run.close()

    def wrapped(self) -> nn.Module:
        """The distiller, compiled and under DDP where the run asks for it."""
        if self.params.compile:
            self.state.distiller.compile()
        return self.state.distiller if self.ranks.world == 1 else under_ddp(self.state.distiller, self.ranks)

    def _begin_phase(self, number: int) -> None:
        state = self.state
        self._release()
        if number != state.phase_number:
            state.begin(number)
            state.best = {}  # of the last phase
        if self.phase_name and self.ranks.first:
            epochs = f"epochs {state.epochs_before + 1} to {state.epochs_before + state.phase.epochs}"
            print(f"{self._label}phase {self.phase_name}, {epochs}: {', '.join(state.phase.terms)}")
        self._module = self.wrapped()

    def _release(self) -> None:
        self._module = None
        gc.collect()  # DDP's hooks are in cycles, and must not see the next phase's gradients

    def _is_logged(self, ahead: int = 0) -> bool:
        """Whether there is a line of the log after this step, or one so many ahead in this epoch."""
        step, batch = self.state.step + ahead, self.state.batch + ahead
        return step % self.params.print_freq == 0 or batch == self.loader.batches

    def _log(self, rate: float) -> None:
        state = self.state
        state.meters.raise_if_diverged()
        values = {"epoch": state.epoch + 1, "step": state.step, "lr": rate, **state.meters.read()}
        now = self._clock.now()
        before, self._lap = self._lap, now
        steps, elapsed, waited = now.steps - before.steps, now.seconds - before.seconds, now.waited - before.waited
        values |= {"images_per_second": steps * self.loader.batch_size / elapsed, "data_wait": waited / elapsed}
        shares = self._spent.shares(steps, elapsed, waited)
        advice = faster_loader(shares, self.loader.config, cores_of_rank()) if self._has_logged else ""
        self._has_logged = True  # before, decoding processes were starting
        if self.ranks.first:
            self.run.log("train", {**values, **shares}, self.phase_name)
            self._clock.show(values, advice and f"waits for data: {advice}", self.name)

    @property
    def phase_name(self) -> str:
        """Of the current phase, where there are several."""
        return list(self.state.phases)[self.state.phase_number] if len(self.state.phases) > 1 else ""
