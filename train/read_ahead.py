"""Batches read by threads, ahead of the step that uses them.

The cores are kept busy by clips, not by batches: with few clips in a batch several batches are in flight. A reader may
ask why torch is held to one thread inside each of ours: it would start a team of its own for every one of them, cores
times cores in all, whose members spin while they wait. No worker processes: copying batches between processes costs ten
times the read.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from train.sampling import Indices

BatchT = TypeVar("BatchT")
_limiting = threading.Lock()


def num_threads() -> int:
    """Cores that this process may use, shared evenly where a launcher started several processes on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def read_ahead(
    pieces: Iterable[Indices],
    begin: Callable[[Indices], tuple[BatchT, Sequence[Callable[[], None]]]],
    *,
    threads: int | None = None,
) -> Generator[BatchT]:
    """The batch of each piece, in order, filled by threads while earlier ones are in use.

    At least one batch is ahead of the one in use, and so many that there are two jobs for every thread. Close it, or
    threads go on reading for a consumer that has left.

    Args:
        pieces: clip numbers of each batch.
        begin: makes a piece's empty batch, and the jobs that fill it in any order.
        threads: how many; by default `num_threads()`.
    """
    threads = threads or num_threads()
    torch.get_num_threads()  # before ours are limited: torch asks the system in each thread once
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode", initializer=_use_one_thread)
    ahead: deque[tuple[BatchT, list[Future[None]]]] = deque()
    num_jobs = 0
    try:
        for piece in pieces:
            batch, jobs = begin(piece)
            ahead.append((batch, [pool.submit(job) for job in jobs]))
            num_jobs += len(jobs)
            while len(ahead) > 1 and num_jobs - len(ahead[0][1]) >= 2 * threads:
                num_jobs -= len(ahead[0][1])
                yield _filled(*ahead.popleft())
        while ahead:
            yield _filled(*ahead.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _filled(batch: BatchT, jobs: Sequence[Future[None]]) -> BatchT:
    for job in jobs:
        job.result()
    return batch


def _use_one_thread() -> None:
    """Limits torch in the calling thread.

    torch counts threads per thread, but setting the count also sets what later threads begin with; a thread of its own
    puts that back.
    """
    with _limiting:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        other = threading.Thread(target=torch.set_num_threads, args=(before,))
        other.start()
        other.join()
