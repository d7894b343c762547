"""Several devices of one machine: a process each, and shards handed out to whoever is free.

A process is a loop over shards like the one that works alone, and what it is given may be given again: shards are
committed whole and made again from scratch. So a process that died (of a broken GPU, of too little memory) is replaced
and its share goes back to the pile; correctness does not depend on who did what.
"""

import contextlib
import logging
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from cache.errors import DeconfoundError, Stopped, TooManyFailures
from cache.fingerprint import Fingerprint
from cache.rows import Failure
from extract.frozen_models import FrozenModels
from extract.launch.child_process import run_child, signals_blocked
from extract.launch.failure_policy import Watch
from extract.shards.loop import WorkSettings, fill_shards
from extract.shards.work import ShardTask

logger = logging.getLogger(__name__)

MAX_RESTARTS = 2
"""Of all processes together."""
_SHARES_PER_PROCESS = 4
_SECONDS_BETWEEN_CHECKS = 1.0


@dataclass(eq=False)
class _Member:
    """One process as its parent sees it."""

    device: str
    process: Any
    connection: Connection
    share: list[ShardTask] = field(default_factory=list)
    is_ready: bool = False
    is_successor: bool = False

    def send(self, *message: object) -> None:
        """Sends to the process; one that has just died is noticed by the next receive."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)


class DeviceProcesses:
    """One process a device, with the models loaded.

    Example:
        with DeviceProcesses(settings, ["cuda:0", "cuda:1"]) as processes:
            processes.start(check)
            processes.fill(marks, tasks, watch, check)
    """

    def __init__(self, settings: WorkSettings, devices: Sequence[str]) -> None:
        self._settings, self._devices = settings, devices
        self._context = multiprocessing.get_context("spawn")
        self._members: list[_Member] = []
        self._num_restarts = 0

    def __enter__(self) -> Self:
        for device in self._devices:
            self._spawn(device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            member.process.kill()
            member.process.join()
            member.connection.close()
        self._members.clear()

    def start(self, check: Callable[[], None]) -> None:
        """Waits until every process has its models; see `Launcher`."""
        while not all(member.is_ready for member in self._members):
            check()
            for member in self._ready_to_speak():
                self._hear(member, None, deque())

    def fill(
        self,
        marks: Mapping[str, Fingerprint],
        tasks: Iterable[ShardTask],
        watch: Watch,
        check: Callable[[], None],
    ) -> None:
        """Makes what these shards lack; see `Launcher`."""
        pile = deque(tasks)
        for member in self._members:
            member.send("marks", dict(marks))
        try:
            while pile or any(member.share for member in self._members):
                check()
                self._hand_out(pile)
                for member in self._ready_to_speak():
                    self._hear(member, watch, pile, marks)
        except (DeconfoundError, KeyboardInterrupt) as error:
            self._stop(drop=isinstance(error, TooManyFailures) and error.drop)
            raise

    def _spawn(self, device: str) -> _Member:
        ours, theirs = self._context.Pipe()
        arguments = (_run, theirs, self._settings, device)
        process: Any = self._context.Process(target=run_child, args=arguments)
        with signals_blocked():
            process.start()
        theirs.close()
        member = _Member(device, process, ours)
        self._members.append(member)
        return member

    def _ready_to_speak(self) -> list[_Member]:
        ready = wait([member.connection for member in self._members], timeout=_SECONDS_BETWEEN_CHECKS)
        return [member for member in self._members if member.connection in ready]

    def _hand_out(self, pile: deque[ShardTask]) -> None:
        """Shares that shrink as the pile does: few starts of decode processes, and all processes end together."""
        for member in self._members:
            if pile and member.is_ready and not member.share:
                size = max(1, len(pile) // (_SHARES_PER_PROCESS * len(self._members)))
                member.share = [pile.popleft() for _ in range(size)]
                member.send("fill", member.share)

    def _hear(
        self,
        member: _Member,
        watch: Watch | None,
        pile: deque[ShardTask],
        marks: Mapping[str, Fingerprint] | None = None,
    ) -> None:
        try:
            kind, *content = member.connection.recv()
        except (EOFError, ConnectionResetError):
            self._replace(member, pile, marks)
            return
        if kind == "ready":
            member.is_ready = True
        elif kind == "filled":
            member.share = []
        elif kind == "error" and member.is_successor and not member.is_ready:
            self._give_up(member, content[0])
        elif kind == "error":
            raise content[0]
        elif watch is not None and kind == "failed":
            watch.failed(*content)
        elif watch is not None and kind == "done":
            watch.done(*content)

    def _replace(self, member: _Member, pile: deque[ShardTask], marks: Mapping[str, Fingerprint] | None) -> None:
        member.process.join()
        message = f"the process on {member.device} ended with exit code {member.process.exitcode}"
        error = DeconfoundError(f"{message}; its own message stands above. The same command continues")
        if member.is_successor and not member.is_ready:
            self._give_up(member, error)
            return
        if not member.is_ready or self._num_restarts == MAX_RESTARTS:
            raise error
        self._num_restarts += 1
        logger.warning("%s: it is started again", message)
        pile.extendleft(reversed(member.share))
        self._members.remove(member)
        successor = self._spawn(member.device)
        successor.is_successor = True
        if marks is not None:
            successor.send("marks", dict(marks))

    def _give_up(self, member: _Member, error: DeconfoundError) -> None:
        """Goes on without a device that does not come back, as long as there is another one."""
        if len(self._members) == 1:
            raise error
        logger.warning("going on without %s: %s", member.device, error)
        self._members.remove(member)
        member.process.kill()
        member.connection.close()

    def _stop(self, *, drop: bool) -> None:
        """Has every process commit what is ready, and waits for it."""
        for member in self._members:
            if member.share:
                member.send("stop", drop)
        for member in self._members:
            try:
                while member.share and member.connection.recv()[0] not in ("filled", "error"):
                    pass
            except (EOFError, ConnectionResetError):
                continue


def _run(connection: Connection, settings: WorkSettings, device: str) -> None:
    """The process: loads the models, then fills the shards that it is sent."""
    try:
        models = FrozenModels(settings.config, device)
        models.load(settings.streams)
        connection.send(("ready",))
        _, marks = connection.recv()
        while True:
            kind, tasks = connection.recv()
            if kind == "stop":  # between two shares
                return
            fill_shards(settings, marks, tasks, models, watch=_Reporter(connection), check=lambda: _obey(connection))
            connection.send(("filled",))
    except DeconfoundError as error:
        connection.send(("error", error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


class _Reporter:
    """Tells the parent, which counts over all processes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def failed(self, clip_id: str, failure: Failure) -> None:
        self._connection.send(("failed", clip_id, failure))

    def done(self, clip_id: str) -> None:
        self._connection.send(("done", clip_id))


def _obey(connection: Connection) -> None:
    if connection.poll():
        _, drop = connection.recv()
        if drop:
            raise TooManyFailures("stopped by the parent", drop=True)
        raise Stopped("stopped by the parent", exit_code=75)
