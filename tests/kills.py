"""A process that is killed at one of its changes to the disk: for tests that try every one of them in turn."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

_CHANGES = ("fsync", "rename", "replace", "link", "unlink", "rmdir", "mkdir")


class Killed(BaseException):
    """Unlike an error, nobody cleans up after it."""


@contextlib.contextmanager
def killed_at(number: int) -> Iterator[None]:
    """Lets `number` changes happen; every later one, of cleaning up too, raises `Killed` and does not happen."""
    left = iter(range(number))

    def dying(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            if next(left, None) is None:
                raise Killed
            return change(*arguments, **options)

        return call

    with contextlib.ExitStack() as stack:
        for name in _CHANGES:
            stack.enter_context(mock.patch.object(os, name, dying(getattr(os, name))))
        yield


def every_kill(work: Callable[[], object]) -> Iterator[int]:
    """Runs `work` again and again, killed one change later each time, until it comes to its end.

    Yields the number of changes after every kill; the caller looks at the disk and puts the beginning back.
    """
    for number in range(10_000):
        with contextlib.suppress(Killed), killed_at(number):
            work()
            return
        yield number
