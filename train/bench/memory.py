"""The most memory that work took: what torch allocated on a GPU, or what the process held on a CPU.

A reader may ask why the CPU's figure is not one of tensors alone: nobody counts them there. What the process held
before the work began is told beside it, and where the kernel does not let a process set its peak back (it is done
through /proc/self/clear_refs), the figure is the peak since the process began, and says so.
"""

import gc
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Bytes at the peak and before the work; None where nobody counts them."""

    peak: int | None
    before: int | None
    what: str


def peak_memory(device: torch.device, work: Callable[[], object]) -> PeakMemory:
    """Does the work and says what it took at most."""
    gc.collect()
    if device.type == "cuda":
        return _on_gpu(device, work)
    if device.type != "cpu":
        work()
        return PeakMemory(peak=None, before=None, what=f"not counted on {device.type}")
    before = _kibibytes("VmRSS")
    is_reset = _reset_peak()
    work()
    if is_reset:
        return PeakMemory(peak=_kibibytes("VmHWM"), before=before, what="resident in this process")
    return PeakMemory(peak=_peak_of_process(), before=before, what="resident in this process since it began")


def _on_gpu(device: torch.device, work: Callable[[], object]) -> PeakMemory:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return PeakMemory(peak=torch.cuda.max_memory_allocated(device), before=before, what=f"allocated on {device}")


def _reset_peak() -> bool:
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return _kibibytes("VmHWM") is not None


def _kibibytes(key: str) -> int | None:
    """A figure of /proc/self/status in bytes; None where there is no such file or line."""
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _peak_of_process() -> int | None:
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
