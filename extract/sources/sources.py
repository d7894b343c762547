"""Whether committed rows are of the clip that the manifest means: its span and its file, not its id alone.

Two datasets may use one id for different videos, a span may be edited, a file replaced: features of the old piece would
be taken for those of the new one. So spans are compared, then sizes, then digests of contents (see memory.py).
"""

from collections.abc import Iterable
from pathlib import Path

from cache.errors import FailureCode, FingerprintMismatch
from cache.manifest import Clip, Dataset
from cache.sidecar import SidecarClip
from extract.sources.memory import SourceMemory
from extract.sources.video_root import is_outside

_NUM_LISTED = 10


class Sources:
    """The clips of a dataset as they are now; remembers which rows of a cache are of something else.

    Args:
        dataset: the clips.
        cache: the cache folder.
        allow_outside: read also videos that links lead to outside the video root.
    """

    def __init__(self, dataset: Dataset, cache: Path, *, allow_outside: bool = False) -> None:
        self.allow_outside = allow_outside
        self._dataset, self._cache = dataset, cache
        self._clips = {clip.id: clip for clip in dataset.clips}
        self._memory = SourceMemory(cache, dataset.video_root)
        self._outside: dict[str, bool] = {}
        self._foreign: dict[str, str] = {}
        self._before: set[SidecarClip] = set()

    def is_done(self, committed: SidecarClip, *, retry_failed: bool = False, overwrite: bool = False) -> bool:
        """True if a clip of this dataset needs no work; a failure of another span or file is no answer to this one.

        Args:
            committed: its row.
            retry_failed: a failure is never done.
            overwrite: rows of another span or file are not done either; otherwise see `refuse_foreign_rows`.
        """
        if committed.failure is not None:
            is_open = committed.failure.code == FailureCode.OUTSIDE_ROOT and not self._is_closed(committed.id)
            return not (retry_failed or is_open or self._difference(committed))
        difference = self._difference(committed)
        if difference and not overwrite:
            self._foreign.setdefault(committed.id, difference)
        return not (difference and overwrite)

    def refuse_foreign_rows(self) -> None:
        """Call after the last `is_done`.

        Raises:
            FingerprintMismatch: rows of other videos or spans stand under ids of this dataset.
        """
        if self._foreign:
            lines = [f"{clip_id!r}: {difference}" for clip_id, difference in self._foreign.items()]
            more = [f"... and {len(lines) - _NUM_LISTED} more"] if len(lines) > _NUM_LISTED else []
            listing = "\n  ".join(lines[:_NUM_LISTED] + more)
            raise FingerprintMismatch(
                f"{self._cache} holds these clip ids of other videos or spans:\n  {listing}\n"
                "Give these clips other ids, extract into another cache folder, or let the new ones take the place of "
                "the old ones with --overwrite"
            )

    def begin(self, clip_id: str, committed: SidecarClip | None) -> None:
        """Call before a clip is made: a file that is changed meanwhile must not be taken for unchanged.

        Args:
            clip_id: of the clip.
            committed: its row before, which says nothing about the file now.
        """
        self._memory.state_of(self._clips[clip_id].video)
        if committed is not None:
            self._before.add(committed)

    def learn(self, rows: Iterable[SidecarClip]) -> None:
        """Takes over from rows that were made since `begin` what their videos are: these need not be read again."""
        for row in rows:
            if row.id in self._clips and row not in self._before:
                self._memory.learn(self._clips[row.id].video, row.source_size, row.source_sha256)

    def remember(self) -> None:
        """Keeps what was found for the next run, in CACHE/sources.json; nothing depends on it but time."""
        self._memory.save()

    def _difference(self, committed: SidecarClip) -> str:
        clip = self._clips[committed.id]
        asked, cached = _span(clip), _span(committed)
        if asked != cached:
            return f"the cache has {_show(cached)}, the manifest says {_show(asked)}"
        state = self._memory.state_of(clip.video)
        if state is None or not committed.source_size:  # training and more streams need no videos that are done
            return ""
        if state.size != committed.source_size:
            return f"the cache has a video of {committed.source_size} bytes, {clip.video} has {state.size}"
        if not committed.source_sha256 or self._is_closed(clip.id):
            return ""
        sha256 = self._memory.sha256_of(clip.video) or committed.source_sha256
        if sha256 != committed.source_sha256:
            return f"{clip.video} has other content than the cache's video of {state.size} bytes"
        return ""

    def _is_closed(self, clip_id: str) -> bool:
        """True if the clip's video is outside the root and may not be read."""
        video = self._clips[clip_id].video
        if video not in self._outside:
            path = self._dataset.video_path(self._clips[clip_id])
            self._outside[video] = not self.allow_outside and is_outside(path, self._dataset.video_root)
        return self._outside[video]


def _span(clip: Clip | SidecarClip) -> tuple[float, float | None]:
    return clip.start_seconds or 0.0, clip.end_seconds


def _show(span: tuple[float, float | None]) -> str:
    start, end = span
    return f"{start:g} s to {'the end' if end is None else f'{end:g} s'}"
