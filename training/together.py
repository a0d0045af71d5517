"""The training loop: epochs of one stream of batches, for one student or for several.

Each batch is decoded and brought to the device once, and each teacher sees it once; then each student takes its step.
A student draws, learns, logs and saves as it does alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
from tqdm import tqdm

from dataset.feed.batch import Batch
from dataset.loader import TrainLoader
from teachers import Views
from training.clock import Clock
from training.keeping import Keeping
from training.logs import Extra
from training.loop import Trainer
from training.signals import Stop
from utils.distributed import any_rank, gather, lost
from utils.errors import Diverged, Stopped, UsageError

_AGREE_EVERY = 10  # steps between two agreements on whether any rank was asked to stop


class Together:
    """Trains students to their ends, from the states that they are in.

    The stream begins where the first of them stands; one that is further on waits until the stream is there. One that
    diverges stops alone.

    Args:
        trainers: of the students, before `Trainer.begin`.
        loader: training batches.
        keeping: of their teachers' stores.
        ended: called with each that has come to its end.
    """

    def __init__(
        self, trainers: Sequence[Trainer], loader: TrainLoader, keeping: Keeping, ended: Callable[[Trainer], None]
    ) -> None:
        self._trainers, self._loader, self._keeping, self._ended = [*trainers], loader, keeping, ended
        self._ranks, self._several = trainers[0].ranks, len(trainers) > 1
        self._taking = [*trainers]  # those that took the last step
        if trainers[0].params.compile:  # one graph a student and phase, all of one function
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 8 * len(trainers))
        self._diverged: list[str] = []

    def train(self, clock: Clock, stop: Stop) -> list[str]:
        """Train all to their last epochs; returns the names of those of several that diverged.

        Raises:
            Stopped: it was asked to; the states are saved.
            Diverged: the loss of the only student is not finite.
            DataError: the last checkpoint of one could not be written.
            RankLost: another rank ended or does not answer.
        """
        try:
            self._end_trained()
            if self._trainers:
                self._keeping.prepare()
            stop.defer()
            while self._trainers:
                self._train_epoch(min(one.state.epoch for one in self._trainers), clock, stop)
                self._end_trained()
        except RuntimeError as error:
            if (gone := lost(error, self._ranks, f" at step {self._taking[0].state.step + 1}")) is not None:
                raise gone from error
            raise
        return self._diverged

    def _train_epoch(self, epoch: int, clock: Clock, stop: Stop) -> None:
        """An epoch, or what of it any student can take."""
        here = [one for one in self._trainers if one.state.epoch == epoch]
        for one in here:
            one.begin_epoch()
        self._keeping.begin(epoch)
        batches, first = self._loader.batches, min(one.state.batch for one in here)
        title = f"epoch {epoch + 1}/{max(one.state.epochs for one in self._trainers)}"
        stream = self._loader.epoch(epoch, first)
        for number, batch in enumerate(
            clock.epoch(title, stream, batches, first, epoch * batches + first), start=first
        ):
            taking = [one for one in here if one in self._trainers and one.state.batch == number]
            if not taking:  # those that did have diverged: on to where the others are
                break
            self._step_on(batch, taking)
            self._stop_if_asked(stop)
        done = [one for one in here if one in self._trainers and one.state.batch == batches]
        self._save(done)  # before the validation: a kill during it costs nothing else
        if done:
            self._keeping.end(done[0].state.step)
        for one in done:
            self._alone(one, one.end_epoch)

    def _step_on(self, batch: Batch, taking: list[Trainer]) -> None:
        self._taking = taking
        parts = batch.chunk(taking[0].params.accumulate) if self._several else []
        shared = [Views(part) for part in parts] or None
        for one in taking:
            self._alone(one, partial(one.take, batch, shared))
        self._save([one for one in taking if one in self._trainers and one.is_saved_here])

    def _stop_if_asked(self, stop: Stop) -> None:
        step = self._taking[0].state.step
        if (self._ranks.world == 1 or step % _AGREE_EVERY == 0) and any_rank(bool(stop.asked)):
            saved = [one for one in self._taking if one in self._trainers]  # the others are as they were read
            self._save(saved)
            for one in saved:
                one.state.raise_if_unsaved()
            who = next(filter(None, gather(stop.asked)))
            of_one = "" if self._several else f" from {saved[0].run.last}"
            raise Stopped(f"stopped by {who} after step {step}; the same command resumes{of_one}")

    def _end_trained(self) -> None:
        for one in [one for one in self._trainers if one.is_trained]:
            one.end()
            self._trainers.remove(one)
            self._ended(one)

    def _save(self, these: list[Trainer]) -> None:
        try:
            for one in these:
                self._keeping.save(one.state.step)  # what a checkpoint has seen is not computed again
        finally:  # a store whose disk is full costs the runs nothing
            for one in these:
                self._alone(one, one.state.save)

    def _alone(self, one: Trainer, work: Callable[[], object]) -> None:
        """Do what is one student's, which stops it where its loss is not finite; where it errs, others are saved."""
        try:
            work()
        except UsageError as error:
            if not self._several:
                raise
            others = [other for other in self._taking if other in self._trainers and other is not one]
            for other in others if self._ranks.world == 1 else ():  # it may be this rank's alone
                self._alone(other, other.state.save)
            raise UsageError(f"{one.name}: {error}") from error
        except Diverged as error:
            if self._ranks.first:
                Extra(f"{one.run.path}: a note").do(partial(one.run.note_divergence, error))
            if not self._several:
                raise
            if self._ranks.first:
                tqdm.write(f"{type(error).__name__}: {one.name}: {error}", file=sys.stderr)
            one.close()
            self._trainers.remove(one)
            self._diverged.append(one.name)
