"""A run's state: what is in a checkpoint, which one a run goes on from, and what is refused as another run's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from training import checkpoint
from training.ddp import average_statistics
from training.run_folder import RunFolder
from utils.distributed import barrier, from_first, gather
from utils.errors import DataError, UsageError

if TYPE_CHECKING:
    from training.loop import Trainer

_OVER = "start over with --fresh, which keeps this folder beside the new one"
_SHOWN = 3  # names in a message


def save(trainer: Trainer, *, best: dict[str, float] | None = None) -> None:
    """Write `last.pt`, and for a student with the ``best`` scores `best.pt` and its export; every rank takes part.

    What cannot be written is told, and tried again at the next call; the checkpoint before it stays.
    """
    trainer.meters.raise_if_diverged()  # a diverged state never replaces a sound one
    average_statistics(trainer.distiller.student, trainer.ranks)
    sums = trainer.meters.state()
    if trainer.ema is not None:
        average_statistics(trainer.ema, trainer.ranks)
    if not trainer.ranks.first:
        return
    try:
        _write(trainer, sums, best)
        trainer.unsaved = ""
    except (DataError, OSError) as error:
        trainer.unsaved = str(error)
        print(f"no checkpoint after step {trainer.step}, the one before it stays: {error}", file=sys.stderr)


def raise_if_unsaved(trainer: Trainer) -> None:
    """Raises DataError, on every rank, where the last `save` could not write."""
    if unsaved := from_first(trainer.unsaved):
        raise DataError(f"the state after step {trainer.step} is not saved: {unsaved}")


def resume(trainer: Trainer) -> bool:
    """Go on from the last checkpoint, or the best where that is missing; False where there is none.

    Raises:
        DataError: it is damaged, or the folder tells of one and has none.
        UsageError: it is not of this run, or not all ranks see the same.
    """
    barrier()  # rank 0 may just have prepared the folder
    run = trainer.run
    found = _find(run)
    if found is not None:
        _restore(trainer, *found)
        if trainer.ranks.first and found[0] != run.last:
            print(f"{run.last} is missing: {found[0].name} takes its place")
    if len(set(gather((trainer.epoch, trainer.step)))) > 1:
        raise UsageError(f"train_params.output_path: {run.path} is not the same folder on all machines")
    return found is not None


def _write(trainer: Trainer, sums: Tensor, best: dict[str, float] | None) -> None:
    student, ema = trainer.distiller.student, trainer.ema
    position = {
        "epoch": trainer.epoch,
        "batch": trainer.batch,
        "step": trainer.step,
        "best": best or trainer.best,
        "stage": trainer.stage_number,  # that of the optimizer and the meters; an epoch may have ended it
    }
    state: dict[str, Any] = {
        "student": student.network.state_dict(),
        "extras": _extras(trainer),
        "ema": None if ema is None else ema.module.network.state_dict(),
        "ema_updates": 0 if ema is None else int(ema.n_averaged),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "meters": sums,
        "position": json.dumps(position),
    }
    if best is not None:
        checkpoint.save(trainer.run.best, state)
        checkpoint.export(trainer.run.path / "student.safetensors", student.exported(state["ema"] or state["student"]))
        trainer.best = best
    checkpoint.save(trainer.run.last, state)


def _find(run: RunFolder) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that ``run`` goes on from: the last one, or the best where the last is missing.

    Raises:
        DataError: it is damaged, or the folder tells of scores and has neither.
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
    return f"delete it, and the same command goes on from best.pt, {where}"


def _restore(trainer: Trainer, path: Path, state: dict[str, Any]) -> None:
    """Take up the ``state`` that was read from ``path``.

    Raises:
        UsageError: it is another network's, another optimizer's, or not laid out as this version writes it.
    """
    try:
        _take_up(trainer, state)
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        first = " ".join(str(error).split())[:300]
        raise UsageError(
            f"{path} does not fit this run ({type(error).__name__}: {first}): set another name=..., or {_OVER}"
        ) from None


def _take_up(trainer: Trainer, state: dict[str, Any]) -> None:
    position = json.loads(state["position"])
    student, ema = trainer.distiller.student.network, trainer.ema
    _compare("student", state["student"], student.state_dict())
    _compare("parts of the terms", state["extras"], _extras(trainer))
    student.load_state_dict(state["student"])
    trainer.distiller.load_state_dict(state["extras"], strict=False)
    if ema is not None:
        _compare("EMA", state["ema"], ema.module.network.state_dict())
        ema.module.network.load_state_dict(state["ema"])
        ema.n_averaged.fill_(state["ema_updates"])
    if position["stage"] != trainer.stage_number:
        trainer.enter(position["stage"])
    optimizer = trainer.optimizer
    optimizer.load_state_dict(state["optimizer"])
    if absent := optimizer.defaults.keys() - optimizer.param_groups[0].keys():
        raise KeyError(f"the optimizer's {', '.join(sorted(absent))}")
    if state["scaler"]:  # none where it went without fp16
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.meters.restore(state["meters"], trainer.ranks.rank)
    trainer.epoch, trainer.batch, trainer.step = position["epoch"], position["batch"], position["step"]
    trainer.best = position["best"]


def _compare(what: str, then: dict[str, Tensor] | None, now: dict[str, Tensor]) -> None:
    """Raises ValueError where names or shapes differ."""
    old, new = ({name: list(value.shape) for name, value in (tensors or {}).items()} for tensors in (then, now))
    differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if differing:
        shown = [f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}" for name in differing[:_SHOWN]]
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise ValueError(f"{what}: {', '.join(shown)}{more}")


def _extras(trainer: Trainer) -> dict[str, Tensor]:
    """What objectives learn or remember: everything but the networks."""
    state = trainer.distiller.state_dict()
    return {name: value for name, value in state.items() if not name.startswith(("student.", "teachers."))}
