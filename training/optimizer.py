"""Optimizers: torch's SGD, Adam and AdamW, NVIDIA apex's SGD, and SGD with two momenta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from training.dot import Dot, groups_of
from utils.errors import UsageError
from utils.settings import setting


@dataclass(frozen=True)
class OptimConfig:
    """How the trainable parameters are updated."""

    optimizer: Literal["sgd", "adamw", "adam", "apex_sgd", "dot"] = setting("sgd", also=("opt",))
    """torch's sgd, for convolutional networks; torch's adamw, for transformers such as ViT and DeiT, with an init_lr
    about 0.001 and a weight_decay about 0.05; torch's adam, whose weight decay is part of the gradient; all fused on
    GPUs. apex_sgd is FusedSGD of NVIDIA apex, to be installed from its repository; dot is the distillation-oriented
    trainer's, with two momenta"""
    delta: float = setting(0.075, least=0, below=1, used_with={"optimizer": ("dot",)})
    """dot: how far the momentum of the task lies below, and that of the teacher above"""
    init_lr: float = setting(0.1, least=0, also=("lr", "learning_rate", "base_lr"))
    """learning rate for data.batch_size images a step; it is not scaled by anything"""
    min_lr: float = setting(0.0, least=0, used_with={"schedule": ("cosine", "linear")})
    """where cosine and linear end"""
    schedule: Literal["step", "cosine", "linear", "onecycle"] = setting("step", also=("scheduler", "sched"))
    """how the rate falls; onecycle is torch's OneCycleLR, which rises to init_lr first and moves the momentum (adam's
    first beta) the other way, between 0.95 and 0.85"""
    pct_start: float = setting(0.3, above=0, below=1, used_with={"schedule": ("onecycle",)})
    """onecycle: share of its steps in which the rate rises"""
    cycle_epochs: int = setting(0, least=0, most=10**6, used_with={"schedule": ("onecycle",)})
    """onecycle: epochs of a whole cycle, which the phase may end within; those of the phase when 0"""
    milestones: tuple[int, ...] = setting((30, 60, 90), least=1, rising=True, used_with={"schedule": ("step",)})
    """step: epochs after which the rate is multiplied by lr_decay"""
    lr_decay: float = setting(0.1, above=0, most=1, used_with={"schedule": ("step",)})
    """step: the factor"""
    warmup_epochs: float = setting(
        0.0, least=0, most=10**6, also=("warmup",), used_with={"schedule": ("step", "cosine", "linear")}
    )
    """epochs of linear growth to init_lr"""
    momentum: float = setting(0.9, least=0, below=1, used_with={"optimizer": ("sgd", "apex_sgd", "dot")})
    """of the sgd kinds"""
    nesterov: bool = setting(True, used_with={"optimizer": ("sgd", "apex_sgd")})
    """sgd and apex_sgd: Nesterov's form of momentum"""
    betas: tuple[float, float] = setting((0.9, 0.999), least=0, below=1, used_with={"optimizer": ("adam", "adamw")})
    """adam and adamw: decay a step of the averages of the gradient and of its square"""
    eps: float = setting(1e-8, above=0, used_with={"optimizer": ("adam", "adamw")})
    """adam and adamw: what is added to the root of the average square"""
    weight_decay: float = setting(1e-4, least=0, also=("wd",))
    """share of a parameter that is taken off, times the learning rate"""
    decay_norm_and_bias: bool = True
    """whether weight decay also acts on biases and normalisation layers, as in the published recipes"""
    grad_clip: float | None = setting(None, above=0, also=("clip_grad", "max_grad_norm"))
    """longest gradient norm of a step; none clips nothing"""

    def check(self, prefix: str = "optim.") -> None:
        """Raises UsageError where two settings, whose keys begin with ``prefix``, do not go together."""
        if self.schedule in ("cosine", "linear") and self.min_lr > self.init_lr:
            raise UsageError(f"{prefix}min_lr={self.min_lr}: at most {prefix}init_lr={self.init_lr}")
        if self.optimizer != "dot":
            return
        if self.nesterov or self.grad_clip is not None or not self.decay_norm_and_bias:
            raise UsageError(
                f"{prefix}optimizer=dot needs {prefix}nesterov=False, no grad_clip and decay_norm_and_bias=True"
            )
        if not 0 <= self.momentum - self.delta <= self.momentum + self.delta < 1:
            raise UsageError(
                f"{prefix}delta={self.delta}: dot's momenta, {self.momentum} minus and plus it, must lie in [0, 1)"
            )


def build_optimizer(config: OptimConfig, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters of ``module``.

    Raises:
        UsageError: nothing is trained; apex is asked for and is not installed, is another package, or there is no GPU.
    """
    if config.optimizer == "dot":
        return Dot(groups_of(module), config.init_lr, config.momentum, config.weight_decay, config.delta)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise UsageError("trainable: nothing is left to train; see trainable and freeze_norms of the phase")
    # Norm scales, norm shifts and biases are the parameters with one axis.
    spared = [] if config.decay_norm_and_bias else [p for p in parameters if p.ndim <= 1]
    decayed = parameters if config.decay_norm_and_bias else [p for p in parameters if p.ndim > 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    options: dict[str, Any] = {"lr": config.init_lr, "weight_decay": config.weight_decay}
    groups = [group for group in groups if group["params"]]
    on_gpu = parameters[0].is_cuda
    if config.optimizer in ("adam", "adamw"):
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, **options, betas=config.betas, eps=config.eps, fused=on_gpu)
    options |= {"momentum": config.momentum, "nesterov": config.nesterov and config.momentum > 0}
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
