"""Where the seconds of a training step go: waiting for data, forward, backward, optimiser.

A reader may ask why only waiting is measured in a run: a GPU works on after a call has returned, so the other parts
mean nothing unless the clock waits for the device after each, and that would slow the run. `deconfound bench train`
does wait. In a run on a GPU the wait for data is an upper bound: what is queued there goes on meanwhile.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Literal

import torch

Part = Literal["data", "forward", "backward", "optimizer"]
PARTS: tuple[Part, ...] = ("data", "forward", "backward", "optimizer")


class StepClock:
    """Seconds by part since the last `reset`."""

    def __init__(self, device: torch.device, *, synchronise: bool = False) -> None:
        """Starts at zero.

        Args:
            device: where the model is.
            synchronise: wait for the device before and after each part.
        """
        self._device = device if synchronise and device.type != "cpu" else None
        self.seconds: dict[Part, float] = dict.fromkeys(PARTS, 0.0)

    def reset(self) -> None:
        """Forgets what was measured."""
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextlib.contextmanager
    def time(self, part: Part) -> Iterator[None]:
        """Adds what happens inside the `with` to a part."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[part] += time.perf_counter() - start

    def _wait(self) -> None:
        if self._device is not None:
            torch.get_device_module(self._device).synchronize()
