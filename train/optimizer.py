"""Optimiser and learning rate. The rate is a pure function of the step, so there is no scheduler state to restore."""

import math

import torch
from torch import nn

from train.config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over all parameters that are trained, as one fused kernel."""
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=config.learning_rate,
        betas=(config.betas[0], config.betas[1]),
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate_at(step: int, *, num_steps: int, steps_per_epoch: int, config: OptimizerConfig) -> float:
    """The learning rate of optimiser step `step`, counted from 0.

    Linear from 0 over the warm-up, then half a cosine that reaches 0 after the last of `num_steps` steps.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "constant":
        return config.learning_rate
    share = (step - warmup) / max(1, num_steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
