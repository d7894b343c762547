"""Skeletons that another tool made, into the stream of joints of a cache: shard by shard, as extraction does it.

The instants are those of the cache's frames, or else of its visual prompts; a cache without either gets those that
extraction would take, for which the videos are read. A clip without a usable skeleton is a row with a code. Nothing is
remembered but what is committed: the same command continues, and finished work is a comparison of settings.

A reader may ask why a file's digest is part of the fingerprint: rows of two versions of a file must not mix, and a
stream that HRNet made is refused for the same reason, with the differences. `--overwrite` makes it again.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cache import atomic, fingerprint
from cache.errors import ConfigError, FingerprintMismatch
from cache.fingerprint import Fingerprint
from cache.manifest import Dataset
from cache.plan import Plan
from cache.rows import Failure
from cache.shard import sweep
from cache.sidecar import read_sidecar, sidecars
from cache.store import FeatureStore, StreamReader
from cache.stream_swap import NEXT, claimed, empty_trash, finish_swaps, forget_settings
from extract import streams
from extract.config import ExtractConfig, PoseConfig
from extract.shards.overwrite import begin, finish
from extract.shards.work import ShardTask, check_some_video_exists, shard_tasks
from extract.skeletons import main_person
from extract.skeletons.filling import Filling, ImportOptions
from extract.skeletons.mmaction import MmactionFile
from extract.skeletons.openpose import OpenposeFolder
from extract.skeletons.people import ClipNames, SkeletonFile
from extract.skeletons.toyota import ToyotaFiles
from extract.sources.sources import Sources

FORMATS: Mapping[str, Callable[[Path], SkeletonFile]] = {
    "mmaction2": MmactionFile,
    "toyota": ToyotaFiles,
    "openpose": OpenposeFolder,
}
"""What `open_skeletons` takes."""
_JOINTS = "joints"
_ONLY_JOINTS = ExtractConfig(streams=("joints",), pose=PoseConfig(boxes="whole_frame"))
"""For `shard_tasks`, which looks at nothing but the streams."""
_NUM_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """What the stream holds after an import, of the clips of the dataset, and what this call found."""

    ok: int
    """Clips with joints."""
    failures: Mapping[str, Failure]
    """Clips without, and why."""
    waiting: tuple[str, ...]
    """Clips that have no row because the cache has none of them in the stream that gives the instants."""
    instants_of: str | None
    """That stream; None: the videos gave the instants."""
    num_imported: int
    """Clips that this call made rows of."""
    scaled: tuple[str, ...]
    """Those of them whose skeleton was of another size than the video."""
    without_anybody: tuple[str, ...]
    """Those of them in which nobody is in any frame."""
    tolerated: Mapping[str, tuple[int, int]]
    """Those of them with another number of frames, which was accepted: of the skeleton and of the video or clip."""
    num_unused: int | None
    """Skeletons that belong to no clip of the dataset; None if there was nothing to do."""
    is_building: bool
    """True if the cache keeps its old joints because the new ones lack clips of the dataset."""
    seconds: float

    @property
    def failed(self) -> Counter[str]:
        """Failed clips by code."""
        return Counter(failure.code.value for failure in self.failures.values())

    @property
    def already_done(self) -> bool:
        """True if there was nothing to do."""
        return self.num_imported == 0


def open_skeletons(path: Path, format_name: str) -> SkeletonFile:
    """The skeletons of a file or folder; little is read yet.

    Raises:
        ConfigError: no such format, or nothing of it at this path.
    """
    if format_name not in FORMATS:
        raise ConfigError(f"no format {format_name!r} of skeletons; there are {', '.join(FORMATS)}")
    return FORMATS[format_name](path)


def import_skeletons(
    dataset: Dataset,
    cache: Path,
    skeletons: SkeletonFile,
    *,
    config: ExtractConfig | None = None,
    options: ImportOptions | None = None,
) -> ImportSummary:
    """Fills the stream of joints with what it lacks. An import that is refused leaves no file.

    Args:
        dataset: the clips.
        cache: the cache folder, created if absent.
        skeletons: see `open_skeletons`.
        config: its sampling decides the instants of a cache without frames and visual prompts, and must not
            contradict a cache with them; None: the default, whatever the cache has.
        options: see ImportOptions.

    Raises:
        ConfigError: the file is unsafe or of another format, or has none of the dataset's clips; or a contradiction.
        FingerprintMismatch: the cache has joints of another origin, or rows of other videos.
        StorageError: the disk refused; the same command continues.
    """
    return _Import(dataset, cache, skeletons, config, options or ImportOptions()).run()


class _Import:
    def __init__(
        self,
        dataset: Dataset,
        cache: Path,
        skeletons: SkeletonFile,
        config: ExtractConfig | None,
        options: ImportOptions,
    ) -> None:
        self._dataset, self._cache, self._skeletons, self._options = dataset, cache, skeletons, options
        self._config = config or ExtractConfig()
        if cache.exists():
            finish_swaps(cache)
            empty_trash(cache)
        self._reference = _reference(cache)
        self._mark = self._fingerprint(is_given=config is not None)
        self._sources = Sources(dataset, cache, allow_outside=options.allow_outside)
        known = {clip.id for clip in dataset.clips} if self._reference is None else _held(self._reference)
        self._known = replace(dataset, clips=tuple(clip for clip in dataset.clips if clip.id in known))

    def run(self) -> ImportSummary:
        started = time.monotonic()
        root = self._cache
        if self._options.overwrite and begin(
            self._dataset, self._cache, {_JOINTS: self._mark}, self._config.shard_size
        ):
            root = self._cache / NEXT
        try:
            filling, num_unused = self._fill(root)
        finally:
            self._sources.remember()
        if root != self._cache and finish(self._dataset, self._cache, {_JOINTS: self._mark}):
            root = self._cache
            with claimed(root):
                forget_settings(root, _JOINTS)  # of the old stream: an import has no keys of [extract]
        ok, failures = self._count(root)
        waiting = sorted({clip.id for clip in self._dataset.clips} - ok - failures.keys())
        return ImportSummary(
            ok=len(ok),
            failures=failures,
            waiting=tuple(waiting),
            instants_of=None if self._reference is None else self._reference.folder.name,
            num_imported=filling.num_done,
            scaled=tuple(sorted(filling.scaled)),
            without_anybody=tuple(sorted(filling.without_anybody)),
            tolerated=dict(sorted(filling.tolerated.items())),
            num_unused=num_unused,
            is_building=root != self._cache,
            seconds=time.monotonic() - started,
        )

    def _fill(self, root: Path) -> tuple[Filling, int | None]:
        marks = streams.agreed(root, {_JOINTS: self._mark})
        plan = self._plan(root, create=False)
        tasks = self._tasks(root, plan, marks)
        filling = Filling(
            self._dataset, root, self._skeletons, self._reference, marks, config=self._config, options=self._options
        )
        if not tasks:
            return filling, None
        used = self._used_names()
        if self._reference is None:
            check_some_video_exists(self._dataset, tasks, allow_outside=self._options.allow_outside)
        fingerprint.ensure(root / _JOINTS, marks[_JOINTS])
        sweep(root / _JOINTS)
        atomic.sweep(root)
        if self._plan(root, create=True) != plan:  # somebody else has planned other clips since
            tasks = self._tasks(root, self._plan(root, create=False), marks)
        filling.run(tasks)
        return filling, len(set(self._skeletons.names) - used)

    def _plan(self, root: Path, *, create: bool) -> Plan:
        make = Plan.ensure if create else Plan.preview
        return make(root, [clip.id for clip in self._known.clips], self._config.shard_size)

    def _tasks(self, root: Path, plan: Plan, marks: Mapping[str, Fingerprint]) -> list[ShardTask]:
        """What is missing; refuses rows of other videos, also in the stream that gives the instants."""
        if self._reference is not None:
            ours = {clip.id for clip in self._known.clips}
            for sidecar in sidecars(self._reference.folder):
                for clip in sidecar.clips:
                    if clip.id in ours:
                        self._sources.is_done(clip)
        return shard_tasks(
            self._known,
            root,
            plan,
            sorted(plan.shards),
            _ONLY_JOINTS,
            marks,
            retry_failed=self._options.retry_failed,
            overwrite=self._options.overwrite,
            sources=self._sources,
        )

    def _used_names(self) -> set[str]:
        """Names in the file that clips of the dataset have.

        Raises:
            ConfigError: not one.
        """
        names = self._skeletons.names
        used = set(ClipNames(names, self._dataset.clips).used)
        if not used:
            theirs = ", ".join(repr(name) for name in sorted(names)[:_NUM_NAMED])
            ours = ", ".join(repr(clip.id) for clip in self._dataset.clips[:_NUM_NAMED])
            raise ConfigError(
                f"not one of the {len(names)} skeletons ({theirs}, ...) is of a clip of dataset {self._dataset.name!r} "
                f"({ours}, ...): their names must be clips' ids, or names of videos"
            )
        return used

    def _fingerprint(self, *, is_given: bool) -> Fingerprint:
        if self._reference is None:
            like = streams.Resolver(replace(self._config, streams=("frames",)), self._cache).marks()["frames"]
        else:
            like = self._reference.fingerprint
            asked = self._config.instants.to_json()
            if is_given and like.sampling != asked:
                raise FingerprintMismatch(
                    f"joints are imported for the instants of {self._reference.folder}, whose sampling is "
                    f"{dict(like.sampling)}; asked for {asked}. Leave the sampling out, or use another cache"
                )
        return Fingerprint(
            stream=_JOINTS,
            dtype="float32",
            model={
                "name": "imported",
                "format": self._skeletons.format,
                "file_sha256": self._skeletons.sha256,
                "skeleton": self._skeletons.skeleton.name,
            },
            preprocessing={"missing": "score not above 0", "main_person": dict(main_person.settings())},
            sampling=like.sampling,
            decoding=like.decoding,
        )

    def _count(self, root: Path) -> tuple[set[str], dict[str, Failure]]:
        """The dataset's clips in the stream: those with joints, and why the others have none."""
        ours = {clip.id for clip in self._dataset.clips}
        found = (read_sidecar(root / _JOINTS, number) for number in Plan.load(root).shards)
        clips = [clip for sidecar in found if sidecar is not None for clip in sidecar.clips if clip.id in ours]
        failures = {clip.id: clip.failure for clip in clips if clip.failure is not None}
        return {clip.id for clip in clips if clip.failure is None}, dict(sorted(failures.items()))


def _reference(cache: Path) -> StreamReader | None:
    """The stream whose instants the joints get."""
    if not (cache / "plan.json").exists():
        return None
    store = FeatureStore.open(cache)
    name = next((name for name in ("frames", "visual_prompts") if name in store.streams), None)
    return None if name is None else store.stream(name)


def _held(reader: StreamReader) -> set[str]:
    return {*reader.clip_ids, *reader.failures}
