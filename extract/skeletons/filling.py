"""The rows of the shards that an import fills: clips that need no video first, then those whose video must be read."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cache.errors import FailureCode, VideoError
from cache.fingerprint import Fingerprint
from cache.manifest import Clip, Dataset
from cache.rows import NO_PROVENANCE, ClipRows, Failure, Provenance
from cache.sidecar import sidecars
from cache.store import StreamReader
from extract.config import ExtractConfig
from extract.decoding.decode_process import Prepared, PrepareSettings, VideoJob
from extract.decoding.workers import DecodePool
from extract.launch.failure_policy import OnProgress, check_root
from extract.shards.collector import Collector
from extract.shards.work import ShardTask, video_jobs
from extract.skeletons.clip_frames import ClipFrames, Located, is_span, locate_video
from extract.skeletons.people import ClipNames, FoundPeople, SkeletonFile
from extract.skeletons.rows import imported_rows, on_video
from extract.video.sampling import Sampling

_JOINTS = "joints"
_ONE_FRAME = Sampling(num_frames=1)
"""Where a video only tells where its clips begin."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How the work is done; nothing here changes a row that is not a failure."""

    workers: int = 1
    """Decode processes, where videos must be read."""
    retry_failed: bool = False
    """Make failed rows again."""
    overwrite: bool = False
    """Make a stream again that is of another origin, and rows of changed videos."""
    allow_outside: bool = False
    """Read also videos that links lead to outside of the dataset's video root."""
    tolerate_frames: int = 0
    """Frames by which a skeleton may be longer or shorter than its video."""
    progress: OnProgress | None = None


