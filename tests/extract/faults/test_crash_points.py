"""A process is killed, or the power is cut, at every operation on the disk in turn; the disk that is left is judged.

Nothing is really killed: the work runs once, and at every operation the folder is copied as it stands then. That is
what a kill leaves, and unlike an exception it lets no `finally` tidy up. A power cut leaves less: only what was synced.
"""

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import fingerprint
from cache.errors import FailureCode
from cache.fingerprint import Fingerprint
from cache.manifest import Clip, Dataset
from cache.plan import Plan
from cache.rows import NO_PROVENANCE, ClipRows, Failure
from cache.shard import sweep, write_shard
from cache.sidecar import sidecars
from cache.store import FeatureStore
from cache.verify import verify
from extract.config import ExtractConfig
from extract.extractor import extract
from tests.extract.faults.watched_disk import CHANGES, Operation, watched
from tests.extract.kitchen import TASK, make_config
from tests.extract.videos import make_video

END = Operation("read", Path())
DEAD = 4194399  # above the largest process number that Linux gives
Tree = Mapping[str, bytes | None]
"""Content by path from the root; None for a folder."""


@dataclass(frozen=True)
class Point:
    """A disk as a kill (all that was done) or a power cut leaves it, right before `operation`."""

    operation: Operation
    killed: Tree
    synced: Tree
    """Only the names and contents that were synced."""
    named: Tree
    """All names, with the contents that were synced: a file that is renamed before it is synced is empty here."""
    num_acknowledged: int
    """How many of the calls that commit something had returned."""


@dataclass
class Recorder:
    """Copies a folder at every operation; follows what of it is synced."""

    root: Path
    points: list[Point] = field(default_factory=list)
    num_acknowledged: int = 0
    _contents: dict[int, bytes] = field(default_factory=dict)
    _entries: dict[Path, dict[str, int]] = field(default_factory=dict)
    _current: Operation | None = None

    def __post_init__(self) -> None:
        for path in (self.root, *sorted(self.root.rglob("*"))):
            self._sync(path)

    def before(self, operation: Operation) -> None:
        if operation.kind in CHANGES:
            self.points.append(self.now(operation))

    def now(self, operation: Operation) -> Point:
        """The disks that a stop at this moment leaves."""
        done, self._current = self._current, operation
        if done is not None and done.kind in ("fsync", "fsync folder"):
            self._sync(done.path)
        killed = _tree(self.root)
        named = {path: self._content(self.root / path) for path in killed}
        return Point(operation, killed, dict(self._walk(self.root)), named, self.num_acknowledged)

    def _sync(self, path: Path) -> None:
        if path.is_dir():
            self._entries[path] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
        else:
            self._contents[path.stat().st_ino] = path.read_bytes()

    def _content(self, path: Path) -> bytes | None:
        return None if path.is_dir() else self._contents.get(path.stat().st_ino, b"")

    def _walk(self, folder: Path) -> Iterator[tuple[str, bytes | None]]:
        for name, number in self._entries.get(folder, {}).items():
            path = folder / name
            relative = path.relative_to(self.root).as_posix()
            if path.is_dir():
                yield relative, None
                yield from self._walk(path)
            else:
                yield relative, self._contents.get(number, b"")


def _tree(root: Path) -> Tree:
    paths = sorted(root.rglob("*"))
    return {path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes() for path in paths}


def lay_out(tree: Tree, folder: Path) -> Path:
    """Makes the disk that was left; its temporaries belong to a process that is dead now."""
    folder.mkdir()
    for name, content in sorted(tree.items()):
        path = folder / name.replace(f"~{os.getpid()}-", f"~{DEAD}-")
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
    return folder


def distinct(points: Sequence[Point], *kinds: str) -> Iterator[tuple[Point, Tree]]:
    """Every point with each of its disks, a disk that was judged before left out."""
    seen = set()
    for point in points:
        for kind in kinds:
            tree: Tree = getattr(point, kind)
            key = (point.num_acknowledged, tuple(sorted(tree.items())))
            if key not in seen:
                seen.add(key)
                yield point, tree


def visible(cache: Path) -> dict[tuple[str, str], bool]:
    """(stream, clip) -> whether it has rows, after every check of `verify --deep` and a reading of every row."""
    if not (cache / "plan.json").exists():
        assert not list(cache.rglob("shard-*.json"))
        return {}
    reports = verify(cache, deep=True)
    assert [problem for report in reports.values() for problem in report.problems] == []
    store = FeatureStore.open(cache)
    found: dict[tuple[str, str], bool] = {}
    for name in set(store.streams) - {"text"}:
        reader = store.stream(name)
        found |= {(name, clip_id): len(reader[clip_id]) > 0 for clip_id in reader.clip_ids}
        found |= {(name, clip_id): False for clip_id in reader.failures}
    return found


def contents(cache: Path) -> dict[str, str | None]:
    return {stream: report.content_sha256 for stream, report in verify(cache, deep=True).items()}


# --- one shard after another, by hand: frames, visual prompts, and the frames again with a clip repaired -------------

MARKS = {name: Fingerprint(stream=name, dtype="any") for name in ("frames", "visual_prompts")}


def rows(stream: str, clip_id: str, *, failed: bool = False) -> ClipRows:
    if failed:
        failure = Failure(code=FailureCode.MISSING, message="no such file")
        return ClipRows.failed(clip_id, failure, NO_PROVENANCE)
    numbers = np.random.default_rng(len(clip_id)).integers(0, 255, (2, 3000), dtype=np.uint8)
    fields: dict[str, Any] = {"visual_prompts": numbers.astype(np.float16)}
    if stream == "frames":
        fields = {"jpeg": [row.tobytes() for row in numbers]}
    return ClipRows(
        clip_id=clip_id,
        fields=fields,
        pts_seconds=np.arange(2.0),
        frame_index=np.arange(2),
        provenance=NO_PROVENANCE,
    )


