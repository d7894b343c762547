"""When failed clips stop a run: a limit that a person sets, a breaker for a wrong root, a root that disappeared.

Without a limit a run goes on whatever fails, as broken videos are rows of a cache. The breaker guards only the
beginning: a wrong root path fails everywhere at once, while later failures are the dataset's own.
"""

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from cache.errors import ConfigError, FailureCode, StorageError, TooManyFailures
from cache.rows import Failure

OnProgress = Callable[[int, int, int], None]
"""Called with the number of clips done, failed and to do in all, after every clip."""
NUM_FIRST = 20


@dataclass(frozen=True)
class FailureLimit:
    """How many failed clips a run may have: a number, or a share of its clips in percent."""

    number: float
    is_share: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """`12` or `5%`.

        Raises:
            ConfigError: another form, or a share above 100 %.
        """
        match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", text.strip())
        if match is None or (match[2] and float(match[2]) > 100):
            raise ConfigError(f"--max-failures {text!r}: give a number of clips (12) or a share of them (5%)")
        return cls(int(match[1])) if match[1] else cls(float(match[2]), is_share=True)

    def allowed(self, num_clips: int) -> int:
        """The greatest number of failures that does not stop a run of so many clips."""
        return int(self.number * num_clips / 100) if self.is_share else int(self.number)


class Watch(Protocol):
    """Is told how a run goes, and may end it by raising."""

    def failed(self, clip_id: str, failure: Failure) -> None:
        """One clip failed in one stream; called before the row is kept."""

    def done(self, clip_id: str) -> None:
        """A clip has been decoded, or has failed; again, if another process had to make its shard once more."""


class FailureWatch:
    """Counts the clips of a run, and stops it when too many fail.

    Args:
        num_clips: of the run.
        limit: what a person allows; None: any number, after the breaker.
        root: where the videos are, for messages.
        breaker: stop when more than half of the first clips fail; off where failed clips are tried again, and where
            a limit was given.
        progress: called with the number of clips done, failed and to do in all, after every clip.
    """

    def __init__(
        self,
        num_clips: int,
        *,
        limit: FailureLimit | None = None,
        root: Path | None = None,
        breaker: bool = True,
        progress: OnProgress | None = None,
    ) -> None:
        self.num_clips = num_clips
        self._done: set[str] = set()
        self._progress = progress
        self._allowed = None if limit is None else limit.allowed(num_clips)
        self._breaks = breaker and limit is None
        self._root = root
        self._failed: dict[str, FailureCode] = {}

    @property
    def num_done(self) -> int:
        """Clips that were decoded, or failed."""
        return len(self._done)

    @property
    def num_failed(self) -> int:
        """Clips that failed in at least one stream."""
        return len(self._failed)

    def failed(self, clip_id: str, failure: Failure) -> None:
        """See `Watch`.

        Raises:
            TooManyFailures: the limit is passed.
        """
        self._failed.setdefault(clip_id, failure.code)
        if self._allowed is not None and self.num_failed > self._allowed:
            raise TooManyFailures(
                f"{self.num_failed} of {self.num_clips} clips failed ({self._codes()}), {self._allowed} are allowed. "
                "What was ready is committed; the same command continues"
            )

    def done(self, clip_id: str) -> None:
        """See `Watch`.

        Raises:
            TooManyFailures: more than half of the first clips failed.
        """
        self._done.add(clip_id)
        if self._progress is not None:
            self._progress(self.num_done, self.num_failed, self.num_clips)
        if self._breaks and self.num_done == NUM_FIRST and self.num_failed > NUM_FIRST / 2:
            raise TooManyFailures(
                f"{self.num_failed} of the first {NUM_FIRST} clips failed ({self._codes()}): is {self._root} the right "
                "folder (--videos)? Shards that are not whole were dropped. If these videos are really broken, go on "
                "with --max-failures 100%",
                drop=True,
            )

    def _codes(self) -> str:
        return ", ".join(f"{code} {count}" for code, count in sorted(Counter(self._failed.values()).items()))


def check_root(root: Path) -> None:
    """Call before a failure becomes a row: whatever its code, the video is not to blame when a mount was lost.

    Raises:
        StorageError: the videos' folder has disappeared.
    """
    if not _is_there(root):
        raise StorageError(
            f"{root} has disappeared or is empty: a disk or a network mount was lost. Bring it back and run the same "
            "command again"
        )


def _is_there(root: Path) -> bool:
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
