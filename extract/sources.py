"""Whether committed rows are of the clip that the manifest means: its span and its file, not its id alone.

Two datasets may use one id for different videos, and a span may be edited: features of the old piece would be taken
for those of the new one. Compared are spans and file sizes, not digests: one `stat` a video keeps finished work fast.
"""

from pathlib import Path

from cache.errors import FingerprintMismatch
from cache.manifest import Clip, Dataset
from cache.sidecar import SidecarClip

_NUM_LISTED = 10


class Sources:
    """The clips of a dataset as they are now; remembers which rows of a cache are of something else."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._clips = {clip.id: clip for clip in dataset.clips}
        self._sizes: dict[str, int | None] = {}
        self._foreign: dict[str, str] = {}

    def is_done(self, committed: SidecarClip, *, retry_failed: bool) -> bool:
        """True if a clip of this dataset needs no work; a failure of another span or file is no answer to this one."""
        difference = self._difference(committed)
        if committed.failure is None:
            if difference:
                self._foreign.setdefault(committed.id, difference)
            return True
        return not (retry_failed or difference)

    def refuse_foreign_rows(self, cache: Path) -> None:
        """Call after the last `is_done`.

        Raises:
            FingerprintMismatch: rows of other videos or spans stand under ids of this dataset.
        """
        if self._foreign:
            lines = [f"{clip_id!r}: {difference}" for clip_id, difference in self._foreign.items()]
            more = [f"... and {len(lines) - _NUM_LISTED} more"] if len(lines) > _NUM_LISTED else []
            listing = "\n  ".join(lines[:_NUM_LISTED] + more)
            raise FingerprintMismatch(
                f"{cache} holds these clip ids of other videos or spans:\n  {listing}\n"
                "Give these clips other ids, or extract into another cache folder"
            )

    def _difference(self, committed: SidecarClip) -> str:
        clip = self._clips[committed.id]
        asked = _span(clip)
        cached = _span(committed)
        if asked != cached:
            return f"the cache has {_show(cached)}, the manifest says {_show(asked)}"
        size = self._size_of(clip)
        if committed.source_size and size is not None and size != committed.source_size:
            return f"the cache has a video of {committed.source_size} bytes, {clip.video} has {size}"
        return ""

    def _size_of(self, clip: Clip) -> int | None:
        """None if the video is not there: training and more streams need no videos that are done."""
        if clip.video not in self._sizes:
            try:
                self._sizes[clip.video] = self._dataset.video_path(clip).stat().st_size
            except (OSError, ValueError):  # decoding says why, if it comes to that
                self._sizes[clip.video] = None
        return self._sizes[clip.video]


def _span(clip: Clip | SidecarClip) -> tuple[float, float | None]:
    return clip.start_seconds or 0.0, clip.end_seconds


def _show(span: tuple[float, float | None]) -> str:
    start, end = span
    return f"{start:g} s to {'the end' if end is None else f'{end:g} s'}"
