"""The training loop: phases, epochs, steps, logs, validation."""

from __future__ import annotations

import gc
import math
from typing import Any

from torch import nn

from dataset.loader import TrainLoader
from training.clock import Clock
from training.ddp import under_ddp
from training.logs import Extra
from training.run_folder import RunFolder
from training.schedule import learning_rate, momentum
from training.scores import Scorer
from training.settings import TrainConfig
from training.signals import Stop
from training.spent import Spent, cores_of_rank, faster_loader
from training.state import State
from training.step import step_on
from utils.console import scores_line
from utils.distributed import any_rank, gather, lost
from utils.errors import Stopped

__all__ = ["TrainConfig", "Trainer"]

_AGREE_EVERY = 10  # steps between two agreements on whether any rank was asked to stop


class Trainer:
    """Trains a run to its end, from the state that it is in.

    Args:
        state: of the run.
        loader: training batches.
        run: where logs go.
    """

    def __init__(self, state: State, loader: TrainLoader, run: RunFolder) -> None:
        self.state, self.loader, self.run = state, loader, run
        self.params, self.ranks, self.task = state.params, state.ranks, state.task
        self._tables = Extra("tables of scores")

    def train(self, scorer: Scorer, config: dict[str, Any], stop: Stop) -> dict[str, float]:
        """Train to the last epoch; returns the scores of the best one, on rank 0.

        Raises:
            Stopped: it was asked to; the state is saved.
            Diverged: the loss is not finite.
            DataError: the last checkpoint could not be written.
            RankLost: another rank ended or does not answer.
        """
        state = self.state
        if self.ranks.first:
            self.run.open_logs(state.epoch, state.step, config, self.params.wandb_project)
        stop.defer()
        steps = state.epochs * self.loader.batches
        self._spent, self._has_logged = Spent(self.loader, state.stopwatch), False
        try:
            with Clock(steps, self.task.running_scores, shown=self.ranks.first) as self.clock:
                for number in range(state.next_phase, len(state.phases)):
                    self._train_phase(number, scorer, stop)
        except RuntimeError as error:
            if (gone := lost(error, self.ranks, f" at step {state.step + 1}")) is not None:
                raise gone from error
            raise
        state.raise_if_unsaved()
        if self.ranks.first:
            self.run.close()
        return state.best

    def _train_phase(self, number: int, scorer: Scorer, stop: Stop) -> None:
        state = self.state
        if number != state.phase_number:
            state.begin(number)
            state.best = {}  # of the last phase
        if self.phase_name and self.ranks.first:
            epochs = f"epochs {state.epochs_before + 1} to {state.epochs_before + state.phase.epochs}"
            print(f"phase {self.phase_name}, {epochs}: {', '.join(state.phase.terms)}")
        module = self.wrapped()
        for epoch in range(state.epoch, state.epochs_before + state.phase.epochs):
            self._train_epoch(epoch, module, stop)
            self._validate(epoch, scorer)
        del module
        gc.collect()  # DDP's hooks are in cycles, and must not see the next phase's gradients

    def wrapped(self) -> nn.Module:
        """The distiller, compiled and under DDP where the run asks for it."""
        if self.params.compile:
            self.state.distiller.compile()
        return self.state.distiller if self.ranks.world == 1 else under_ddp(self.state.distiller, self.ranks)

    def _train_epoch(self, epoch: int, module: nn.Module, stop: Stop) -> None:
        state, loader, before = self.state, self.loader, self.state.epochs_before
        state.distiller.train()
        state.distiller.set_epoch(epoch + 1 - before)
        batches, title = loader.epoch(epoch, state.batch), f"epoch {epoch + 1}/{state.epochs}"
        self._spent.begin()
        self._spent.measure(last=self._is_logged(1))
        for batch in self.clock.epoch(title, batches, loader.batches, state.batch, state.step):
            step = state.step - before * loader.batches
            place = state.phase.optim, step, loader.batches, state.phase.epochs
            rate = learning_rate(*place)
            results = step_on(state, module, batch, rate, momentum(*place))
            state.step, state.batch = state.step + 1, state.batch + 1
            for given, part in results:
                state.meters.add(given, part, state.step)
            if self._is_logged():
                self._log(epoch, rate)
            self._spent.measure(last=self._is_logged(1))
            if self.params.checkpoint_steps and state.step % self.params.checkpoint_steps == 0:
                state.save()
            self._stop_if_asked(stop)
        if state.batch:
            state.save()  # before the validation: a kill during it costs nothing else

    def _stop_if_asked(self, stop: Stop) -> None:
        state = self.state
        if (self.ranks.world == 1 or state.step % _AGREE_EVERY == 0) and any_rank(bool(stop.asked)):
            state.save()
            state.raise_if_unsaved()
            who = next(filter(None, gather(stop.asked)))
            raise Stopped(f"stopped by {who} after step {state.step}; the same command resumes from {self.run.last}")

    def _is_logged(self, ahead: int = 0) -> bool:
        """Whether there is a line of the log after this step, or one so many ahead in this epoch."""
        step, batch = self.state.step + ahead, self.state.batch + ahead
        return step % self.params.print_freq == 0 or batch == self.loader.batches

    def _log(self, epoch: int, rate: float) -> None:
        state = self.state
        state.meters.raise_if_diverged()
        values = {"epoch": epoch + 1, "step": state.step, "lr": rate, **state.meters.read()}
        steps, elapsed, waited = self.clock.lap()
        values |= {"images_per_second": steps * self.loader.batch_size / elapsed, "data_wait": waited / elapsed}
        shares = self._spent.shares(steps, elapsed, waited)
        advice = faster_loader(shares, self.loader.config, cores_of_rank()) if self._has_logged else ""
        self._has_logged = True  # before, decoding processes were starting
        if self.ranks.first:
            self.run.log("train", {**values, **shares}, self.phase_name)
            self.clock.show(values, advice and f"waits for data: {advice}")

    def _validate(self, epoch: int, scorer: Scorer) -> None:
        state, primary = self.state, self.task.primary
        state.distiller.eval()
        state.epoch, state.batch = epoch + 1, 0
        state.average_epochs()
        values: dict[str, float] = {"epoch": epoch + 1, "step": state.step}
        better, highest = "", state.highest(primary)
        for kind, network in state.candidates().items():
            scores, prefix = scorer(network.predict), "" if kind == "student" else f"{kind}_"
            values |= {f"{prefix}{name}": value for name, value in scores.items()}
            if highest is None or math.isnan(highest) or scores[primary] > highest:
                better, highest = kind, scores[primary]
                if self.ranks.first:
                    self._tables.do(lambda: scorer.write(self.run.path))
        if self.ranks.first:
            self.run.log("val", values, self.phase_name)
            print(f"epoch {epoch + 1}: {scores_line(values)}")
        state.save(best=values if better else None, kind=better)

    @property
    def phase_name(self) -> str:
        """Of the current phase, where there are several."""
        return list(self.state.phases)[self.state.phase_number] if len(self.state.phases) > 1 else ""
