"""Tensors on their way from the host to the device, without the step waiting for the copy.

Only copies out of pinned memory run beside the step, and pinning is worth it for CUDA alone. Threads fill such tensors
through numpy: torch refuses to change a tensor that was made in inference mode, and predictions are.
"""

import torch
from torch import Tensor


def host_tensor(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty tensor in host memory, pinned if it is meant for a CUDA device."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """The same tensor, in pinned memory if it is in host memory and meant for a CUDA device."""
    return tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; a CUDA copy may be in flight when this returns: what is queued there waits for it."""
    return tensor.to(device, non_blocking=device.type == "cuda")
