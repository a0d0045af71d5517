"""Distillation-oriented training: one momentum for the task's gradient, another for the teacher's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from utils.distributed import all_mean


class Dot(torch.optim.Optimizer):
    """SGD with momentum ``momentum`` - ``delta`` for the task and ``momentum`` + ``delta`` for what the teacher asks.

    Zhao et al., Dot: a distillation-oriented trainer, ICCV 2023, algorithm 1; delta 0.075 on CIFAR-100 and 0.09 on
    ImageNet. Both steps have the same rate, the task's comes first and has the weight decay. A parameter that only one
    of the two moves has the plain momentum, and one that only the teacher moves no weight decay in its first step: both
    as in the authors' code.

    Args:
        groups: parameters; those of a group with ``taught_only`` have no task.
        lr: rate.
        momentum: of both, before ``delta``.
        weight_decay: times the parameter is added to its gradient.
        delta: the difference.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, momentum: float, weight_decay: float, delta: float
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "delta": delta, "taught_only": False}
        super().__init__(groups, defaults)
        self._taught: dict[Tensor, Tensor] = {}

    def take(self, taught: Tensor) -> None:
        """Add the gradients of the part of the loss that looks at a teacher, before the whole loss goes backward."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(taught, parameters, retain_graph=True, allow_unused=True)
        ):
            if gradient is not None:
                self._taught[parameter] = self._taught[parameter] + gradient if parameter in self._taught else gradient

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter by its whole gradient, of which `take` has the teacher's part."""
        for group in self.param_groups:
            for parameter in group["params"]:
                taught = self._taught.pop(parameter, None)
                if taught is not None:
                    taught = all_mean(taught)
                if group["taught_only"]:
                    self._step(parameter, group, taught, "taught", 0.0, decay=bool(self.state[parameter]))
                    continue
                delta = 0.0 if taught is None else group["delta"]
                task = parameter.grad if taught is None or parameter.grad is None else parameter.grad - taught
                self._step(parameter, group, task, "task", -delta, decay=True)
                self._step(parameter, group, taught, "taught", delta, decay=False)

    def _step(
        self, parameter: Tensor, group: dict[str, Any], gradient: Tensor | None, name: str, delta: float, *, decay: bool
    ) -> None:
        if gradient is None:
            return
        if decay:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        velocity = self.state[parameter].get(name)
        if velocity is None:
            self.state[parameter][name] = velocity = gradient.clone()
        else:
            velocity.mul_(group["momentum"] + delta).add_(gradient)
        parameter.sub_(velocity * group["lr"])


def groups_of(module: nn.Module) -> list[dict[str, Any]]:
    """The student's parameters, and those that only objectives have."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    mine = [parameter for name, parameter in named if name.startswith("student.")]
    others = [parameter for name, parameter in named if not name.startswith("student.")]
    return [{"params": mine}, *([{"params": others, "taught_only": True}] if others else [])]
