"""What a cache lacks, its settings fixed, and the shards made: the part of an extraction that loads models.

Everything that can be refused is refused before the first file: settings are compared, weights are found and models are
loaded, and only then are fingerprints and plan written.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache import atomic, fingerprint
from cache.errors import CacheError
from cache.fingerprint import Fingerprint
from cache.manifest import Dataset, Task
from cache.plan import Plan
from cache.shard import sweep
from extract import streams
from extract.config import ExtractConfig
from extract.frozen_models import FrozenModels
from extract.launch.failure_policy import FailureLimit, FailureWatch, OnProgress
from extract.launch.launcher import device_names, launcher
from extract.shards.choice import choose_shards
from extract.shards.loop import WorkSettings
from extract.shards.work import ShardTask, check_some_video_exists, learn_sources, shard_tasks
from extract.sources.sources import Sources
from extract.texts import missing_texts, write_texts


@dataclass(frozen=True, kw_only=True)
class FillOptions:
    """How the work is done; nothing here changes what comes of it. See `extract`."""

    workers: int
    shards: str | None
    device: str
    ray: str | None
    retry_failed: bool
    overwrite: bool
    allow_outside: bool
    max_failures: FailureLimit | None
    progress: OnProgress | None
    check: Callable[[], None]
    """Called between pieces of work; raises when a signal has come."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a cache lacked."""

    chosen: list[int]
    """Shards that were looked at."""
    tasks: list[ShardTask]
    texts: list[Task]

    @property
    def is_done(self) -> bool:
        """Nothing was missing."""
        return not self.tasks and not self.texts

    @property
    def num_clips(self) -> int:
        """To be decoded."""
        return sum(len(task.clip_ids) for task in self.tasks)

    @property
    def streams(self) -> frozenset[str]:
        """Those with something missing."""
        return frozenset(stream for task in self.tasks for stream in task.missing) | ({"text"} if self.texts else set())


def fill(dataset: Dataset, cache: Path, config: ExtractConfig, options: FillOptions) -> Work:
    """Makes what is missing in a cache and returns what that was; raises as `extract` does."""
    return _Filling(dataset, cache, config, options).run()


class _Filling:
    def __init__(self, dataset: Dataset, cache: Path, config: ExtractConfig, options: FillOptions) -> None:
        self._dataset, self._cache, self._config, self._options = dataset, cache, config, options
        self._ids = [clip.id for clip in dataset.clips]
        self._resolver = streams.Resolver(config, cache)
        self._sources = Sources(dataset, cache, allow_outside=options.allow_outside)

    def run(self) -> Work:
        marks = streams.agreed(self._cache, self._resolver.marks())
        plan = Plan.preview(self._cache, self._ids, self._config.shard_size)
        work = self._survey(plan, marks)
        try:
            if work.is_done:
                self._pin(marks)
            else:
                work = self._do(work, plan, marks)
            return work
        finally:
            self._sources.remember()

    def _survey(self, plan: Plan, marks: Mapping[str, Fingerprint]) -> Work:
        """What is missing; refuses settings that are not those of the cache. Nothing is written."""
        chosen = choose_shards(plan.shards, self._options.shards)
        tasks = shard_tasks(
            self._dataset,
            self._cache,
            plan,
            self._one_by_one(chosen),
            self._config,
            marks,
            retry_failed=self._options.retry_failed,
            overwrite=self._options.overwrite,
            sources=self._sources,
        )
        return Work(chosen=chosen, tasks=tasks, texts=missing_texts(self._dataset, self._cache, marks))

    def _one_by_one(self, chosen: list[int]) -> Iterator[int]:
        for number in chosen:
            self._options.check()
            yield number

    def _do(self, work: Work, preview: Plan, marks: dict[str, Fingerprint]) -> Work:
        options, devices = self._options, device_names(self._options.device)
        check_some_video_exists(self._dataset, work.tasks, allow_outside=options.allow_outside)
        marks |= streams.agreed(self._cache, self._resolver.resolve(work.streams))
        settings = WorkSettings(
            dataset=self._dataset,
            cache=self._cache,
            config=self._config,
            streams=work.streams,
            workers=options.workers,
            allow_outside=options.allow_outside,
        )
        with contextlib.ExitStack() as stack:
            launched = stack.enter_context(launcher(settings, devices, options.ray))
            launched.start(options.check)
            here = FrozenModels(self._config, "auto" if options.ray else devices[0])
            device = here.device if work.texts else None
            options.check()
            plan = self._pin(marks)
            marks |= streams.agreed(self._cache, marks)  # another first run may have named the weights otherwise
            if plan != preview:  # somebody else has planned other clips since
                work = self._survey(plan, marks)
                if not work.streams <= settings.streams:
                    raise CacheError(f"{self._cache} was changed by another process: run the same command again")
            for task in work.texts:
                options.check()
                write_texts([task], self._cache, self._config, marks["text"], device or here.device)
            if work.tasks:
                stack.callback(learn_sources, self._sources, self._cache, work.tasks)  # also of a run that is stopped
                launched.fill(marks, work.tasks, self._watch(work), options.check)
        return work

    def _watch(self, work: Work) -> FailureWatch:
        return FailureWatch(
            work.num_clips,
            limit=self._options.max_failures,
            root=self._dataset.video_root,
            breaker=not self._options.retry_failed,
            progress=self._options.progress,
        )

    def _pin(self, marks: Mapping[str, Fingerprint]) -> Plan:
        """Fixes settings and plan in the cache: its first files."""
        for stream, mark in marks.items():
            fingerprint.ensure(self._cache / stream, mark)
            sweep(self._cache / stream)
        atomic.sweep(self._cache)
        plan = Plan.ensure(self._cache, self._ids, self._config.shard_size)
        self._resolver.remember()
        return plan
