"""One optimizer step on a batch: forward and backward in parts, clipping, the step itself, the moving average."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dataset.feed.batch import Batch
from knowledge_distiller import Distilled
from teachers import Views
from training.dot import Dot
from training.settings import TrainConfig
from utils.errors import UsageError

if TYPE_CHECKING:
    from training.state import State

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def step_on(
    state: State,
    module: nn.Module,
    batch: Batch,
    rate: float,
    momentum: float | None = None,
    shared: Sequence[Views] | None = None,
) -> list[tuple[Distilled, Batch]]:
    """One step on this rank's ``batch``, in `accumulate` parts of it.

    Args:
        state: of the run; its networks and its optimizer take the step.
        module: its distiller, compiled or under DDP where the run asks for it.
        batch: B samples.
        rate: the learning rate.
        momentum: likewise; as the optimizer has it when not given.
        shared: the views of each part that students share, where there are several.

    Returns:
        What the parts gave, and the parts.

    Raises:
        UsageError: the loss has no gradient for what is trained, or a batch norm sees a single value.
    """
    # Dropout draws from the step and the rank alone, so that a resumed run draws the same.
    seed = (state.params.seed << 40) + (state.step << 12)
    torch.manual_seed((seed + state.ranks.rank) % 2**64)
    state.distiller.set_seed(seed)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
        if momentum is not None:
            group.update({"betas": (momentum, group["betas"][1])} if "betas" in group else {"momentum": momentum})
    inputs: list[tuple] = [(part,) for part in batch.chunk(state.params.accumulate)]
    if shared is not None:
        inputs = [(views.batch, views) for views in shared]
    with state.stopwatch("student"):
        results = [_backward(state, module, given, len(inputs), last=given is inputs[-1]) for given in inputs]
    with state.stopwatch("optimizer"):
        _update(state)
    return [(result, part) for result, (part, *_) in zip(results, inputs)]


def _update(state: State) -> None:
    """Clipping, the step itself, the moving average."""
    if (longest := state.phase.optim.grad_clip) is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_((p for p in state.distiller.parameters() if p.requires_grad), longest)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema is not None:
        state.ema.update_parameters(state.distiller.student)


def _backward(state: State, module: nn.Module, inputs: tuple, parts: int, *, last: bool) -> Distilled:
    """The gradients of one of ``parts``, the ``inputs`` of the facade; ranks share theirs after the last one."""
    unsynced = isinstance(module, DistributedDataParallel) and not last
    with module.no_sync() if unsynced else nullcontext():  # type: ignore[operator]
        with autocast(state.params, state.ranks.device), _enough_images(), _alike_in_each_step():
            given: Distilled = module(*inputs)
        if not given.weighted.requires_grad:
            trained = ", ".join(state.phase.trainable) or "anything that is trained"
            terms = ", ".join(f"terms.{name}" for name in state.phase.terms)
            raise UsageError(f"{terms}: the loss has no gradient for {trained}; see trainable and terms of the phase")
        if isinstance(state.optimizer, Dot):
            state.optimizer.take(given.loss_of_teachers / parts)
        state.scaler.scale(given.loss / parts).backward()
    return given


@contextmanager
def _enough_images() -> Iterator[None]:
    """Name the settings to change where batch norms see a batch of one.

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


@contextmanager
def _alike_in_each_step() -> Iterator[None]:
    """Say in words of ours what DDP does not take.

    Raises:
        UsageError: a network of one's own left parameters out in the step before.
    """
    try:
        yield
    except RuntimeError as error:
        if "finished reduction in the prior iteration" not in str(error):  # DDP's message
            raise
        raise UsageError(
            "the student left parameters out in a step that have a part in others, which several ranks cannot "
            "follow: let all take part in each, such as logits + 0 * self.layer.weight.sum(), or train on one rank"
        ) from None


def autocast(params: TrainConfig, device: torch.device) -> AbstractContextManager:
    """The precision of a run's networks, in training and validation."""
    return torch.autocast(device.type, _AUTOCAST.get(params.amp), enabled=params.amp != "off")
