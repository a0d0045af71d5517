"""Learning rate and momentum as pure functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from training.optimizer import OptimConfig

_RISE, _FALL = 25, 1e4  # onecycle begins at a 25th of the rate, and ends at a 10^4-th of that
_MOMENTA = (0.95, 0.85)  # at its ends, at its highest rate


def learning_rate(config: OptimConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The rate of optimizer step ``step``, counted from 0.

    Warm-up grows linearly to `init_lr` over `warmup_epochs`, its last step reaching it. After that `step` decays at
    epoch ends, by `lr_decay` at each of `milestones`; `cosine` and `linear` fall from `init_lr` towards `min_lr`,
    which the step after the last would reach. `onecycle` is that of Smith and Topin, arXiv 1708.07120, in cosines as
    torch has it: it rises to `init_lr` in the share `pct_start` of its steps and falls to nearly nothing.
    """
    if config.schedule == "onecycle":
        least = config.init_lr / _RISE
        return _in_cycle(config, step, steps_per_epoch, epochs, least, config.init_lr, least / _FALL)
    warmup, total = round(config.warmup_epochs * steps_per_epoch), epochs * steps_per_epoch
    if step < warmup:
        return config.init_lr * (step + 1) / warmup
    if config.schedule == "step":
        passed = sum(step // steps_per_epoch >= epoch for epoch in config.milestones)
        return config.init_lr * config.lr_decay**passed
    progress = (step - warmup) / max(1, total - warmup)
    share = (1 + math.cos(math.pi * progress)) / 2 if config.schedule == "cosine" else 1 - progress
    return config.min_lr + (config.init_lr - config.min_lr) * share


def momentum(config: OptimConfig, step: int, steps_per_epoch: int, epochs: int) -> float | None:
    """The momentum of that step; None where it stays as it is set."""
    if config.schedule != "onecycle":
        return None
    return _in_cycle(config, step, steps_per_epoch, epochs, _MOMENTA[0], _MOMENTA[1], _MOMENTA[0])


def _in_cycle(
    config: OptimConfig, step: int, steps_per_epoch: int, epochs: int, begin: float, peak: float, end: float
) -> float:
    """What stands at ``begin``, at the ``peak`` and at the ``end`` of a cycle, and between them on cosines."""
    total = (config.cycle_epochs or epochs) * steps_per_epoch
    top = config.pct_start * total - 1  # the step of the peak
    if step <= top:
        return _cosine(begin, peak, step / top if top > 0 else 1.0)
    return _cosine(peak, end, min(1.0, (step - top) / max(total - 1 - top, 1e-9)))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
