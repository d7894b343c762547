"""The loop: clips are decoded once, go through the frozen models, and are committed shard by shard.

One process runs it over the shards that it is given, one by one, so that several can share a queue of them. A shard is
written when the last of its clips has come; when a run is stopped, so are the clips that are ready: nothing else is
state.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.encoder_spec import ImageEncoderSpec
from cache.errors import DeconfoundError, Stopped, TooManyFailures
from cache.fingerprint import Fingerprint
from cache.manifest import Clip, Dataset
from cache.rows import ClipRows
from extract.config import ExtractConfig
from extract.decoding.decode_process import Prepared, PrepareSettings, VideoJob
from extract.decoding.workers import DecodePool, Delivery
from extract.frozen_models import FrozenModels
from extract.launch.failure_policy import Watch, check_root
from extract.products.rows import failed_rows, frame_rows
from extract.shards.collector import Collector
from extract.shards.work import ShardTask, video_jobs


@dataclass(frozen=True, kw_only=True)
class WorkSettings:
    """What everyone who fills shards of a cache must know."""

    dataset: Dataset
    cache: Path
    config: ExtractConfig
    streams: frozenset[str]
    """Those that the shards lack."""
    workers: int
    """Decode processes."""
    allow_outside: bool = False
    """Also read videos outside the dataset's video root."""


def fill_shards(
    settings: WorkSettings,
    marks: Mapping[str, Fingerprint],
    tasks: Iterable[ShardTask],
    models: FrozenModels,
    *,
    watch: Watch,
    check: Callable[[], None],
) -> None:
    """Makes what these shards lack.

    Args:
        settings: the clips, the cache and how it is made.
        marks: fingerprints by stream.
        tasks: shards, taken one by one as decode processes become free.
        models: the frozen models.
        watch: told of every clip and failure; what it raises ends the loop.
        check: called between clips and while waiting; what it raises ends the loop.

    Raises:
        DeconfoundError: Stopped, TooManyFailures, StorageError, others; after the clips that were ready are committed.
    """
    loop = _Loop(settings, marks, models, watch)
    try:
        with DecodePool(
            loop.jobs(tasks), loop.preparing, workers=settings.workers, check=check, steps_back=models.on_cpu
        ) as pool:
            for delivery in pool:
                check()
                loop.take(delivery)
        loop.finish()
    except TooManyFailures as error:
        if not error.drop:
            loop.keep_ready()
        raise
    except Stopped:
        loop.keep_ready()
        raise
    except (DeconfoundError, OSError):  # if the cache is to blame this fails too, and the first error is to be told
        with contextlib.suppress(DeconfoundError, OSError):
            loop.keep_ready()
        raise


class _Loop:
    def __init__(
        self, settings: WorkSettings, marks: Mapping[str, Fingerprint], models: FrozenModels, watch: Watch
    ) -> None:
        self._settings = settings
        self._models, self._watch = models, watch
        self._clips = {clip.id: clip for clip in settings.dataset.clips}
        self._collector = Collector(settings.cache, marks)
        self._batching: set[str] = set()
        self.preparing = PrepareSettings(
            sampling=settings.config.instants,
            decoding=settings.config.decoding,
            frames=settings.config.frames,
            encoder=ImageEncoderSpec.from_fingerprint(marks["visual_prompts"])
            if "visual_prompts" in settings.streams
            else None,
        )

    def jobs(self, tasks: Iterable[ShardTask]) -> Iterator[VideoJob]:
        """The videos of these shards; rows of a shard are expected from here on."""
        for task in tasks:
            self._collector.expect(task)
            yield from video_jobs(self._settings.dataset, [task], allow_outside=self._settings.allow_outside)

    def take(self, delivery: Delivery) -> None:
        """Runs the models on a clip and keeps the rows that are ready, of this clip and of earlier ones."""
        prepared = delivery.clip
        task = self._collector.tasks[self._collector.shard_of[prepared.clip_id]]
        for stream, row in self._rows(prepared, self._clips[prepared.clip_id], task.streams_of(prepared.clip_id)):
            self._keep(stream, row)
        delivery.release()
        self._watch.done(prepared.clip_id)

    def finish(self) -> None:
        """Runs the last, partly filled batches."""
        for stream, row in self._flushed():
            self._keep(stream, row)

    def keep_ready(self) -> None:
        """Commits the clips that are ready, before the loop ends for another reason.

        First those whose rows are whole: the last batches take a while, and who stops a run may not wait for them.
        """
        self._collector.commit_ready()
        for stream, row in self._flushed():
            self._collector.add(stream, row)
        self._collector.commit_ready()

    def _flushed(self) -> Iterator[tuple[str, ClipRows]]:
        """Clips that waited for a full batch, of the streams that have one; no model is loaded to find that out."""
        for stream in sorted(self._batching):
            model = self._models.joints if stream == "joints" else self._models.visual_prompts
            for row in model.flush():
                yield stream, row

    def _keep(self, stream: str, row: ClipRows) -> None:
        if row.failure is not None:
            check_root(self._settings.dataset.video_root)
            self._watch.failed(row.clip_id, row.failure)
        self._collector.add(stream, row)

    def _rows(self, prepared: Prepared, clip: Clip, wanted: frozenset[str]) -> Iterator[tuple[str, ClipRows]]:
        if prepared.failure is not None:
            for stream in sorted(wanted):
                yield stream, failed_rows(prepared, prepared.failure)
            return
        if "frames" in wanted:
            yield "frames", frame_rows(prepared)
        if "joints" in wanted:
            self._batching.add("joints")
            for row in self._models.joints.add(prepared, clip):
                yield "joints", row
        if "visual_prompts" in wanted:
            self._batching.add("visual_prompts")
            for row in self._models.visual_prompts.add(prepared):
                yield "visual_prompts", row
