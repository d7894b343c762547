import pytest
import torch
from torch import nn

from train.config import OptimizerConfig
from train.optimizer import build_optimizer, learning_rate_at, set_learning_rate


def rates(config: OptimizerConfig, num_steps: int = 100, steps_per_epoch: int = 10) -> list[float]:
    return [
        learning_rate_at(step, num_steps=num_steps, steps_per_epoch=steps_per_epoch, config=config)
        for step in range(num_steps + 1)
    ]


def test_cosine_starts_at_the_peak_passes_half_in_the_middle_and_ends_at_zero() -> None:
    found = rates(OptimizerConfig(learning_rate=2.0))
    assert found[0] == 2.0
    assert found[50] == pytest.approx(1.0)
    assert found[100] == pytest.approx(0.0)
    assert found == sorted(found, reverse=True)


def test_cosine_equals_the_scheduler_of_torch() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates(OptimizerConfig(learning_rate=0.3))[:100] == pytest.approx(expected)


def test_warm_up_grows_linearly_and_then_hands_over_at_the_peak() -> None:
    found = rates(OptimizerConfig(learning_rate=1.0, warmup_epochs=2.0))
    assert found[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert found[20] == 1.0
    assert rates(OptimizerConfig(learning_rate=1.0, schedule="constant"))[99] == 1.0


def test_cosine_after_warm_up_is_a_whole_cosine_over_the_steps_that_are_left() -> None:
    found = rates(OptimizerConfig(learning_rate=2.0, warmup_epochs=2.0))
    assert found[20:] == pytest.approx(rates(OptimizerConfig(learning_rate=2.0), num_steps=80))
    assert found[60] == pytest.approx(1.0)
    assert found[100] == pytest.approx(0.0)


def test_parameters_that_are_not_trained_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", weight_decay=0.1))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_weight_decay_is_for_weights_of_linear_and_convolution_layers_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Embedding(3, 2))
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", weight_decay=0.1))
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(model[0].weight)}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5


def test_fast_parameters_keep_their_factor_over_the_whole_schedule() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = build_optimizer(model, OptimizerConfig(), fast={"1.weight", "1.bias"}, fast_factor=10.0)
    set_learning_rate(optimizer, 0.5)
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate_of[id(model[0].weight)] == rate_of[id(model[0].bias)] == 0.5
    assert rate_of[id(model[1].weight)] == rate_of[id(model[1].bias)] == 5.0
