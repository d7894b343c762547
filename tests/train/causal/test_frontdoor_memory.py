"""VCI's memory: the bound that `emphasise` states, counted over forward and backward passes."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests.train.live_memory import LiveMemory
from train.causal.frontdoor import emphasise, fine_scores


class Outcome(NamedTuple):
    """Most bytes that were alive, and what was computed meanwhile."""

    peak: int
    values: tuple[Tensor, ...]


def passes(n: int, num_classes: int, num_frames: int, dim: int, class_chunk: int | None) -> Outcome:
    """A forward and a backward pass on seeded inputs; chunk None: all classes at once, nothing recomputed."""
    generator = torch.Generator().manual_seed(0)
    visual, text, slope = (torch.randn(n, rows, dim, generator=generator) for rows in (num_frames, *[num_classes] * 2))
    visual.requires_grad_()
    text.requires_grad_()
    with LiveMemory([visual, text, slope]) as memory:
        if class_chunk is None:
            found = (fine_scores(visual, text, 0.7) * visual.unsqueeze(1)).sum(dim=2)
        else:
            found = emphasise(visual, text, temperature=0.7, class_chunk=class_chunk)
        found.backward(slope)
    assert visual.grad is not None
    assert text.grad is not None
    return Outcome(memory.peak_bytes, (found.detach(), visual.grad, text.grad))


def bound(n: int, num_classes: int, num_frames: int, dim: int, class_chunk: int) -> int:
    """As the docstring of `emphasise` has it."""
    return 3 * 4 * n * dim * (class_chunk * num_frames + num_classes + num_frames)


def test_live_memory_counts_what_is_alive_at_once_and_nothing_that_was_given() -> None:
    given = torch.ones(100)
    with LiveMemory([given]) as memory:
        for _ in range(3):
            given.add_(1)
            doubled = given * 2  # 400 bytes
            doubled[:50].add_(1)  # a view
            tripled = doubled * 3
            del doubled, tripled
    assert memory.peak_bytes == 800


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("class_chunk", [1, 8, 50])
def test_memory_stays_within_three_times_a_chunk_of_scores_whatever_the_batch(n: int, class_chunk: int) -> None:
    sizes = (n, 50, 16, 32)
    assert passes(*sizes, class_chunk).peak <= bound(*sizes, class_chunk)


def test_steps_of_coin_at_64_frames_take_a_tenth_in_chunks_and_give_the_same_numbers() -> None:
    sizes = (1, 778, 64, 512)
    whole, chunked = passes(*sizes, None), passes(*sizes, 64)
    assert 0.9 * bound(*sizes, 64) < chunked.peak <= bound(*sizes, 64)
    assert whole.peak > 10 * chunked.peak
    for ours, theirs in zip(chunked.values, whole.values, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
