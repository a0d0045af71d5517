"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from training.optimizer import OptimConfig


def learning_rate(config: OptimConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The rate of optimizer step ``step``, counted from 0.

    Warm-up grows linearly to `init_lr` over `warmup_epochs`, its last step reaching it. After that `step` decays at
    epoch ends, by `lr_decay` at each of `milestones`; `cosine` and `linear` fall from `init_lr` towards `min_lr`,
    which the step after the last would reach.
    """
    warmup, total = round(config.warmup_epochs * steps_per_epoch), epochs * steps_per_epoch
    if step < warmup:
        return config.init_lr * (step + 1) / warmup
    if config.schedule == "step":
        passed = sum(step // steps_per_epoch >= epoch for epoch in config.milestones)
        return config.init_lr * config.lr_decay**passed
    progress = (step - warmup) / max(1, total - warmup)
    share = (1 + math.cos(math.pi * progress)) / 2 if config.schedule == "cosine" else 1 - progress
    return config.min_lr + (config.init_lr - config.min_lr) * share
