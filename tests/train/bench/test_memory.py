"""The peak of memory: of the work alone where the system can say that, and what is said where it cannot."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from train.bench import memory
from train.bench.memory import PeakMemory, peak_memory

CPU = torch.device("cpu")
MIB = 1 << 20


def taking(mebibytes: int) -> Callable[[], None]:
    def work() -> None:
        assert torch.ones(mebibytes * MIB, dtype=torch.uint8).all()

    return work


@pytest.mark.skipif(not memory._reset_peak(), reason="the kernel does not set peaks back")
def test_the_peak_is_that_of_the_work_and_not_of_what_was_before() -> None:
    large, small = (peak_memory(CPU, taking(mebibytes)) for mebibytes in (300, 1))
    assert large.what == "resident in this process"
    assert grown(large) > 250 * MIB
    assert grown(small) < 100 * MIB


def grown(found: PeakMemory) -> int:
    assert found.peak is not None
    assert found.before is not None
    return found.peak - found.before


def test_where_the_peak_cannot_be_set_back_it_is_said_to_be_of_the_whole_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "_CLEAR", Path("/nowhere/clear_refs"))
    first = peak_memory(CPU, taking(200))
    again = peak_memory(CPU, taking(1))
    assert first.peak is not None
    assert again.peak is not None
    assert again.peak >= first.peak > 200 * MIB
    assert again.what.endswith("since it began")


def test_on_other_devices_nothing_is_made_up() -> None:
    done: list[int] = []
    found = peak_memory(torch.device("mps"), lambda: done.append(1))
    assert done == [1]
    assert (found.peak, found.what) == (None, "not counted on mps")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_it_is_what_torch_allocated_at_most() -> None:
    device = torch.device("cuda")

    def work() -> None:
        for _ in range(3):
            torch.ones(100 * MIB, dtype=torch.uint8, device=device)

    assert 100 * MIB <= grown(peak_memory(device, work)) < 250 * MIB
