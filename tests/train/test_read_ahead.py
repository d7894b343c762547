import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch

from train.read_ahead import num_threads, read_ahead
from train.sampling import Indices

Begin = Callable[[Indices], tuple[list[int], list[Callable[[], None]]]]


@pytest.fixture
def two_threads() -> Iterator[None]:
    """torch with two threads for its own work."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def filling(read: Callable[[int], int]) -> Begin:
    """Batches that are lists: one number per clip, what `read` makes of its number."""

    def fill(batch: list[int], position: int, number: int) -> None:
        batch[position] = read(number)

    def begin(piece: Indices) -> tuple[list[int], list[Callable[[], None]]]:
        batch = [-1] * len(piece)
        return batch, [partial(fill, batch, position, int(number)) for position, number in enumerate(piece)]

    return begin


def pieces_of(count: int, size: int) -> list[Indices]:
    return list(np.arange(count * size).reshape(count, size))


def decode_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize(
    ("size", "threads", "ahead"),
    [(1, 1, 2), (1, 4, 8), (2, 4, 4), (3, 4, 3), (8, 4, 1), (100, 4, 1)],
)
def test_two_jobs_for_every_thread_are_ahead_and_at_least_one_batch(size: int, threads: int, ahead: int) -> None:
    begun = 0

    def begin(piece: Indices) -> tuple[list[int], list[Callable[[], None]]]:
        nonlocal begun
        begun += 1
        return filling(lambda number: number)(piece)

    with contextlib.closing(read_ahead(pieces_of(30, size), begin, threads=threads)) as read:
        for taken in range(1, 5):
            next(read)
            assert begun == taken + ahead


def test_batches_come_in_order_however_long_a_clip_takes() -> None:
    def read(number: int) -> int:
        time.sleep(0.01 * (5 - number % 5))
        return 10 * number

    batches = list(read_ahead(pieces_of(6, 2), filling(read), threads=4))
    assert batches == [[0, 10], [20, 30], [40, 50], [60, 70], [80, 90], [100, 110]]
    sizes = [np.array([2]), np.array([1, 4]), np.array([], np.int64), np.array([0])]
    assert list(read_ahead(sizes, filling(lambda number: number))) == [[2], [1, 4], [], [0]]


def test_nothing_is_read_for_a_consumer_that_has_left() -> None:
    seen: list[int] = []
    left = threading.Event()

    def read(number: int) -> int:
        if number >= 20:  # the second batch
            left.wait()
        seen.append(number)
        return number

    with contextlib.closing(read_ahead(pieces_of(4, 20), filling(read), threads=2)) as batches:
        next(batches)
        threading.Timer(0.5, left.set).start()  # when it has left long ago
    assert not decode_threads()
    assert 20 <= len(seen) <= 22  # with the two clips that had begun


def test_an_error_reaches_the_consumer_at_its_batch_and_ends_the_threads() -> None:
    batches = read_ahead(pieces_of(4, 1), filling(lambda number: 1 // (number - 2)), threads=2)
    assert [next(batches), next(batches)] == [[-1], [-1]]
    with pytest.raises(ZeroDivisionError):
        next(batches)
    assert not decode_threads()


@pytest.mark.usefixtures("two_threads")
def test_torch_has_one_thread_inside_each_of_ours_and_what_it_had_elsewhere() -> None:
    counts = [
        count for batch in read_ahead(pieces_of(8, 2), filling(lambda _: torch.get_num_threads())) for count in batch
    ]
    assert set(counts) == {1}
    assert torch.get_num_threads() == 2
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


def test_threads_are_the_cores_of_this_process_shared_by_processes_of_one_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert num_threads() == 12
    for processes, threads in (("4", 3), ("8", 1), ("16", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert num_threads() == threads