class Filling:
    """Makes the rows of shards and counts what was special about them.

    Attributes:
        num_done: clips that rows were made of.
        scaled: clips whose skeleton was of another size than the video.
        without_anybody: clips with nobody in any frame.
        tolerated: clips with another number of frames, which was accepted: of the skeleton, of the video or clip.
    """

    def __init__(
        self,
        dataset: Dataset,
        root: Path,
        skeletons: SkeletonFile,
        reference: StreamReader | None,
        marks: Mapping[str, Fingerprint],
        *,
        config: ExtractConfig,
        options: ImportOptions,
    ) -> None:
        self.num_done, self._num_failed, self._num_clips = 0, 0, 0
        self.scaled: set[str] = set()
        self.without_anybody: set[str] = set()
        self.tolerated: dict[str, tuple[int, int]] = {}
        self._dataset, self._skeletons, self._reference, self._options = dataset, skeletons, reference, options
        self._clips = {clip.id: clip for clip in dataset.clips}
        self._collector = Collector(root, marks)
        self._last: tuple[str, FoundPeople] | None = None
        self._settings = PrepareSettings(
            sampling=config.instants if reference is None else _ONE_FRAME,
            decoding=config.decoding,
            frames=config.frames,
            encoder=None,
        )

    def run(self, tasks: list[ShardTask]) -> None:
        """Makes what these shards lack; each is committed when its last clip has come."""
        self._num_clips = sum(len(task.clip_ids) for task in tasks)
        with DecodePool(self._jobs(tasks), self._settings, workers=self._options.workers, prepare=locate_video) as pool:
            for delivery in pool:
                self._take(delivery.clip)
                delivery.release()

    def _jobs(self, tasks: list[ShardTask]) -> Iterator[VideoJob]:
        """The videos that must be read; rows that need none are made on the way."""
        for task in tasks:
            self._collector.expect(task)
            left = frozenset(clip_id for clip_id in sorted(task.clip_ids) if not self._place(self._clips[clip_id]))
            if left:
                unread = replace(task, missing={_JOINTS: left})
                for job in video_jobs(self._dataset, [unread], allow_outside=self._options.allow_outside):
                    yield replace(job, streams=frozenset())  # times alone, no pixels

    def _place(self, clip: Clip) -> bool:
        """Makes the row of a clip if that takes no video."""
        if self._reference is not None and clip.id in self._reference.failures:
            self._fail(clip, self._reference.failures[clip.id], self._known_provenance(clip))
        elif (failure := self._nameless(clip)) is not None:
            self._fail(clip, failure, self._known_provenance(clip))
        elif self._reference is not None and not is_span(clip):
            self._add(clip, ClipFrames.cached(self._reference, clip.id))
        else:
            return False
        return True

    def _nameless(self, clip: Clip) -> Failure | None:
        """Why none of the skeletons is that of a clip; None: one is."""
        message = f"the imported {self._skeletons.format} file has no skeleton of it"
        try:
            found = self._names.of(clip)
        except VideoError as error:
            return Failure(code=error.code, message=error.message)
        return Failure(code=FailureCode.NO_SKELETON, message=message) if found is None else None

    @functools.cached_property
    def _names(self) -> ClipNames:
        return ClipNames(self._skeletons.names, self._dataset.clips)

    def _take(self, prepared: Prepared) -> None:
        """Makes the row of a clip whose video was read."""
        clip = self._clips[prepared.clip_id]
        if prepared.failure is not None:
            check_root(self._dataset.video_root)
            provenance = self._known_provenance(clip) if self._reference is not None else prepared.provenance
            self._fail(clip, prepared.failure, provenance)
            return
        assert isinstance(prepared, Located)
        if self._reference is None:
            self._add(clip, ClipFrames.of_video(prepared))
        else:
            self._add(clip, ClipFrames.cached(self._reference, clip.id, prepared))

    def _known_provenance(self, clip: Clip) -> Provenance:
        """Of a failed row: the video's, where the cache knows it, and the clip's span."""
        if self._reference is not None and clip.id in self._reference:
            return self._reference.provenance(clip.id)
        held = self._failed_sources.get(clip.id, (0, ""))
        return replace(
            NO_PROVENANCE,
            source_size=held[0],
            source_sha256=held[1],
            start_seconds=clip.start_seconds,
            end_seconds=clip.end_seconds,
        )

    @functools.cached_property
    def _failed_sources(self) -> Mapping[str, tuple[int, str]]:
        """Size and digest of the videos of clips that have failed rows in the cache."""
        found = sidecars(self._reference.folder) if self._reference is not None else []
        return {
            clip.id: (clip.source_size, clip.source_sha256)
            for sidecar in found
            for clip in sidecar.clips
            if clip.failure is not None
        }

    def _add(self, clip: Clip, frames: ClipFrames) -> None:
        try:
            row = self._row(clip, frames)
        except VideoError as error:
            self._fail(clip, Failure(code=error.code, message=error.message), frames.provenance)
            return
        if not np.asarray(row.fields["valid"]).any():
            self.without_anybody.add(clip.id)
        self._keep(row)

    def _row(self, clip: Clip, frames: ClipFrames) -> ClipRows:
        name = self._names.of(clip)
        assert name is not None
        people = self._read(name)
        piece = frames.piece_of(people.num_frames, tolerance=self._options.tolerate_frames)
        height, width = frames.provenance.height, frames.provenance.width
        first, count = frames.clip or (piece.first_frame, people.num_frames)
        seen = on_video(people.cut(first - piece.first_frame, count), height, width)
        row = imported_rows(clip.id, seen, frames, frames.frame_index - first)
        if people.size not in (None, (height, width)):
            self.scaled.add(clip.id)
        if piece.num_frames != people.num_frames:
            self.tolerated[clip.id] = people.num_frames, piece.num_frames
        return row

    def _read(self, name: str) -> FoundPeople:
        """A skeleton; the last one is kept, for the other clips of its video."""
        if self._last is None or self._last[0] != name:
            self._last = name, self._skeletons.read(name)
        return self._last[1]

    def _fail(self, clip: Clip, failure: Failure, provenance: Provenance | None) -> None:
        self._num_failed += 1
        self._keep(ClipRows.failed(clip.id, failure, provenance))

    def _keep(self, row: ClipRows) -> None:
        self._collector.add(_JOINTS, row)
        self.num_done += 1
        if self._options.progress is not None:
            self._options.progress(self.num_done, self._num_failed, self._num_clips)
