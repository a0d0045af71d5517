"""SGD: torch's, NVIDIA apex's, or with two momenta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from training.dot import Dot, groups_of
from utils.errors import UsageError


@dataclass(frozen=True)
class OptimConfig:
    """How the student's parameters move."""

    optimizer: Literal["sgd", "apex_sgd", "dot"] = "sgd"
    """sgd is torch's (fused on GPUs); apex_sgd is FusedSGD of NVIDIA apex, to be installed from its repository; dot is
    the distillation-oriented trainer's, with two momenta"""
    delta: float = 0.075
    """dot: how far the momentum of the task lies below, and that of the teacher above"""
    init_lr: float = 0.1
    """learning rate for data.batch_size images a step; it is not scaled by anything"""
    min_lr: float = 0.0
    """where cosine and linear end"""
    schedule: Literal["step", "cosine", "linear"] = "step"
    """how the rate falls"""
    milestones: tuple[int, ...] = (30, 60, 90)
    """step: epochs after which the rate is multiplied by lr_decay"""
    lr_decay: float = 0.1
    """step: the factor"""
    warmup_epochs: float = 0.0
    """epochs of linear growth to init_lr"""
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    decay_norm_and_bias: bool = True
    """whether weight decay also acts on biases and normalisation layers, as in the published recipes"""
    grad_clip: float | None = None
    """longest gradient norm of a step; None clips nothing"""
    moves: tuple[str, ...] = ()
    """what is trained: student, student.layer4, terms.ft.paraphraser, ...; everything when not given"""


def build_optimizer(config: OptimConfig, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters of ``module``.

    Raises:
        UsageError: apex is asked for and is not installed, is another package, or there is no GPU; dot is asked for
            with settings that it has no use for.
    """
    if config.optimizer == "dot":
        if config.nesterov or config.grad_clip is not None or not config.decay_norm_and_bias:
            raise UsageError(
                "optim.optimizer=dot needs optim.nesterov=False, no grad_clip and decay_norm_and_bias=True"
            )
        return Dot(groups_of(module), config.init_lr, config.momentum, config.weight_decay, config.delta)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # Norm scales, norm shifts and biases are the parameters with one axis.
    spared = [] if config.decay_norm_and_bias else [p for p in parameters if p.ndim <= 1]
    decayed = parameters if config.decay_norm_and_bias else [p for p in parameters if p.ndim > 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    options: dict[str, Any] = {
        "lr": config.init_lr,
        "momentum": config.momentum,
        "nesterov": config.nesterov,
        "weight_decay": config.weight_decay,
    }
    groups = [group for group in groups if group["params"]]
    on_gpu = parameters[0].is_cuda
    if config.optimizer == "apex_sgd":
        return _apex_sgd(on_gpu)(groups, **options)
    return torch.optim.SGD(groups, **options, fused=on_gpu)


def _apex_sgd(on_gpu: bool) -> type[torch.optim.Optimizer]:
    try:
        from apex.optimizers import FusedSGD
    except ImportError:
        raise UsageError(
            "optim.optimizer=apex_sgd needs NVIDIA apex, built from https://github.com/NVIDIA/apex (the package called "
            "apex on PyPI is another project); optim.optimizer=sgd needs nothing"
        ) from None
    if not on_gpu:
        raise UsageError("optim.optimizer=apex_sgd needs a GPU; use optim.optimizer=sgd")
    return FusedSGD
