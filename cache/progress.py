"""One progress bar for all stages: tqdm on a terminal, a plain line every 30 seconds anywhere else.

A bar drawn with carriage returns turns a cluster's log file into one endless line; TQDM_DISABLE silences both forms.
"""

import os
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Counts work done, on stderr.

    `done` items were there before; they stand in the count and not in the rate.

    Example:
        with Progress(len(clips), "extract", unit="clip") as progress:
            progress.advance(failed=3)
    """

    def __init__(self, total: int, description: str, *, unit: str = "item", done: int = 0) -> None:
        self._total, self._description, self._unit = total, description, unit
        self._done = self._done_before = done
        self._facts: dict[str, object] = {}
        self._shown_at = self._started_at = time.monotonic()
        self._silent = bool(os.environ.get("TQDM_DISABLE"))
        on_terminal = sys.stderr.isatty() and not self._silent
        self._bar = _draw(total, description, unit, done) if on_terminal else None

    def advance(self, count: int = 1, **facts: object) -> None:
        """Counts `count` more items as done and shows `facts` beside the count, until others are given."""
        self._done += count
        self._facts = facts or self._facts
        if self._bar is not None:
            if facts:
                self._bar.set_postfix(facts, refresh=False)
            self._bar.update(count)
        elif not self._silent and time.monotonic() - self._shown_at >= _SECONDS_BETWEEN_LINES:
            self._show_line()

    def _show_line(self) -> None:
        now = time.monotonic()
        self._shown_at = now
        rate = (self._done - self._done_before) / max(now - self._started_at, 1e-9)
        left = (self._total - self._done) / rate if rate else float("inf")
        extra = "".join(f", {name} {value}" for name, value in self._facts.items())
        sys.stderr.write(
            f"{self._description}: {self._done}/{self._total} {self._unit}s, {rate:.3g}/s, {left:.0f} s left{extra}\n"
        )
        sys.stderr.flush()

    def close(self) -> None:
        """Draws the bar for the last time."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _draw(total: int, description: str, unit: str, done: int) -> tqdm:
    # Some containers give a terminal of no size, on which tqdm draws empty lines.
    has_size = all(os.get_terminal_size(sys.stderr.fileno()))
    size = {"dynamic_ncols": True} if has_size else {"ncols": 100, "nrows": 20}
    return tqdm(total=total, initial=done, desc=description, unit=unit, file=sys.stderr, **size)
