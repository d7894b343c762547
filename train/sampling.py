"""Which clips, in which order, at which instants: pure functions of seed, epoch and clip.

Nothing here keeps state. Every draw has its own generator, keyed by (seed, epoch, clip), so a run that continues in
the middle of an epoch, or decodes in threads, draws exactly what the uninterrupted one drew.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
_ORDER, _CLIP = 0, 1  # two families of generators, so that no clip shares its draws with the order


def segment_centres(num_cached: int, num_frames: int) -> Indices:
    """The cached instant at the centre of each of the L segments that `segment_draws` draws from.

    Args:
        num_cached: F, instants in the cache.
        num_frames: L, at most F.

    Returns:
        (L,) strictly increasing indices into the F instants.
    """
    bounds = _segment_bounds(num_cached, num_frames)
    return (bounds[:-1] + bounds[1:]) // 2


def segment_draws(num_cached: int, num_frames: int, generator: np.random.Generator) -> Indices:
    """One random cached instant of each of L segments: (L,) strictly increasing."""
    bounds = _segment_bounds(num_cached, num_frames)
    return generator.integers(bounds[:-1], bounds[1:])


def clip_generator(seed: int, epoch: int, clip: int) -> np.random.Generator:
    """The generator of one clip in one epoch: its instants first, then its augmentation."""
    return np.random.default_rng([_CLIP, seed, epoch, clip])


def epoch_order(count: int, seed: int, epoch: int) -> Indices:
    """(count,) the clips' order in one epoch."""
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(count)


def batches(order: Indices, batch_size: int, *, first: int = 0, smallest: int = 1) -> Iterator[Indices]:
    """Consecutive pieces of `order`, from batch number `first`; the last one may be smaller.

    A rest of fewer than `smallest` clips joins the piece before it.
    """
    count = num_batches(len(order), batch_size, smallest=smallest)
    for number in range(first, count):
        start = number * batch_size
        yield order[start:] if number == count - 1 else order[start : start + batch_size]


def num_batches(count: int, batch_size: int, *, smallest: int = 1) -> int:
    """Batches per pass."""
    whole, rest = divmod(count, batch_size)
    return max(1, whole + (rest >= smallest)) if count else 0


def _segment_bounds(num_cached: int, num_frames: int) -> Indices:
    """(L + 1,): segment l is the instants from bounds[l] up to bounds[l + 1]; equal where L divides F."""
    if not 1 <= num_frames <= num_cached:
        raise ValueError(f"{num_frames} frames cannot be taken from {num_cached} cached instants")
    return np.arange(num_frames + 1, dtype=np.int64) * num_cached // num_frames
