"""The training loop: steps, logs, checkpoints, scores."""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dataset.loader import TrainLoader
from knowledge_distiller import KnowledgeDistiller
from models.zoo import Network
from training import state
from training.clock import Clock
from training.ddp import under_ddp
from training.dot import Dot
from training.meters import Meters
from training.optimizer import build_optimizer
from training.phases import Phase
from training.run_folder import RunFolder
from training.schedule import learning_rate
from training.signals import Stop
from utils.console import scores_line
from utils.distributed import Ranks, any_rank, gather, lost
from utils.errors import Stopped, UsageError
from utils.settings import setting

_AGREE_EVERY = 10  # steps between two agreements on whether any rank was asked to stop
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainConfig:
    """In which precision a run goes, and what is kept."""

    seed: int = setting(0, least=0, most=2**31 - 1)
    """of the initial weights, the order, the views and dropout"""
    amp: Literal["bf16", "fp16", "off"] = setting("off", affects_result=False, also=("precision", "fp16", "bf16"))
    """precision of convolutions and matrix products"""
    channels_last: bool = setting(True, affects_result=False)
    """memory layout of convolutions"""
    compile: bool = setting(False, affects_result=False)
    """torch.compile the networks and the loss into one graph"""
    accumulate: int = setting(1, least=1, affects_result=False, also=("gradient_accumulation_steps",))
    """parts that each rank's batch is worked through in, to fit the memory; batch norm sees a part at a time"""
    sync_bn: bool = False
    """batch norm over the ranks' samples together (GPUs only)"""
    ema_decay: float | None = setting(None, least=0, below=1, also=("ema",))
    """keep an exponential moving average of the student with this decay a step, and score it too"""
    print_freq: int = setting(50, least=1, affects_result=False, also=("log_interval",))
    """steps between two lines of the log; each epoch ends with one"""
    checkpoint_steps: int = setting(1000, least=0, affects_result=False, also=("save_freq",))
    """steps between two checkpoints within an epoch, 0 for none; each epoch ends with one"""
    output_path: str = setting("runs", affects_result=False, also=("output", "output_dir", "save_dir"))
    """folder that holds the run folders"""
    timeout_minutes: float = setting(10.0, least=0.1, most=525_600, affects_result=False, also=("timeout",))
    """how long a rank waits for the others before it gives up"""
    wandb_project: str | None = setting(None, affects_result=False, also=("wandb",))
    """also log to this Weights & Biases project"""


class _Average(AveragedModel):
    module: Network


Scorer = Callable[[Callable[[Tensor], Tensor]], dict[str, float]]  # (images -> logits) -> top1, top5, loss


