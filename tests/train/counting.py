"""Another way to count: torch's own counter of what a module computes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_LEARNED = {"mm", "addmm", "convolution"}


@dataclass(frozen=True)
class Counted:
    """MACs by the place in the module tree and the operation; two FLOPs are one MAC."""

    by_module: dict[str, dict[str, int]]

    def total(self, name: str = "Global") -> int:
        return sum(self.by_module.get(name, {}).values())

    def learned(self, name: str = "Global") -> int:
        """Products with one matrix for all items, as linear layers and convolutions are computed."""
        return sum(count for operation, count in self.by_module.get(name, {}).items() if operation in _LEARNED)


def count(run: Callable[[], Any]) -> Counted:
    """Runs a model forward once; with fake tensors or on the meta device this costs nothing."""
    # Not every version of torch counts attention on a CPU by itself.
    with FlopCounterMode(display=False, custom_mapping={_CPU_ATTENTION: _attention_flops}) as counter:
        run()
    return Counted(
        {
            name: {str(operation).removeprefix("aten."): flops // 2 for operation, flops in operations.items()}
            for name, operations in counter.get_flop_counts().items()
        }
    )


def _attention_flops(
    queries: torch.Size,
    keys: torch.Size,
    values: torch.Size,
    *_: object,
    out_shape: object = None,  # noqa: ARG001 (torch gives it)
    **__: object,
) -> int:
    return int(sdpa_flop_count(queries, keys, values))


def num_params(*modules: nn.Module | nn.Parameter | None) -> int:
    """All of the modules' parameters."""
    found = [
        parameter
        for module in modules
        if module is not None
        for parameter in ([module] if isinstance(module, nn.Parameter) else module.parameters())
    ]
    return sum(parameter.numel() for parameter in found)


def num_trained(module: nn.Module) -> int:
    """Those that take gradients."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
