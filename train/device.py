"""Where a run computes: a device by name, fp32 that means fp32, and memory that ran out as an error with a way out.

A reader may ask why TF32 is switched off: predictions and frozen tokens promise float32, and a GPU would round the
inputs of convolutions to 10 bits by default. Who wants speed has train.precision = "bf16".
"""

import contextlib
import re
from collections.abc import Iterator

import torch

from cache.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """A torch device that exists here; from now on fp32 means fp32 on it.

    Args:
        name: cpu, cuda, cuda:1, mps, or auto for a CUDA device if there is one, else the CPU.

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise ConfigError(f"device {name!r} is unknown; give cpu, cuda, cuda:0, mps or auto")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} is not here: torch sees {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device 'mps' is not here: it needs an Apple GPU and a torch that was built for it")
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    return device


@contextlib.contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Turns running out of device memory into a ConfigError that ends with `advice`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"the device ran out of memory ({str(error).partition('. ')[0]}). {advice}") from error
