"""Are rows of the videos at hand: by content, read as seldom as possible; and which videos may be read at all."""

import logging
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from cache import atomic, fingerprint
from cache.errors import FailureCode, FingerprintMismatch, ManifestError, StorageError, VideoError
from cache.manifest import Clip, Dataset
from cache.plan import Plan
from cache.rows import ClipRows, Failure
from cache.sidecar import read_sidecar
from extract.config import DecodingConfig, ExtractConfig, FramesConfig
from extract.decoding.decode_process import PrepareSettings, prepare_video
from extract.shards.collector import Collector
from extract.shards.work import ShardTask, check_some_video_exists, learn_sources, shard_tasks, video_jobs
from extract.sources import memory as source_memory
from extract.sources.memory import FILE_NAME, SourceMemory
from extract.sources.sources import Sources
from extract.sources.video_root import VideoFiles, check_inside, video_files
from extract.video.sampling import Sampling
from extract.video.source_file import source_identity
from tests.toys import frame_rows, toy_fingerprint

CONFIG = ExtractConfig(streams=("frames",))
MARKS = {"frames": toy_fingerprint("frames")}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three videos, as far as their bytes matter, and four clips: two of them of one video."""
    (tmp_path / "videos").mkdir()
    for name in "abc":
        (tmp_path / "videos" / name).write_bytes(name.encode() * 100)
    clips = [Clip(id=name, video=name) for name in "abc"]
    clips.append(Clip(id="d", video="c", start_seconds=1.0, end_seconds=2.0))
    return make_dataset(tmp_path / "videos", clips)


def make_dataset(root: Path, clips: Iterable[Clip]) -> Dataset:
    return Dataset(name="d", version="1", tasks=(), protocols={}, clips=tuple(clips), video_root=root)


def rewrite(path: Path) -> None:
    """Another content of the same size; a second later, as a clock may be coarse."""
    later = path.stat().st_mtime_ns + 1_000_000_000
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(later, later))


def survey(dataset: Dataset, cache: Path, sources: Sources, *, overwrite: bool = False) -> list[ShardTask]:
    plan = Plan.ensure(cache, [clip.id for clip in dataset.clips], 2)
    fingerprint.ensure(cache / "frames", MARKS["frames"])
    return shard_tasks(dataset, cache, plan, plan.shards, CONFIG, MARKS, sources=sources, overwrite=overwrite)


def fill(dataset: Dataset, cache: Path, tasks: list[ShardTask], *, failure: Failure | None = None) -> None:
    """Rows for all that is missing, with the true identity of their videos."""
    shard_of = {clip_id: task.number for task in tasks for clip_id in task.clip_ids}
    collector = Collector(cache, MARKS, {task.number: task for task in tasks}, shard_of)
    for clip in dataset.clips:
        if clip.id in shard_of:
            rows = frame_rows(clip.id)
            assert rows.provenance is not None
            size, sha256 = source_identity(dataset.video_path(clip))
            provenance = replace(
                rows.provenance,
                source_size=size,
                source_sha256=sha256,
                start_seconds=clip.start_seconds,
                end_seconds=clip.end_seconds,
            )
            failed = failure and ClipRows.failed(clip.id, failure, provenance)
            collector.add("frames", failed or replace(rows, provenance=provenance))


def run(dataset: Dataset, cache: Path, *, overwrite: bool = False) -> set[str]:
    """What an extraction does with the sources; the clips that it made."""
    sources = Sources(dataset, cache)
    tasks = survey(dataset, cache, sources, overwrite=overwrite)
    fill(dataset, cache, tasks)
    learn_sources(sources, cache, tasks)
    sources.remember()
    return {clip_id for task in tasks for clip_id in task.clip_ids}


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the videos that were read to compare them."""
    names: list[str] = []

    def reading(path: Path) -> tuple[int, str]:
        names.append(path.name)
        return source_identity(path)

    monkeypatch.setattr(source_memory, "source_identity", reading)
    return names


def test_work_that_was_just_done_is_not_read_again(tmp_path: Path, dataset: Dataset, hashed: list[str]) -> None:
    assert run(dataset, tmp_path / "cache") == set("abcd")
    assert run(dataset, tmp_path / "cache") == set()
    assert hashed == []


