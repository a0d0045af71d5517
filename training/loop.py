"""The training loop: steps, logs, checkpoints, scores."""

from __future__ import annotations

import gc
import json
import signal
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from inspect import signature
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dataset.loader import TrainLoader
from knowledge_distiller import KnowledgeDistiller
from models.neck import merged
from models.zoo import Network
from training import checkpoint
from training.clock import Clock
from training.dot import Dot
from training.meters import Meters
from training.optimizer import build_optimizer
from training.run_folder import RunFolder
from training.schedule import learning_rate
from training.stages import Stage
from utils.console import scores_line
from utils.distributed import Ranks, all_sum, any_rank, barrier
from utils.errors import Stopped, UsageError
from utils.settings import setting

_AGREE_EVERY = 10  # steps between two agreements on whether a signal asked any rank to stop
# Renamed in torch 2.13; there ranks begin with the buffers of rank 0, which are those of all.
_RENAMED = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
_OWN_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainConfig:
    """How long, in which precision, and what is kept."""

    epochs: int = setting(100, least=1, also=("max_epochs", "num_epochs"))
    """passes over the training images, after first stages"""
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
        distiller: built with the terms of all ``stages``.
        loader: training batches.
        stages: one after the other.
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
        stages: Sequence[Stage],
        params: TrainConfig,
        run: RunFolder,
        ranks: Ranks,
    ) -> None:
        self.distiller, self.loader, self.run, self.ranks = distiller, loader, run, ranks
        self.stages, self.params = stages, params
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
        self.ends = list(accumulate(stage.epochs for stage in stages))  # epochs done at the end of each
        self.epoch = self.batch = self.step = 0  # epochs and batches of this epoch that are done, optimizer steps
        self.best: dict[str, float] = {}
        for number in reversed(range(len(stages))):  # every one, so that what is wrong in the last shows at once
            self._enter(number)

    def _enter(self, number: int) -> None:
        """Begin a stage: its terms, what moves in it, an optimizer without a past."""
        stage = self.stages[number]
        self.stage_number, self.stage = number, stage
        self.distiller.begin(stage.terms, stage.optim.moves)
        self.optimizer = build_optimizer(stage.optim, self.distiller)
        params, taught = self.params, self.distiller.is_taught
        if isinstance(self.optimizer, Dot) and (params.compile or params.amp == "fp16" or not taught):
            raise UsageError(
                "optim.optimizer=dot needs a term with a teacher, train_params.compile=False and an amp other than fp16"
            )
        self.meters = Meters(list(stage.terms), self.ranks.device)

    def train(self, score: Scorer, config: dict[str, Any]) -> dict[str, float]:
        """Train to the last epoch; returns the scores of the best one.

        Raises:
            Stopped: a signal came; the state is saved.
            Diverged: the loss is not finite.
        """
        if self.ranks.first:
            self.run.open_logs(self.epoch, self.step, config, self.params.wandb_project)
        steps = self.ends[-1] * self.loader.batches
        with _StopSignal() as stop, Clock(steps, shown=self.ranks.first) as self.clock:
            for number in range(bisect_right(self.ends, self.epoch), len(self.stages)):
                if number != self.stage_number:
                    self._enter(number)
                    self.best = {}  # of the last stage
                module = self.wrapped()
                for epoch in range(self.epoch, self.ends[number]):
                    self._train_epoch(epoch, module, stop)
                    self._score_epoch(epoch, score)
                del module
                gc.collect()  # DDP's hooks are in cycles, and must not see the next stage's gradients
        if self.ranks.first:
            self.run.close()
        return self.best

    def wrapped(self) -> nn.Module:
        """The distiller, compiled and under DDP where the run asks for it."""
        if self.params.compile:
            self.distiller.compile()
        if self.ranks.world == 1:
            return self.distiller
        # Buffers stay each rank's own: a memory of features must not be overwritten by rank 0's.
        return DistributedDataParallel(
            self.distiller,
            device_ids=[self.ranks.device.index] if self.ranks.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=not self.distiller.reaches_everything,
            **_OWN_BUFFERS,
        )

    def _train_epoch(self, epoch: int, module: nn.Module, stop: _StopSignal) -> None:
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
                self.save()
            if (self.ranks.world == 1 or self.step % _AGREE_EVERY == 0) and any_rank(stop.asked):
                self.save()
                raise Stopped(
                    f"stopped by a signal after step {self.step}; the same command goes on from {self.run.last}"
                )
        if self.batch:
            self.save()  # before the scores: a kill during validation costs only the validation

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
                with autocast(self.params, self.ranks.device), _enough_images(part):
                    outputs = module(part)
                if not outputs["loss"].requires_grad:
                    moved = ", ".join(self.stage.optim.moves) or "anything that is trained"
                    terms = ", ".join(f"terms.{name}" for name in self.stage.terms)
                    raise UsageError(f"{terms}: the loss has no gradient for {moved}; see optim.moves and terms")
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
            self.run.log("train", values)
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
        if better:
            self.best = values
        if self.ranks.first:
            self.run.log("val", values)
            print(f"epoch {epoch + 1}: {scores_line(values)}")
        self.save(best=better)

    def save(self, *, best: bool = False) -> None:
        """Write `last.pt`, and `best.pt` with the exported student before it; every rank takes part."""
        self.meters.raise_if_diverged()  # a diverged state never replaces a sound one
        _average_statistics(self.distiller.student, self.ranks)
        meters = self.meters.state()
        if self.ema is not None:
            _average_statistics(self.ema, self.ranks)
        if not self.ranks.first:
            return
        state: dict[str, Any] = {
            "student": self.distiller.student.classifier.state_dict(),
            "extras": _extras(self.distiller),
            "ema": None if self.ema is None else self.ema.module.classifier.state_dict(),
            "ema_updates": 0 if self.ema is None else int(self.ema.n_averaged),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "meters": meters,
            "position": json.dumps(
                {
                    "epoch": self.epoch,
                    "batch": self.batch,
                    "step": self.step,
                    "best": self.best,
                    "stage": self.stage_number,  # that of the optimizer and the meters; an epoch may have ended it
                }
            ),
        }
        if best:
            checkpoint.save(self.run.best, state)
            checkpoint.export(self.run.path / "student.safetensors", merged(state["ema"] or state["student"]))
        checkpoint.save(self.run.last, state)

    def resume(self) -> bool:
        """Go on from `last.pt`; False where there is none.

        Raises:
            DataError: the checkpoint is damaged.
        """
        barrier()  # rank 0 may just have prepared the folder
        if not self.run.last.exists():
            return False
        state = checkpoint.load(self.run.last)
        self.distiller.student.classifier.load_state_dict(state["student"])
        self.distiller.load_state_dict(state["extras"], strict=False)
        if self.ema is not None:
            self.ema.module.classifier.load_state_dict(state["ema"])
            self.ema.n_averaged.fill_(state["ema_updates"])
        position = json.loads(state["position"])
        if position["stage"] != self.stage_number:
            self._enter(position["stage"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # none where it went without fp16
            self.scaler.load_state_dict(state["scaler"])
        self.meters.restore(state["meters"], self.ranks.rank)
        self.epoch, self.batch, self.step = position["epoch"], position["batch"], position["step"]
        self.best = position["best"]
        return True


def autocast(params: TrainConfig, device: torch.device) -> AbstractContextManager:
    """The precision of a run's networks, in training and when they are scored."""
    return torch.autocast(device.type, _AUTOCAST.get(params.amp), enabled=params.amp != "off")


@contextmanager
def _enough_images(part: dict[str, Tensor]) -> Iterator[None]:
    """Raises UsageError where batch norm cannot do with a single image."""
    try:
        yield
    except ValueError as error:
        if len(part["labels"]) > 1:
            raise
        raise UsageError(
            f"one image at a time is too few ({error}): raise data.batch_size or lower train_params.accumulate"
        ) from None


def _extras(distiller: KnowledgeDistiller) -> dict[str, Tensor]:
    """What objectives learn or remember: everything but the networks."""
    return {k: v for k, v in distiller.state_dict().items() if not k.startswith(("student.", "teachers."))}


@torch.no_grad()
def _average_statistics(module: nn.Module, ranks: Ranks) -> None:
    """Give every rank the mean of the ranks' batch norm statistics, so that all score and save the same network."""
    if ranks.world > 1:
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                all_sum(buffer).div_(ranks.world)


class _StopSignal:
    """Notes SIGTERM, SIGUSR1 (Slurm's warning) and the first Ctrl-C while it is entered."""

    asked = False

    def __enter__(self) -> _StopSignal:
        self._before = {
            name: signal.signal(name, self._note) for name in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
        }
        return self

    def __exit__(self, *_error: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _note(self, number: int, _frame: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


def check_parts(params: TrainConfig, batch_size: int, world: int) -> None:
    """Raises UsageError where the batch does not divide over ranks and accumulated parts."""
    if batch_size % (world * params.accumulate):
        raise UsageError(
            f"data.batch_size={batch_size} does not divide over {world} ranks x {params.accumulate} accumulated parts"
        )