COMMITS = (("frames", True), ("visual_prompts", False), ("frames", False))
"""Stream, and whether the clip `b` fails."""


def commit(cache: Path, stream: str, b_fails: bool) -> None:
    clips = [rows(stream, "a"), rows(stream, "b", failed=b_fails)]
    write_shard(cache / stream, 0, stream, clips, fingerprint=MARKS[stream])


def state_after(num_commits: int) -> dict[tuple[str, str], bool]:
    found: dict[tuple[str, str], bool] = {}
    for stream, b_fails in COMMITS[:num_commits]:
        found |= {(stream, "a"): True, (stream, "b"): not b_fails}
    return found


def record_commits(root: Path) -> Recorder:
    cache = root / "cache"
    for stream, mark in MARKS.items():
        fingerprint.ensure(cache / stream, mark)
    Plan.ensure(cache, ["a", "b"], shard_size=2)
    recorder = Recorder(root)
    with watched(root, recorder.before):
        for stream, b_fails in COMMITS:
            commit(cache, stream, b_fails)
            recorder.num_acknowledged += 1
    return recorder


def test_a_shard_is_whole_or_absent_wherever_a_kill_or_a_power_cut_stops_its_commit(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    points = record_commits(tmp_path / "disk").points
    assert len(points) >= 30
    expected = contents(tmp_path / "disk" / "cache")
    seen = set()
    for number, (point, tree) in enumerate(distinct(points, "killed", "synced", "named")):
        cache = lay_out(tree, tmp_path / str(number)) / "cache"
        found = visible(cache)
        states = [state_after(point.num_acknowledged), state_after(point.num_acknowledged + 1)]
        assert found in states, point.operation
        seen.add((point.num_acknowledged, states.index(found)))
        for stream, b_fails in COMMITS[point.num_acknowledged :]:
            commit(cache, stream, b_fails)
        assert contents(cache) == expected
        for stream in MARKS:
            sweep(cache / stream, min_age_seconds=-1.0)
        assert sorted(path.name for path in cache.rglob("*") if path.is_file()) == sorted(
            path.name for path in (tmp_path / "disk" / "cache").rglob("*") if path.is_file() and not _is_replaced(path)
        )
    # Each commit was seen undone, and done though the call had not yet returned.
    assert seen >= {(done, new) for done in range(3) for new in (0, 1)}


def _is_replaced(path: Path) -> bool:
    """A shard file that its sidecar has stopped naming, which stays an hour for readers that are at it."""
    return path.suffix == ".h5" and path.name not in {sidecar.file for sidecar in sidecars(path.parent)}


def test_every_change_of_the_disk_was_announced(tmp_path: Path) -> None:
    recorder = record_commits(tmp_path)
    later = [*recorder.points[1:], recorder.now(END)]
    for point, following in zip(recorder.points, later, strict=True):
        names = {path for path, _ in point.killed.items() ^ following.killed.items()}
        operation = point.operation
        announced = {path.relative_to(tmp_path).as_posix() for path in (operation.path, operation.target) if path}
        assert names <= announced, operation
    assert {point.operation.kind for point in recorder.points} == set(CHANGES) - {"link", "unlink", "mkdir"}


# --- a whole extraction from nothing ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crash")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    """Two videos and one that is not there."""
    (folder / "videos").mkdir()
    for seed, name in enumerate("ab"):
        make_video(folder / "videos" / f"{name}.mp4", num_frames=6, size=(48, 64), seed=seed)
    clips = tuple(Clip(id=name, video=f"{name}.mp4") for name in ("a", "b", "gone"))
    return Dataset(name="crash", version="1", tasks=(TASK,), protocols={}, clips=clips, video_root=folder / "videos")


def record_extraction(dataset: Dataset, root: Path, config: ExtractConfig) -> list[Point]:
    root.mkdir()
    recorder = Recorder(root)
    with watched(root, recorder.before):
        extract(dataset, root / "cache", config)
    return [*recorder.points, recorder.now(END)]


def committed(tree: Tree) -> Tree:
    """What counts: everything but temporaries, folders, and shard files that no sidecar names yet."""
    return {name: content for name, content in tree.items() if re.search(r"(^|/)[^.][^/]*\.json$", name)}


@pytest.mark.slow
def test_an_extraction_from_nothing_can_be_killed_or_lose_power_at_any_operation(
    dataset: Dataset, folder: Path, tmp_path: Path
) -> None:
    config = replace(make_config(folder, "frames", "text", shard_size=2), num_frames=2)
    points = record_extraction(dataset, tmp_path / "disk", config)
    expected = contents(tmp_path / "disk" / "cache")
    assert len(points) >= 70
    assert {point.operation.kind for point in points[:-1]} == set(CHANGES)
    for before, after in itertools.pairwise(points):
        for kind in ("killed", "synced"):
            assert committed(getattr(before, kind)).keys() <= committed(getattr(after, kind)).keys()
    assert committed(points[-1].synced) == committed(points[-1].killed)  # finished means: safe from a power cut
    for number, (point, tree) in enumerate(distinct(points, "killed", "synced", "named")):
        cache = lay_out(tree, tmp_path / str(number)) / "cache"
        visible(cache)
        done = committed(tree)
        extract(dataset, cache, config)
        assert contents(cache) == expected, point.operation
        assert not list(cache.rglob("*.tmp"))
        kept = committed(_tree(cache.parent))
        assert {name: kept[name] for name in done if "shard-" in name} == {
            name: content for name, content in done.items() if "shard-" in name
        }