def test_a_moved_dataset_is_read_once(tmp_path: Path, dataset: Dataset, hashed: list[str]) -> None:
    run(dataset, tmp_path / "cache")
    shutil.copytree(dataset.video_root, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    for name in "abc":
        os.utime(tmp_path / "elsewhere" / name, ns=(0, 1234567890))
    moved = replace(dataset, video_root=tmp_path / "elsewhere")
    assert run(moved, tmp_path / "cache") == set()
    assert sorted(hashed) == ["a", "b", "c"]
    assert run(moved, tmp_path / "cache") == set()
    assert len(hashed) == 3


def test_a_touched_video_is_read_and_found_the_same(tmp_path: Path, dataset: Dataset, hashed: list[str]) -> None:
    run(dataset, tmp_path / "cache")
    os.utime(dataset.video_root / "b", ns=(5, 5))
    assert run(dataset, tmp_path / "cache") == set()
    assert hashed == ["b"]


def test_a_changed_video_is_made_again_in_place_with_overwrite(tmp_path: Path, dataset: Dataset) -> None:
    cache = tmp_path / "cache"
    run(dataset, cache)
    kept = read_sidecar(cache / "frames", 0)
    rewrite(dataset.video_root / "c")
    with pytest.raises(FingerprintMismatch, match="--overwrite"):
        run(dataset, cache)
    assert run(dataset, cache, overwrite=True) == set("cd")
    assert run(dataset, cache) == set()
    assert read_sidecar(cache / "frames", 0) == kept
    changed = read_sidecar(cache / "frames", 1)
    assert changed is not None
    assert {clip.source_sha256 for clip in changed.clips} == {source_identity(dataset.video_root / "c")[1]}


def test_a_changed_span_is_made_again_in_place_with_overwrite(tmp_path: Path, dataset: Dataset) -> None:
    run(dataset, tmp_path / "cache")
    clips = [replace(clip, start_seconds=0.5) if clip.id == "d" else clip for clip in dataset.clips]
    assert run(replace(dataset, clips=tuple(clips)), tmp_path / "cache", overwrite=True) == {"d"}
    assert run(replace(dataset, clips=tuple(clips)), tmp_path / "cache") == set()


def test_an_overwriting_run_that_was_stopped_is_continued_not_believed(tmp_path: Path, dataset: Dataset) -> None:
    cache = tmp_path / "cache"
    run(dataset, cache)
    rewrite(dataset.video_root / "a")
    sources = Sources(dataset, cache)
    tasks = survey(dataset, cache, sources, overwrite=True)
    learn_sources(sources, cache, tasks)  # stopped before anything was made: the row is of the old file
    sources.remember()
    with pytest.raises(FingerprintMismatch, match="'a'"):
        run(dataset, cache)
    assert run(dataset, cache, overwrite=True) == {"a"}


def test_a_retry_that_was_stopped_does_not_take_the_new_file_for_the_old_one(tmp_path: Path, dataset: Dataset) -> None:
    cache = tmp_path / "cache"
    sources = Sources(dataset, cache)
    fill(dataset, cache, survey(dataset, cache, sources), failure=Failure(code=FailureCode.CORRUPT, message="broken"))
    rewrite(dataset.video_root / "a")
    plan, retrying = Plan.load(cache), Sources(dataset, cache)
    tasks = shard_tasks(dataset, cache, plan, plan.shards, CONFIG, MARKS, sources=retrying, retry_failed=True)
    learn_sources(retrying, cache, tasks)
    retrying.remember()
    assert run(dataset, cache) == {"a"}


def test_a_video_that_changes_while_it_is_decoded_is_not_taken_for_unchanged(tmp_path: Path, dataset: Dataset) -> None:
    cache = tmp_path / "cache"
    sources = Sources(dataset, cache)
    tasks = survey(dataset, cache, sources)
    fill(dataset, cache, tasks)
    rewrite(dataset.video_root / "a")
    learn_sources(sources, cache, tasks)
    sources.remember()
    with pytest.raises(FingerprintMismatch, match="'a'"):
        run(dataset, cache)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text(path.read_text()[3:])])
