"""Optimiser and learning rate. The rate is a pure function of the step, so there is no scheduler state to restore.

Weight decay is for the weights of linear and convolution layers alone: pulling norms, biases, embeddings and
temperatures to zero is what nobody means by it. With the CMDCL papers' decay of 0 the rule changes nothing.
"""

import math
from collections.abc import Collection

import torch
from torch import nn

from train.config import OptimizerConfig


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, *, fast: Collection[str] = (), fast_factor: float = 1.0
) -> torch.optim.Optimizer:
    """Adam or AdamW over all parameters that are trained, as one fused kernel.

    Args:
        model: its parameters that require a gradient are trained.
        config: the settings.
        fast: names of parameters whose learning rate is `fast_factor` times the others'.
        fast_factor: that factor.
    """
    decayed = {f"{name}.weight".lstrip(".") for name, module in model.named_modules() if _is_decayed(module)}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name in fast, name in decayed), []).append(parameter)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(
        [
            {
                "params": parameters,
                "lr": config.learning_rate,
                "rate_factor": fast_factor if is_fast else 1.0,
                "weight_decay": config.weight_decay if is_decayed else 0.0,
            }
            for (is_fast, is_decayed), parameters in groups.items()
        ],
        betas=(config.betas[0], config.betas[1]),
        fused=True,
    )


def _is_decayed(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)


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
    """Sets the rate of every parameter group, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate_factor"]
