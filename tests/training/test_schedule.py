"""Schedules and the optimizer at their edges; test_parts.py has the common cases."""

import math
import sys
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from training.optimizer import OptimConfig, build_optimizer
from training.schedule import learning_rate, momentum
from utils.errors import UsageError


def rates(config, steps_per_epoch, epochs):
    return [learning_rate(config, step, steps_per_epoch, epochs) for step in range(steps_per_epoch * epochs)]


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.1), (29, 0.1), (30, 0.01), (59, 0.01), (60, 1e-3), (89, 1e-3), (90, 1e-4), (99, 1e-4)]
)
def test_the_published_recipe_changes_at_the_first_step_of_an_epoch(epoch, rate):
    first, last = epoch * 5005, epoch * 5005 + 5004  # 256 of ImageNet's images a step
    for step in (first, last):
        assert learning_rate(OptimConfig(), step, 5005, 100) == pytest.approx(rate)


def test_cosine_after_warm_up_by_the_formula():
    config = OptimConfig(init_lr=0.4, min_lr=0.1, schedule="cosine", warmup_epochs=1)
    expected = [0.4 * (step + 1) / 4 for step in range(4)]
    expected += [0.1 + 0.3 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert rates(config, 4, 3) == pytest.approx(expected)


def test_linear_by_hand():
    assert rates(OptimConfig(init_lr=1.0, schedule="linear"), 2, 2) == pytest.approx([1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize(("pct_start", "epochs", "cycle"), [(0.2, 4, 0), (0.1, 3, 8), (0.3, 1, 0), (0.05, 2, 0)])
def test_one_cycle_is_torchs(pct_start, epochs, cycle):
    steps, total = 7, 7 * (cycle or epochs)
    config = OptimConfig(init_lr=0.3, schedule="onecycle", pct_start=pct_start, cycle_epochs=cycle, optimizer="adam")
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=total, pct_start=pct_start)
    for step in range(steps * epochs):
        (group,) = optimizer.param_groups
        assert learning_rate(config, step, steps, epochs) == pytest.approx(group["lr"], rel=1e-9)
        assert momentum(config, step, steps, epochs) == pytest.approx(group["betas"][0], rel=1e-9)
        optimizer.step()
        if step < total - 1:
            theirs.step()
    assert momentum(OptimConfig(schedule="cosine"), 3, steps, epochs) is None


def test_milestones_count_from_the_start_of_the_run_and_not_from_the_end_of_warm_up():
    config = OptimConfig(init_lr=1.0, milestones=(3, 4), lr_decay=0.5, warmup_epochs=2)
    assert rates(config, 1, 6) == pytest.approx([0.5, 1, 1, 0.5, 0.25, 0.25])


@given(
    st.floats(0, 6), st.integers(1, 13), st.integers(1, 8), st.sampled_from(["step", "cosine", "linear"]), st.booleans()
)
def test_no_rate_leaves_the_interval(warmup, steps, epochs, schedule, floor):
    config = OptimConfig(init_lr=1.0, min_lr=0.1 if floor else 0.0, schedule=schedule, warmup_epochs=warmup)
    assert all(0 < rate <= 1 for rate in rates(config, steps, epochs))


def test_half_an_epoch_of_warm_up_reaches_init_lr_and_no_more():
    config = OptimConfig(init_lr=1.0, schedule="cosine", warmup_epochs=0.5)
    assert rates(config, 5, 3)[:3] == pytest.approx([0.5, 1, 1])


def test_sgd_steps_as_its_formula_and_leaves_frozen_parameters():
    module = nn.Linear(1, 1)
    module.bias.requires_grad_(False)
    optimizer = build_optimizer(OptimConfig(init_lr=0.5, momentum=0.9, weight_decay=0.1), module)
    assert [parameter is module.weight for group in optimizer.param_groups for parameter in group["params"]] == [True]
    weight, velocity = 2.0, 0.0
    nn.init.constant_(module.weight, weight)
    for _ in range(3):
        module.weight.grad = torch.ones(1, 1)
        optimizer.step()
        gradient = 1 + 0.1 * weight
        velocity = gradient if velocity == 0 else 0.9 * velocity + gradient
        weight -= 0.5 * (gradient + 0.9 * velocity)  # Nesterov
        assert module.weight.item() == pytest.approx(weight)


def test_spared_groups_hold_norms_and_biases_and_no_group_is_empty():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
    decayed, spared = build_optimizer(OptimConfig(decay_norm_and_bias=False), module).param_groups
    assert [tuple(parameter.shape) for parameter in decayed["params"]] == [(4, 3, 3, 3)]
    assert len(spared["params"]) == 3
    (only,) = build_optimizer(OptimConfig(decay_norm_and_bias=False), nn.Linear(2, 2, bias=False)).param_groups
    assert only["weight_decay"] == 1e-4


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_adam_and_adamw_are_torchs_own_with_the_settings_of_the_config(name, kind):
    settings = {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3}
    moved = []
    for build in (
        lambda module: build_optimizer(OptimConfig(optimizer=name, init_lr=0.1, **settings), module),
        lambda module: kind(module.parameters(), lr=0.1, **settings),
    ):
        torch.manual_seed(0)
        module = nn.Linear(3, 2)
        optimizer = build(module)
        assert type(optimizer) is kind
        for _ in range(3):
            module(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        moved.append(module.weight.detach())
    assert torch.equal(*moved)
    decayed, spared = build_optimizer(OptimConfig(optimizer=name, decay_norm_and_bias=False), module).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (1e-4, 0.0)


def test_without_momentum_nesterovs_form_is_plain_sgd():
    (group,) = build_optimizer(OptimConfig(momentum=0.0), nn.Linear(1, 1)).param_groups
    assert (group["momentum"], group["nesterov"]) == (0.0, False)


def test_apex_wants_a_gpu(monkeypatch):
    optimizers = types.ModuleType("apex.optimizers")
    optimizers.FusedSGD = torch.optim.SGD
    monkeypatch.setitem(sys.modules, "apex", types.ModuleType("apex"))
    monkeypatch.setitem(sys.modules, "apex.optimizers", optimizers)
    with pytest.raises(UsageError, match=r"needs a GPU; use optim\.optimizer=sgd"):
        build_optimizer(OptimConfig(optimizer="apex_sgd"), nn.Linear(1, 1))


def test_dot_without_a_difference_is_sgd():
    torch.manual_seed(0)
    inputs, moved = torch.randn(6, 5), []
    for kind in ("sgd", "dot"):
        torch.manual_seed(1)
        module = nn.ModuleDict({"student": nn.Linear(5, 3)})
        config = OptimConfig(optimizer=kind, init_lr=0.1, nesterov=False, weight_decay=0.01, delta=0.0)
        optimizer = build_optimizer(config, module)
        for _ in range(4):
            outputs = module["student"](inputs)
            task, from_teacher = outputs.square().mean(), (outputs - 1).abs().mean()
            if kind == "dot":
                optimizer.take(from_teacher)
            (task + from_teacher).backward()
            optimizer.step()
            optimizer.zero_grad()
        moved.append(module["student"].weight.detach())
    torch.testing.assert_close(*moved)
    with pytest.raises(UsageError, match=r"optim\.optimizer=dot needs optim\.nesterov=False"):
        OptimConfig(optimizer="dot").check()
    with pytest.raises(UsageError, match=r"optim\.delta=0\.2: dot's momenta, 0\.9 minus and plus it"):
        OptimConfig(optimizer="dot", nesterov=False, delta=0.2).check()