def test_the_memory_may_be_deleted_or_damaged(
    tmp_path: Path,
    dataset: Dataset,
    hashed: list[str],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    run(dataset, tmp_path / "cache")
    path = tmp_path / "cache" / FILE_NAME
    before = path.read_bytes()
    damage(path)
    with caplog.at_level(logging.WARNING, "extract"):
        assert run(dataset, tmp_path / "cache") == set()
    assert ("is damaged: the videos are read again" in caplog.text) == (len(caplog.records) > 0)
    assert sorted(hashed) == ["a", "b", "c"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("error", [PermissionError("read-only"), StorageError("read-only")])
def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run(dataset, tmp_path / "cache")
    (tmp_path / "cache" / FILE_NAME).unlink()

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(atomic, "write_json", refuse)
    sources = Sources(dataset, tmp_path / "cache")
    assert survey(dataset, tmp_path / "cache", sources) == []
    sources.remember()


def test_two_runs_keep_what_each_has_found(tmp_path: Path, dataset: Dataset) -> None:
    first, second = (SourceMemory(tmp_path, dataset.video_root) for _ in range(2))
    assert first.sha256_of("a") == source_identity(dataset.video_root / "a")[1]
    second.sha256_of("b")
    first.save()
    second.save()
    assert set(atomic.read_json(tmp_path / FILE_NAME)["videos"]) == {"a", "b"}


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def test_only_paths_that_lead_outside_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    (root / "deep").mkdir(parents=True)
    (root / "a").write_bytes(b"1")
    (tmp_path / "secret").write_bytes(b"2")
    (tmp_path / "videos-of-others").mkdir()
    link(tmp_path / "rebound", root)
    link(root / "deep" / "inside", Path("../a"))
    link(root / "loop", Path("loop"))
    for name in ("a", "deep/inside", "not there", "loop", "deep/../a"):
        check_inside(root / name, root)
        check_inside(root / name, tmp_path / "rebound")
        check_inside(tmp_path / "rebound" / name, root)
    link(root / "away", tmp_path / "secret")
    link(root / "folder", tmp_path / "videos-of-others")
    link(root / "dangling", tmp_path / "nowhere")
    for path in (root / "away", root / "folder" / "x", root / "dangling", root / "../secret", tmp_path / "secret"):
        with pytest.raises(VideoError, match="--allow-outside") as caught:
            check_inside(path, root)
        assert caught.value.code == FailureCode.OUTSIDE_ROOT
    with pytest.raises(VideoError, match=f"leads to {tmp_path / 'secret'}, outside the videos' folder {root}"):
        check_inside(root / "away", root)


def test_the_decode_process_refuses_and_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(b"no video" * 10)
    link(tmp_path / "videos" / "away", tmp_path / "secret")
    dataset = make_dataset(tmp_path / "videos", [Clip(id="x", video="away", start_seconds=1.0, end_seconds=2.0)])
    task = ShardTask(number=0, missing={"frames": frozenset("x")})
    settings = PrepareSettings(
        sampling=Sampling(num_frames=2), decoding=DecodingConfig(), frames=FramesConfig(), encoder=None
    )
    codes = []
    for allow_outside in (True, False):
        (job,) = video_jobs(dataset, [task], allow_outside=allow_outside)
        if not allow_outside:
            monkeypatch.setattr(Path, "open", None)
            monkeypatch.setattr(os, "open", None)
        (clip,) = prepare_video(job, settings, lambda: None)
        assert clip.failure is not None
        assert clip.provenance is not None
        assert clip.provenance.start_seconds == 1.0
        codes.append(clip.failure.code)
    assert codes == [FailureCode.NOT_A_VIDEO, FailureCode.OUTSIDE_ROOT]


def test_a_refused_clip_is_done_until_it_is_allowed_or_a_file(tmp_path: Path, hashed: list[str]) -> None:
    cache = tmp_path / "cache"
    (tmp_path / "elsewhere").write_bytes(b"1")
    link(tmp_path / "videos" / "a", tmp_path / "elsewhere")
    dataset = make_dataset(tmp_path / "videos", [Clip(id="a", video="a")])
    (task,) = survey(dataset, cache, Sources(dataset, cache))
    collector = Collector(cache, MARKS, {0: task}, {"a": 0})
    collector.add("frames", ClipRows.failed("a", Failure(code=FailureCode.OUTSIDE_ROOT, message="leads to")))
    assert survey(dataset, cache, Sources(dataset, cache)) == []
    assert survey(dataset, cache, Sources(dataset, cache, allow_outside=True)) == [task]
    (tmp_path / "videos" / "a").unlink()
    (tmp_path / "videos" / "a").write_bytes(b"1")
    assert survey(dataset, cache, Sources(dataset, cache)) == [task]
    assert hashed == []


def test_rows_of_a_video_outside_stay_done_and_it_is_not_read(tmp_path: Path, hashed: list[str]) -> None:
    (tmp_path / "elsewhere").write_bytes(b"1")
    link(tmp_path / "videos" / "a", tmp_path / "elsewhere")
    dataset = make_dataset(tmp_path / "videos", [Clip(id="a", video="a")])
    run(dataset, tmp_path / "cache")
    (tmp_path / "cache" / FILE_NAME).unlink()
    assert run(dataset, tmp_path / "cache") == set()
    assert hashed == []


def test_a_folder_of_links_is_refused_before_it_becomes_failures(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"1")
    for name in "ab":
        link(tmp_path / "videos" / name, tmp_path / "elsewhere")
    dataset = make_dataset(tmp_path / "videos", [Clip(id=name, video=name) for name in "abc"])
    tasks = [ShardTask(number=0, missing={"frames": frozenset("abc")})]
    with pytest.raises(ManifestError, match=rf"{tmp_path}/videos/a leads to {tmp_path}/elsewhere, .*--allow-outside"):
        check_some_video_exists(dataset, tasks)
    check_some_video_exists(dataset, [])
    check_some_video_exists(dataset, tasks, allow_outside=True)
    (tmp_path / "videos" / "c").write_bytes(b"1")
    check_some_video_exists(dataset, tasks)


def test_videos_are_sorted_into_present_missing_and_outside(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    (root / "a").write_bytes(b"1")
    link(root / "b", tmp_path / "elsewhere")
    dataset = make_dataset(root, [Clip(id=name, video=name[0]) for name in ("a", "a2", "b", "c")])
    assert video_files(dataset) == VideoFiles(present=(root / "a",), missing=(root / "c",), outside=(root / "b",))
    allowed = video_files(dataset, allow_outside=True)
    assert allowed == VideoFiles(present=(root / "a",), missing=(root / "b", root / "c"), outside=())
