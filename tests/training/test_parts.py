"""Schedule, optimizer, configuration, scores: the small parts."""

import sys
import types
from dataclasses import replace

import pytest
from torch import nn

from imagenet_train_cfg import cfg
from recipe import Recipe
from training.optimizer import OptimConfig, build_optimizer
from training.schedule import learning_rate
from utils.config import differences, override, read_config
from utils.errors import UsageError


def test_the_step_schedule_is_the_published_one():
    rates = [learning_rate(OptimConfig(), epoch * 10, 10, 100) for epoch in range(100)]
    expected = [0.1] * 30 + [0.01] * 30 + [0.001] * 30 + [0.0001] * 10
    assert rates == pytest.approx(expected)
    assert learning_rate(OptimConfig(), 299, 10, 100) == pytest.approx(0.1)  # the last step of epoch 30


@pytest.mark.parametrize(("schedule", "half"), [("cosine", 0.505), ("linear", 0.505)])
def test_cosine_and_linear_fall_from_init_lr_to_min_lr(schedule, half):
    config = OptimConfig(init_lr=1.0, min_lr=0.01, schedule=schedule)
    rates = [learning_rate(config, step, 10, 10) for step in range(101)]
    assert (rates[0], rates[50], rates[100]) == pytest.approx((1.0, half, 0.01))
    assert rates == sorted(rates, reverse=True)


def test_warm_up_reaches_init_lr_with_its_last_step():
    config = OptimConfig(init_lr=1.0, schedule="cosine", warmup_epochs=2)
    rates = [learning_rate(config, step, 5, 10) for step in range(11)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == pytest.approx(1.0)


def test_norms_and_biases_may_be_spared_from_weight_decay():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    spared = build_optimizer(OptimConfig(decay_norm_and_bias=False), module).param_groups
    assert [group["weight_decay"] for group in spared] == [1e-4, 0.0]
    assert [len(group["params"]) for group in spared] == [2, 4]
    (whole,) = build_optimizer(OptimConfig(), module).param_groups
    assert (len(whole["params"]), whole["weight_decay"], whole["nesterov"]) == (6, 1e-4, True)


@pytest.mark.parametrize("impostor", [False, True])
def test_apex_is_asked_for_clearly(monkeypatch, impostor):
    monkeypatch.setitem(sys.modules, "apex", types.ModuleType("apex") if impostor else None)
    with pytest.raises(UsageError, match=r"NVIDIA apex.*apex on PyPI is another project"):
        build_optimizer(OptimConfig(optimizer="apex_sgd"), nn.Linear(1, 1))


def test_overrides_change_values_of_every_type():
    words = ["optim.init_lr=0.2", "optim.nesterov=False", "optim.milestones=10,20", "terms.wsld.weight=3"]
    words += ["terms.wsld.options.temperature=4", "optim.grad_clip=5", "data.scale=(0.2,1)", "data.data_path=/a=b, c"]
    changed = override(cfg, [*words, "--train_params.seed", "7"], "")
    assert changed.last.optim == replace(
        cfg.last.optim, init_lr=0.2, nesterov=False, milestones=(10, 20), grad_clip=5.0
    )
    assert changed.last.terms["wsld"] == replace(cfg.last.terms["wsld"], weight=3.0, options={"temperature": 4.0})
    assert (changed.data.scale, changed.data.data_path, changed.train_params.seed) == ((0.2, 1.0), "/a=b, c", 7)
    assert override(changed, ["optim.grad_clip=None"], "").last.optim.grad_clip is None
    assert override(cfg, [], "") == cfg


@pytest.mark.parametrize(
    ("typed", "near"),
    [("optim.init_rl=1", "optim.init_lr"), ("optin.init_lr=1", "optim"), ("terms.wsl.weight=1", "wsld")],
)
def test_an_unknown_setting_brings_its_neighbours(typed, near):
    with pytest.raises(UsageError, match=near):
        override(cfg, [typed], "")


def test_a_wrong_type_names_the_field():
    with pytest.raises(UsageError, match=r"^optim\.init_lr=fast: expected a number, at least 0$"):
        override(cfg, ["optim.init_lr=fast"])


def test_a_config_builds_a_recipe_or_is_refused(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("cfg = 3\n")
    with pytest.raises(UsageError, match="must set `cfg`"):
        read_config(config, Recipe)
    with pytest.raises(UsageError, match="no such file"):
        read_config(tmp_path / "none.py", Recipe)


def test_differences_are_named_by_their_dotted_keys():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == {"a.c": (2, 3), "d": (None, 4)}