class Trainer:
    """One run: the distiller, its optimizer, and where it stands.

    Args:
        distiller: built with the terms of all ``phases``.
        loader: training batches.
        phases: by name, one after the other.
        params: how.
        run: where checkpoints and logs go.
        ranks: this one among all.

    Raises:
        UsageError: settings that do not go together.
    """

    def __init__(
        self,
        distiller: KnowledgeDistiller,
        loader: TrainLoader,
        phases: Mapping[str, Phase],
        params: TrainConfig,
        run: RunFolder,
        ranks: Ranks,
    ) -> None:
        self.distiller, self.loader, self.run, self.ranks = distiller, loader, run, ranks
        self.stages, self.params = tuple(phases.values()), params
        self.names = tuple(phases) if len(phases) > 1 else ()
        if params.sync_bn and ranks.world > 1 and ranks.device.type != "cuda":
            raise UsageError("train_params.sync_bn works on GPUs only")
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=params.amp == "fp16")
        self.ema = (
            _Average(distiller.student, multi_avg_fn=get_ema_multi_avg_fn(params.ema_decay), use_buffers=True)
            if params.ema_decay is not None
            else None
        )
        if self.ema is not None:
            self.ema.eval()
        self.ends = list(accumulate(stage.epochs for stage in self.stages))  # epochs done at the end of each
        self.epoch = self.batch = self.step = 0  # epochs and batches of this epoch that are done, optimizer steps
        self.best: dict[str, float] = {}  # scores of the student in best.pt; rank 0's count
        self.unsaved = ""  # why the last checkpoint could not be written
        for number in reversed(range(len(self.stages))):  # every one, so that what is wrong in the last shows at once
            self.enter(number)

    def enter(self, number: int) -> None:
        """Begin a phase: its terms, what it trains, an optimizer without a past."""
        stage = self.stages[number]
        self.stage_number, self.stage = number, stage
        self.distiller.begin(stage.terms, stage.trainable)
        self.optimizer = build_optimizer(stage.optim, self.distiller)
        params, taught = self.params, self.distiller.is_taught
        if isinstance(self.optimizer, Dot) and (params.compile or params.amp == "fp16" or not taught):
            raise UsageError(
                "optim.optimizer=dot needs a term with a teacher, train_params.compile=False and an amp other than fp16"
            )
        self.meters = Meters(list(stage.terms), self.ranks.device)

    def train(self, score: Scorer, config: dict[str, Any], stop: Stop) -> dict[str, float]:
        """Train to the last epoch; returns the scores of the best one, on rank 0.

        Raises:
            Stopped: it was asked to; the state is saved.
            Diverged: the loss is not finite.
            DataError: the last checkpoint could not be written.
            RankLost: another rank ended or does not answer.
        """
        if self.ranks.first:
            self.run.open_logs(self.epoch, self.step, config, self.params.wandb_project)
        stop.defer()
        steps = self.ends[-1] * self.loader.batches
        try:
            with Clock(steps, shown=self.ranks.first) as self.clock:
                for number in range(bisect_right(self.ends, self.epoch), len(self.stages)):
                    self._train_stage(number, score, stop)
        except RuntimeError as error:
            if (gone := lost(error, self.ranks, f" at step {self.step + 1}")) is not None:
                raise gone from error
            raise
        state.raise_if_unsaved(self)
        if self.ranks.first:
            self.run.close()
        return self.best

    def _train_stage(self, number: int, score: Scorer, stop: Stop) -> None:
        if number != self.stage_number:
            self.enter(number)
            self.best = {}  # of the last phase
        if self.names and self.ranks.first:
            first = self.ends[number] - self.stage.epochs + 1
            print(f"phase {self.names[number]}, epochs {first} to {self.ends[number]}: {', '.join(self.stage.terms)}")
        module = self.wrapped()
        for epoch in range(self.epoch, self.ends[number]):
            self._train_epoch(epoch, module, stop)
            self._score_epoch(epoch, score)
        del module
        gc.collect()  # DDP's hooks are in cycles, and must not see the next phase's gradients

    def wrapped(self) -> nn.Module:
        """The distiller, compiled and under DDP where the run asks for it."""
        if self.params.compile:
            self.distiller.compile()
        return self.distiller if self.ranks.world == 1 else under_ddp(self.distiller, self.ranks)

    def _train_epoch(self, epoch: int, module: nn.Module, stop: Stop) -> None:
        before = self.ends[self.stage_number] - self.stage.epochs
        self.distiller.train()
        self.distiller.set_epoch(epoch + 1 - before)
        batches, title = self.loader.epoch(epoch, self.batch), f"epoch {epoch + 1}/{self.ends[-1]}"
        for batch in self.clock.epoch(title, batches, self.loader.batches, self.batch, self.step):
            step = self.step - before * self.loader.batches
            rate = learning_rate(self.stage.optim, step, self.loader.batches, self.stage.epochs)
            outputs_labels = self.step_on(module, batch, rate)
            self.step, self.batch = self.step + 1, self.batch + 1
            for outputs, labels in outputs_labels:
                self.meters.add(outputs, labels, self.step)
            if self.step % self.params.print_freq == 0 or self.batch == self.loader.batches:
                self._log(epoch, rate)
            if self.params.checkpoint_steps and self.step % self.params.checkpoint_steps == 0:
                state.save(self)
            if (self.ranks.world == 1 or self.step % _AGREE_EVERY == 0) and any_rank(bool(stop.asked)):
                state.save(self)
                state.raise_if_unsaved(self)
                who = next(filter(None, gather(stop.asked)))
                raise Stopped(f"stopped by {who} after step {self.step}; the same command goes on from {self.run.last}")
        if self.batch:
            state.save(self)  # before the scores: a kill during validation costs only the validation

    def step_on(
        self, module: nn.Module, batch: dict[str, Tensor], rate: float
    ) -> list[tuple[dict[str, Tensor], Tensor]]:
        """One optimizer step on this rank's batch, in `accumulate` parts."""
        # Dropout draws from the step and the rank alone, so that a resumed run draws the same.
        torch.manual_seed(((self.params.seed << 40) + (self.step << 12) + self.ranks.rank) % 2**64)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = [dict(zip(batch, values)) for values in zip(*(v.chunk(self.params.accumulate) for v in batch.values()))]
        results = []
        for number, part in enumerate(parts, start=1):
            last = number == len(parts)
            unsynced = isinstance(module, DistributedDataParallel) and not last
            with module.no_sync() if unsynced else nullcontext():  # type: ignore[operator]
                with autocast(self.params, self.ranks.device), _enough_images():
                    outputs = module(part)
                if not outputs["loss"].requires_grad:
                    trained = ", ".join(self.stage.trainable) or "anything that is trained"
                    terms = ", ".join(f"terms.{name}" for name in self.stage.terms)
                    raise UsageError(f"{terms}: the loss has no gradient for {trained}; see trainable and terms")
                if isinstance(self.optimizer, Dot):
                    self.optimizer.take(outputs["taught"] / len(parts))
                self.scaler.scale(outputs["loss"] / len(parts)).backward()
            results.append((outputs, part["labels"]))
        if (longest := self.stage.optim.grad_clip) is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_((p for p in self.distiller.parameters() if p.requires_grad), longest)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update_parameters(self.distiller.student)
        return results

    def _log(self, epoch: int, rate: float) -> None:
        self.meters.raise_if_diverged()
        values = {"epoch": epoch + 1, "step": self.step, "lr": rate, **self.meters.read()}
        values |= self.clock.speed(self.loader.batch_size)
        if self.ranks.first:
            self.run.log("train", values, self._stage_name)
            self.clock.show(values)

    def _score_epoch(self, epoch: int, score: Scorer) -> None:
        self.distiller.eval()
        values: dict[str, float] = {
            "epoch": epoch + 1,
            "step": self.step,
            **score(self.distiller.student.score),
        }
        if self.ema is not None:
            ema = score(self.ema.module.score)
            values |= {f"ema_{name}": value for name, value in ema.items()}
        self.epoch, self.batch = epoch + 1, 0
        key = "top1" if self.ema is None else "ema_top1"
        better = not self.best or values[key] > self.best[key]
        if self.ranks.first:
            self.run.log("val", values, self._stage_name)
            print(f"epoch {epoch + 1}: {scores_line(values)}")
        state.save(self, best=values if better else None)

    @property
    def _stage_name(self) -> str:
        return self.names[self.stage_number] if self.names else ""


@contextmanager
def _enough_images() -> Iterator[None]:
    """Say in terms of settings what batch norms lack in a batch of one.

    Raises:
        UsageError: a map of one pixel of one image has no variance.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UsageError(
            "data.batch_size leaves one image a rank and part, too few for batch norms: raise it, lower "
            "train_params.accumulate, or raise data.input_size"
        ) from None


def autocast(params: TrainConfig, device: torch.device) -> AbstractContextManager:
    """The precision of a run's networks, in training and when they are scored."""
    return torch.autocast(device.type, _AUTOCAST.get(params.amp), enabled=params.amp != "off")


def check_parts(params: TrainConfig, batch_size: int, world: int) -> None:
    """Raises UsageError where the batch does not divide over ranks and accumulated parts."""
    if batch_size % (world * params.accumulate):
        raise UsageError(
            f"data.batch_size={batch_size} does not divide over {world} ranks x {params.accumulate} accumulated parts"
        )
