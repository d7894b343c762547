"""Processes that belong to an extraction: they outlive nothing, and signals meant for the job pass them by.

`scancel`, Ctrl-C and a batch system's notice reach the whole group. The parent decides what to do about them; a child
that died of one would be taken for a decoder that crashed. So the signals are blocked before a child is started (the
mask is inherited, even by a fresh interpreter), and only SIGKILL ends one: from its parent, or from the kernel when the
parent is gone, also if a decoder spins and never looks at its pipe.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker

_PR_SET_PDEATHSIG = 1
_STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes started inside never receive a signal that asks to stop; this one receives it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    if multiprocessing.parent_process() is None:
        resource_tracker.ensure_running()  # the first child would start it, and that unblocks two of the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_child(target: Callable[..., None], *arguments: object) -> None:
    """What a started process runs: `target(*arguments)`, ended by the kernel when its parent dies (on Linux)."""
    end_with_parent()
    target(*arguments)


def end_with_parent() -> None:
    """Called in a child: the kernel ends it when its parent dies (on Linux; elsewhere nothing happens)."""
    parent = multiprocessing.parent_process()
    if not sys.platform.startswith("linux") or parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it died before the kernel knew
        os._exit(0)
