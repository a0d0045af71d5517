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
    of the two changes has the plain momentum, and one that only the teacher changes no weight decay in its first step:
    both as in the authors' code.

    Args:
        groups: parameters; those of a group with ``taught_only`` have a gradient of the teacher's terms alone.
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
        self._of_teacher: dict[Tensor, Tensor] = {}

    def take(self, loss_of_teachers: Tensor) -> None:
        """Add the gradients of the part of the loss that reads a teacher, before the backward pass of the whole."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss_of_teachers, parameters, retain_graph=True, allow_unused=True)
        ):
            if gradient is not None:
                before = self._of_teacher.get(parameter)
                self._of_teacher[parameter] = gradient if before is None else before + gradient

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter by its whole gradient, of which `take` has the teacher's part."""
        for group in self.param_groups:
            for parameter in group["params"]:
                teacher = self._of_teacher.pop(parameter, None)
                if teacher is not None:
                    teacher = all_mean(teacher)
                if group["taught_only"]:
                    self._step(parameter, group, teacher, "taught", 0.0, decay=bool(self.state[parameter]))
                    continue
                delta = 0.0 if teacher is None else group["delta"]
                task = parameter.grad if teacher is None or parameter.grad is None else parameter.grad - teacher
                self._step(parameter, group, task, "task", -delta, decay=True)
                self._step(parameter, group, teacher, "taught", delta, decay=False)

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
