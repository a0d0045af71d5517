"""A run's state: what a checkpoint holds, which one a run resumes from, and what is refused as another run's."""

from __future__ import annotations

import json
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from knowledge_distiller import KnowledgeDistiller
from models.zoo import Network
from tasks import Task
from training import checkpoint
from training.average import Average
from training.ddp import average_statistics
from training.dot import Dot
from training.meters import Meters
from training.optimizer import build_optimizer
from training.phases import Phase
from training.run_folder import ResumeRemarks, RunFolder
from training.settings import TrainConfig
from training.trainable import train_only, trainable_parameters
from utils.distributed import Ranks, barrier, from_first, gather
from utils.errors import DataError, UsageError
from utils.stopwatch import Stopwatch

_OVER = "start over with --fresh, which keeps this folder beside the new one"
_SHOWN = 3  # names in a message


class State:
    """All that a run changes.

    Args:
        distiller: built with the terms of all ``phases``.
        phases: one after the other, by name.
        params: how.
        task: whose running scores are kept.
        run: where checkpoints go.
        ranks: this one among all.

    Attributes:
        epoch, batch: epochs and batches of this epoch that are done.
        step: optimizer steps that are done.
        best: scores of the student in best.pt; rank 0's count.
        best_of: whose they are: student, ema, average.
        phase_number, phase: that of the optimizer and the meters; an epoch may have ended it.
        optimizer, scaler, meters, ema: of the current phase; the moving average is None where none is kept.
        average: that of the last epochs; None where none is kept.
        stopwatch: of the parts of a step: `teacher`, `student` (which it is within), `optimizer`.

    Raises:
        UsageError: settings of a phase that do not go together.
    """

    def __init__(
        self,
        distiller: KnowledgeDistiller,
        phases: Mapping[str, Phase],
        params: TrainConfig,
        task: Task,
        run: RunFolder,
        ranks: Ranks,
    ) -> None:
        self.distiller, self.phases, self.params = distiller, phases, params
        self.task, self.run, self.ranks = task, run, ranks
        distiller.divide(ranks.world * params.accumulate)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=params.amp == "fp16")
        self.ema = None if params.ema_decay is None else Average(distiller.student, params.ema_decay)
        self.average = Average(distiller.student) if params.average_last else None
        self.stopwatch = Stopwatch(ranks.device)
        for teacher in () if params.compile else distiller.teachers.values():
            self.stopwatch.around(teacher, "teacher", within="student")
        self._parameters = trainable_parameters(distiller)
        self._ends = list(accumulate(phase.epochs for phase in phases.values()))
        self.epoch = self.batch = self.step = 0
        self.best: dict[str, float] = {}
        self.best_of = ""
        self._unsaved = ""  # why the last checkpoint could not be written
        for number in reversed(range(len(phases))):  # every one, so that what is wrong in the last shows at once
            self.begin(number)

    def begin(self, number: int) -> None:
        """Begin a phase: its terms, what is trained in it, an optimizer without a past."""
        self.phase_number, self.phase = number, list(self.phases.values())[number]
        self.distiller.begin(self.phase.terms)
        train_only(self._parameters, self.phase.trainable, self.distiller.matches.keys() - self.phase.terms.keys())
        self._freeze_norms()
        self.distiller.train(self.distiller.training)  # what is frozen goes into eval mode
        self.optimizer = build_optimizer(self.phase.optim, self.distiller)
        params, reads_teacher = self.params, self.distiller.reads_teacher
        if isinstance(self.optimizer, Dot) and (params.compile or params.amp == "fp16" or not reads_teacher):
            raise UsageError(
                "optim.optimizer=dot needs a term with a teacher, train_params.compile=False and an amp other than fp16"
            )
        self.meters = Meters(list(self.phase.terms), self.task, self.ranks.device)

    @property
    def epochs(self) -> int:
        """Of all phases."""
        return self._ends[-1]

    @property
    def epochs_before(self) -> int:
        """Of the phases before the current one."""
        return self._ends[self.phase_number] - self.phase.epochs

    @property
    def next_phase(self) -> int:
        """Number of the phase that the next epoch belongs to; how many there are where none is left."""
        return bisect_right(self._ends, self.epoch)

    def average_epochs(self) -> None:
        """Count the student in the average of the last epochs, if this is one of them; after an epoch."""
        if self.average is not None and self.epochs - self.epoch < self.params.average_last:
            self.average.update_parameters(self.distiller.student)

    def candidates(self) -> dict[str, Network]:
        """Whom the best student may be taken from after this epoch: itself, its moving average, that of the last."""
        found: dict[str, Network] = {"student": self.distiller.student}
        if self.ema is not None:
            found["ema"] = self.ema.module
        if self.average is not None and self.epoch == self.epochs:
            found["average"] = self.average.module
        return found

    def highest(self, score: str) -> float | None:
        """That ``score`` of the best student so far."""
        return self.best.get(score if self.best_of == "student" else f"{self.best_of}_{score}")

    def save(self, *, best: dict[str, float] | None = None, kind: str = "") -> None:
        """Write `last.pt`, and for a student with the ``best`` scores `best.pt` and its export; every rank takes part.

        ``kind`` is that of the candidates whose scores are the best.

        A failure is printed, and the next call tries again; the checkpoint before it stays.
        """
        self.meters.raise_if_diverged()  # a diverged state never replaces a sound one
        average_statistics(self.distiller.student, self.ranks)
        sums = self.meters.state()
        if self.ema is not None:
            average_statistics(self.ema, self.ranks)
        if not self.ranks.first:
            return
        try:
            self._write(sums, best, kind)
            self._unsaved = ""
        except (DataError, OSError) as error:
            self._unsaved = str(error)
            print(f"no checkpoint after step {self.step}, the one before it stays: {error}", file=sys.stderr)

    def raise_if_unsaved(self) -> None:
        """Raises DataError, on every rank, where the last `save` could not write."""
        if unsaved := from_first(self._unsaved):
            raise DataError(f"the state after step {self.step} is not saved: {unsaved}")

    def resume(self) -> bool:
        """Resume from the last checkpoint, or the best where that is missing; False where there is none.

        Raises:
            DataError: it is damaged, or it is missing where metrics.jsonl has scores.
            UsageError: it is not of this run, or not all ranks see the same.
        """
        barrier()  # rank 0 may just have prepared the folder
        run = self.run
        found = _find(run)
        if found is not None:
            self._restore(*found)
            if self.ranks.first and found[0] != run.last:
                print(f"{run.last} is missing: {found[0].name} takes its place")
        if len(set(gather((self.epoch, self.step)))) > 1:
            raise UsageError(f"train_params.output_path: {run.path} is not the same folder on all machines")
        return found is not None

    def _freeze_norms(self) -> None:
        kept = self.phase.freeze_norms
        norms = [one for one in self.distiller.student.modules() if isinstance(one, _BatchNorm)]
        self.distiller.fixed = norms if kept != "none" else ()
        if kept == "all":
            for norm in norms:
                norm.requires_grad_(False)

    def _write(self, sums: Tensor, best: dict[str, float] | None, kind: str) -> None:
        student, ema, average = self.distiller.student, self.ema, self.average
        position = {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "best": best or self.best,
            "best_of": kind or self.best_of,
            "phase": self.phase_number,
        }
        state: dict[str, Any] = {
            "student": student.network.state_dict(),
            "extras": _extras(self.distiller),
            "ema": None if ema is None else ema.module.network.state_dict(),
            "ema_updates": 0 if ema is None else int(ema.n_averaged),
            "average": None if average is None else average.module.network.state_dict(),
            "average_updates": 0 if average is None else int(average.n_averaged),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "meters": sums,
            "position": json.dumps(position),
        }
        if best is not None:
            checkpoint.save(self.run.best, state)
            checkpoint.export(self.run.student, student.exported(state[kind]))
            self.best, self.best_of = best, kind
        checkpoint.save(self.run.last, state)

    def _restore(self, path: Path, saved: dict[str, Any]) -> None:
        """Restore what was read from ``path``.

        Raises:
            UsageError: it is another network's, another optimizer's, or not laid out as this version writes it.
        """
        try:
            self._load(saved)
        except torch.OutOfMemoryError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            first = " ".join(str(error).split())[:300]
            raise UsageError(
                f"{path} does not fit this run ({type(error).__name__}: {first}): set another name=..., or {_OVER}"
            ) from None

    def _load(self, saved: dict[str, Any]) -> None:
        position = json.loads(saved["position"])
        student, ema = self.distiller.student.network, self.ema
        _compare("student", saved["student"], student.state_dict())
        _compare("parts of the terms", saved["extras"], _extras(self.distiller))
        student.load_state_dict(saved["student"])
        self.distiller.load_state_dict(saved["extras"], strict=False)
        if ema is not None:
            _compare("EMA", saved["ema"], ema.module.network.state_dict())
            ema.module.network.load_state_dict(saved["ema"])
            ema.n_averaged.fill_(saved["ema_updates"])
        if self.average is not None:
            _compare("average", saved["average"], self.average.module.network.state_dict())
            self.average.module.network.load_state_dict(saved["average"])
            self.average.n_averaged.fill_(saved["average_updates"])
        number = position["phase"] if "phase" in position else position["stage"]  # its name in older checkpoints
        if number != self.phase_number:
            self.begin(number)
        ours = [dict(group) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(saved["optimizer"])  # fills in what older versions of torch had no name for
        for group, theirs, loaded in zip(ours, saved["optimizer"]["param_groups"], self.optimizer.param_groups):
            if absent := [name for name in group.keys() - theirs.keys() if loaded.get(name) != group[name]]:
                raise KeyError(f"the optimizer's {', '.join(sorted(absent))}")
        if saved["scaler"]:  # none where it went without fp16
            self.scaler.load_state_dict(saved["scaler"])
        self.meters.restore(saved["meters"], self.ranks.rank)
        self.epoch, self.batch, self.step = position["epoch"], position["batch"], position["step"]
        self.best = position["best"]
        self.best_of = position.get("best_of", "student" if ema is None else "ema")  # older ones took the average


def best_of(path: Path) -> str:
    """Whose scores are the best in the checkpoint at ``path``: student, ema or average; empty for older ones.

    Raises:
        DataError: it is damaged.
    """
    return _position(path).get("best_of", "")


def best_weights(path: Path) -> str:
    """The weights whose scores are the best in the checkpoint at ``path``, as `NetworkConfig.weights` names them.

    Raises:
        DataError: it is damaged.
    """
    return f"{path.resolve()}#{best_of(path)}".rstrip("#")


def has_ended(
    run: RunFolder, epochs: int, resume_remarks: ResumeRemarks, facts: Callable[[], dict[str, Any]], ranks: Ranks
) -> bool:
    """Whether a run of so many epochs, and of the same settings and data, came to its end; on every rank.

    Raises:
        UsageError, DataError: as `RunFolder.compare`.
    """
    ended = False
    if ranks.first and all(path.exists() for path in (run.last, run.best, run.student)):
        with suppress(DataError):  # of a damaged checkpoint, which the run itself will report
            ended = _position(run.last).get("epoch", 0) >= epochs
    if not from_first(ended):
        return False
    run.compare(resume_remarks, facts, ranks)
    return True


def _position(path: Path) -> dict[str, Any]:
    return json.loads(checkpoint.load(path).get("position", "{}"))


def _find(run: RunFolder) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that ``run`` resumes from: the last one, or the best where the last is missing.

    Raises:
        DataError: it is damaged, or there is neither where metrics.jsonl has scores.
    """
    if run.last.exists():
        try:
            return run.last, checkpoint.load(run.last)
        except DataError as error:
            raise DataError(f"{error}: {_instead(run)}") from None
    if run.best.exists():
        try:
            return run.best, checkpoint.load(run.best)
        except DataError as error:
            raise DataError(f"{run.last} is missing and {error}: {_OVER}") from None
    if run.has_scores:
        raise DataError(f"{run.last} and best.pt are missing, and metrics.jsonl has scores: put one back, or {_OVER}")
    return None


def _instead(run: RunFolder) -> str:
    """What to do without the last checkpoint."""
    try:
        position = json.loads(checkpoint.load(run.best)["position"])
        where = f"after epoch {position['epoch']}, step {position['step']}"
    except (DataError, KeyError, TypeError, ValueError):
        return _OVER
    return f"delete it, and the same command resumes from best.pt, {where}"


def _compare(what: str, then: dict[str, Tensor] | None, now: dict[str, Tensor]) -> None:
    """Raises ValueError where names or shapes differ."""
    old, new = ({name: list(value.shape) for name, value in (tensors or {}).items()} for tensors in (then, now))
    differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if differing:
        shown = [f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}" for name in differing[:_SHOWN]]
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise ValueError(f"{what}: {', '.join(shown)}{more}")


def _extras(distiller: KnowledgeDistiller) -> dict[str, Tensor]:
    """What objectives learn or remember: everything but the networks."""
    state = distiller.state_dict()
    return {name: value for name, value in state.items() if not name.startswith(("student.", "teachers."))}
