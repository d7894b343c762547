"""A pool of decode processes that can be killed: videos in, prepared clips out, one row per clip whatever happens.

Why not concurrent.futures: a decoder that spins while it holds the GIL can be stopped only from outside, and a pool
whose process dies is broken for good. Here every process has its own pipe, a clock that runs while it owes us a clip,
and a successor. The clock runs from the last sign of life, so that a long film is no stuck decoder. What was finished
before the end is kept; the clips that were not are failed with the reason.
"""

import logging
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from cache.errors import DeconfoundError, FailureCode
from cache.rows import Failure
from extract.decoding import decode_process
from extract.decoding.buffers import Buffer
from extract.decoding.decode_process import NUM_SLOTS, Prepare, Prepared, PrepareSettings, VideoJob
from extract.launch.child_process import run_child, signals_blocked

logger = logging.getLogger(__name__)

_QUEUED_JOBS = 2  # one at work and one waiting, so that a process never idles while the parent computes
_LONGEST_WAIT_SECONDS = 1.0
_SECONDS_TO_START = 600.0
_SECONDS_TO_END = 5.0
_MAX_FAILED_STARTS = 3
_LAST_PRIORITY = 19
_ADVICE = "its own message stands above. A script that extracts must run under `if __name__ == '__main__':`"


