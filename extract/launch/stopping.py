"""Signals that end a long extraction in good order: the first one asks, the second one insists.

A handler that raised would cut into whatever runs, a commit included. So it only remembers, and the loop asks between
two clips and while it waits; decode processes never see the signal (extract/launch/child_process.py), or a job that is
cancelled would leave rows that say their decoder died.
"""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from cache.errors import Stopped

_EXIT_CODES = {
    name: code
    for name, code in (("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 75))  # SIGUSR1: Slurm's notice before the limit
    if hasattr(signal, name)
}


class StopSignals:
    """Listens to SIGTERM, SIGINT and SIGUSR1 while it is entered; in a thread that cannot, to none.

    Example:
        with StopSignals() as signals:
            for clip in work:
                signals.check()
    """

    def __init__(self) -> None:
        self._received: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in _EXIT_CODES:
                number = signal.Signals[name]
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def check(self) -> None:
        """Call between two pieces of work.

        Raises:
            Stopped: a signal has come.
        """
        if self._received is not None:
            raise Stopped(f"stopped by {self._received}", exit_code=_EXIT_CODES[self._received])

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._received is not None:
            os._exit(_EXIT_CODES[name])
        self._received = name
