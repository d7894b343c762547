"""The size of a forward pass: constant for a whole run, and half of it once memory has run out.

Why it never grows back: whether a larger pass fits depends on who else uses the device, so rows would change size at
random. This way they change once, the log says when, and every row made since says so (`Provenance.reduced_batch`).
"""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from cache.errors import FailureCode, VideoError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# What allocators say that raise a plain RuntimeError instead of torch.OutOfMemoryError.
_OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


class BatchSize:
    """How many inputs go through a frozen model at once."""

    def __init__(self, size: int, device: torch.device, *, model: str) -> None:
        """Starts at the full size.

        Args:
            size: inputs per forward pass, as configured.
            device: whose memory it is.
            model: what runs, in words, for messages.
        """
        self.full = self.current = size
        self.device, self._model = device, model

    @property
    def reduced(self) -> int:
        """The size since memory ran out; 0 before."""
        return self.current if self.current < self.full else 0

    def limit(self, size: int) -> None:
        """More inputs than these never come together: a larger pass would be padding."""
        self.full, self.current = min(self.full, size), min(self.current, size)

    def run(self, forward: Callable[[int], Result]) -> Result:
        """Calls `forward` with the size, and again from its beginning with half of it where memory runs out.

        Raises:
            VideoError: OUT_OF_MEMORY, a single input is too much.
        """
        while True:
            try:
                return forward(self.current)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0]
            # Not in the `except` block: the error's traceback keeps the tensors of the failed pass alive.
            self._halve(reason)

    def _halve(self, reason: str) -> None:
        _free_cached_memory(self.device)
        if self.current == 1:
            message = f"the {self._model} ran out of memory with one input at a time: {reason}"
            raise VideoError(FailureCode.OUT_OF_MEMORY, message)
        before, self.current = self.current, self.current // 2
        logger.warning(
            "the %s ran out of memory with %d inputs at once; from here to the end of this run it takes %d (%s)",
            self._model,
            before,
            self.current,
            reason,
        )


def is_out_of_memory(error: RuntimeError) -> bool:
    """True if the device or the machine had no memory left; every other error of a model is a defect."""
    return isinstance(error, torch.OutOfMemoryError) or any(phrase in str(error) for phrase in _OUT_OF_MEMORY)


def _free_cached_memory(device: torch.device) -> None:
    """Gives back what the allocator keeps for later, so that smaller pieces find room; a CPU keeps nothing."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