def _nothing() -> None:
    """Nothing is to be released or to be checked."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Delivery:
    """A prepared clip whose pixels lie in a shared buffer until `release` is called."""

    clip: Prepared
    release: Callable[[], None]


@dataclass(eq=False)
class _Process:
    """One decode process as its parent sees it."""

    process: Any
    connection: Connection
    jobs: deque[VideoJob] = field(default_factory=deque)
    delivered: set[str] = field(default_factory=set)
    buffers: dict[int, Buffer] = field(default_factory=dict)
    lent: set[int] = field(default_factory=set)
    active_at: float = field(default_factory=time.monotonic)
    num_started: int = 0
    is_ready: bool = False
    is_alive: bool = True

    def remaining_seconds(self, timeout: float) -> float:
        """Until its deadline; infinite while it owes nothing, or waits for us to release a buffer."""
        if not self.is_ready:
            return self.active_at + _SECONDS_TO_START - time.monotonic()
        if not self.jobs or len(self.lent) == NUM_SLOTS:
            return float("inf")
        return self.active_at + timeout - time.monotonic()

    def send(self, *message: object) -> None:
        """Sends to the process; one that has just died is noticed by the next receive."""
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            logger.debug("process %s is gone", self.process.pid)


class DecodePool:
    """Iterates over the prepared clips of all jobs, in the order in which they become ready.

    Example:
        with DecodePool(jobs, settings, workers=2) as pool:
            for delivery in pool:
                ...
                delivery.release()
    """

    def __init__(
        self,
        jobs: Iterable[VideoJob],
        settings: PrepareSettings,
        *,
        workers: int,
        prepare: Prepare = decode_process.prepare_video,
        check: Callable[[], None] = _nothing,
        steps_back: bool = False,
    ) -> None:
        """A pool that starts when it is entered.

        Args:
            jobs: taken one by one, as processes become free.
            settings: what all jobs have in common.
            workers: decode processes.
            prepare: what they do with a job.
            check: called at least once a second while the pool waits; what it raises ends the iteration.
            steps_back: processes run only where others leave a core free. For models on the CPU: their threads wait
                for each other, and one that is kept waiting stops all; clips are decoded ahead and fill the gaps.
        """
        if workers < 1:
            raise ValueError(f"workers = {workers}: it must be at least 1")
        self._jobs = iter(jobs)
        self._settings, self._prepare, self._check = settings, prepare, check
        self._steps_back = steps_back
        self._has_started, self._num_failed_starts = False, 0
        self._timeout = settings.decoding.timeout_seconds
        self._num_workers = workers
        self._context = multiprocessing.get_context("spawn")
        self._processes: list[_Process] = []

    def __enter__(self) -> Self:
        for _ in range(self._num_workers):
            if not self._start_process():
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            _end(process)
        self._processes.clear()

    def __iter__(self) -> Iterator[Delivery]:
        while busy := [process for process in self._processes if process.jobs]:
            soonest = min(process.remaining_seconds(self._timeout) for process in busy)
            pause = min(max(soonest, 0.0), _LONGEST_WAIT_SECONDS)
            self._check()
            ready = wait([process.connection for process in busy], timeout=pause)
            for process in busy:
                if process.connection in ready:
                    yield from self._receive(process)
                elif process.remaining_seconds(self._timeout) <= 0 and not process.connection.poll():
                    yield from self._give_up(process, self._timeout_failure())

    def _start_process(self) -> bool:
        """Starts a process if there is a job for it."""
        job = next(self._jobs, None)
        if job is not None:
            self._spawn(deque([job]))
        return job is not None

    def _spawn(self, jobs: deque[VideoJob]) -> None:
        ours, theirs = self._context.Pipe()
        arguments = (decode_process.run, theirs, self._settings, self._prepare)
        process: Any = self._context.Process(target=run_child, args=arguments, daemon=True)
        with signals_blocked():
            process.start()
        if self._steps_back and hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, process.pid, _LAST_PRIORITY)
        theirs.close()
        started = _Process(process, ours)
        self._processes.append(started)
        for job in jobs:
            self._assign(started, job)
        self._refill(started)

    def _assign(self, process: _Process, job: VideoJob) -> None:
        process.jobs.append(job)
        process.num_started += 1
        process.send("job", job)

    def _refill(self, process: _Process) -> None:
        while (
            len(process.jobs) < _QUEUED_JOBS
            and process.num_started < self._settings.decoding.recycle_after
            and (job := next(self._jobs, None)) is not None
        ):
            self._assign(process, job)

    def _receive(self, process: _Process) -> Iterator[Delivery]:
        try:
            kind, *content = process.connection.recv()
        except (EOFError, ConnectionResetError):
            failure = _death_failure(process)
            yield from self._give_up(process, failure)
            return
        process.active_at = time.monotonic()
        process.is_ready = self._has_started = True
        if kind == "clip":
            yield self._deliver(process, *content)
        elif kind == "grow":
            slot, num_bytes = content
            if slot in process.buffers:
                process.buffers[slot].close()
            process.buffers[slot] = Buffer.create(num_bytes)
            process.send("buffer", slot, process.buffers[slot].path)
        elif kind == "failed":
            yield from _undelivered(process, content[0])
        elif kind == "done":
            self._finish_job(process)

    def _deliver(
        self, process: _Process, clip: Prepared, slot: int | None, shapes: dict[str, tuple[int, ...]]
    ) -> Delivery:
        process.delivered.add(clip.clip_id)
        if slot is None:
            return Delivery(clip=clip, release=_nothing)
        process.lent.add(slot)
        buffer = process.buffers[slot]

        def release() -> None:
            process.lent.discard(slot)
            process.active_at = time.monotonic()
            if process.is_alive:
                process.send("free", slot)
            else:
                buffer.close()

        whole = Prepared(**{**vars(clip), "pixels": buffer.arrays(shapes)})
        return Delivery(clip=whole, release=release)

    def _finish_job(self, process: _Process) -> None:
        process.jobs.popleft()
        process.delivered.clear()
        self._refill(process)
        if not process.jobs:  # nothing left, or enough videos for one process
            self._remove(process)
            self._start_process()

    def _give_up(self, process: _Process, failure: Failure) -> Iterator[Delivery]:
        """Ends a process that is stuck or dead; its job fails, the jobs behind it go to its successor."""
        if not process.is_ready:
            self._start_again(process, failure)
            return
        job = process.jobs[0]
        logger.warning("%s: %s", job.path.name, failure.message)
        failures = list(_undelivered(process, failure))
        waiting = deque(list(process.jobs)[1:])
        self._remove(process)
        if waiting:
            self._spawn(waiting)
        else:
            self._start_process()
        yield from failures

    def _start_again(self, process: _Process, failure: Failure) -> None:
        """Replaces a process that never began: no video is to blame. If none ever began, something else is wrong."""
        if not self._has_started or self._num_failed_starts == _MAX_FAILED_STARTS:
            raise DeconfoundError(f"{failure.message} before it could start; {_ADVICE}")
        self._num_failed_starts += 1
        logger.warning("%s before it could start: another one is started", failure.message)
        jobs = deque(process.jobs)
        self._remove(process)
        self._spawn(jobs)

    def _remove(self, process: _Process) -> None:
        self._processes.remove(process)
        _end(process)

    def _timeout_failure(self) -> Failure:
        message = f"gave no sign of life for {self._timeout:g} s and was stopped (extract.decoding.timeout_seconds)"
        return Failure(code=FailureCode.TIMEOUT, message=message)


def _undelivered(process: _Process, failure: Failure) -> Iterator[Delivery]:
    for span in process.jobs[0].spans:
        if span.clip_id not in process.delivered:
            process.delivered.add(span.clip_id)
            yield Delivery(clip=decode_process.failed(span, failure), release=_nothing)


def _death_failure(process: _Process) -> Failure:
    process.process.join(_SECONDS_TO_END)
    code = process.process.exitcode
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    hint = " (out of memory?)" if code == -9 else ""
    return Failure(code=FailureCode.DECODER_DIED, message=f"the decode process ended with {how}{hint}")


def _end(process: _Process) -> None:
    process.is_alive = False
    process.process.kill()
    process.process.join()
    process.process.close()
    process.connection.close()
    for slot, buffer in process.buffers.items():
        if slot not in process.lent:
            buffer.close()
