"""What a cache holds already: refused where it is of something else, made again where it is gone, never lost."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cache.errors import CorruptShard, FingerprintMismatch
from cache.manifest import Clip, Dataset
from cache.shard import write_shard
from cache.sidecar import SidecarClip, read_sidecar
from cache.store import FeatureStore
from extract.config import ExtractConfig
from extract.extractor import extract
from extract.shards.committed import clip_rows
from extract.sources.sources import Sources
from tests.extract.kitchen import contents
from tests.extract.videos import make_video

CONFIG = ExtractConfig(streams=("frames",), num_frames=2)


def make_small_dataset(folder: Path) -> Dataset:
    """Two videos, a file that is none, and one that is not there."""
    folder.mkdir()
    for seed, name in enumerate("ab"):
        make_video(folder / f"{name}.mp4", num_frames=12, seed=seed)
    (folder / "text.mp4").write_text("no video")
    clips = tuple(Clip(id=name, video=f"{name}.mp4") for name in ("a", "b", "gone", "text"))
    return Dataset(name="small", version="1", tasks=(), protocols={}, clips=clips, video_root=folder)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_small_dataset(tmp_path / "videos")


@pytest.fixture
def cache(tmp_path: Path, dataset: Dataset) -> Path:
    extract(dataset, tmp_path / "cache", CONFIG)
    return tmp_path / "cache"


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_span(dataset: Dataset, clip_id: str, start: float, end: float) -> Dataset:
    spanned = replace(dataset.clip(clip_id), start_seconds=start, end_seconds=end)
    return replace(dataset, clips=tuple(spanned if clip.id == clip_id else clip for clip in dataset.clips))


def test_another_video_under_the_same_id_is_refused(cache: Path, dataset: Dataset) -> None:
    before = files(cache)
    make_video(dataset.video_root / "a.mp4", num_frames=30, seed=9)
    with pytest.raises(FingerprintMismatch, match=r"'a': the cache has a video of \d+ bytes, a.mp4 has \d+\n"):
        extract(dataset, cache, CONFIG)
    assert files(cache) == before


def change_content(path: Path) -> None:
    """Another video of the same size, as far as anybody who asks for sizes can tell."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)


def test_another_video_of_the_same_size_is_refused_and_refused_again(cache: Path, dataset: Dataset) -> None:
    before = files(cache)
    change_content(dataset.video_root / "a.mp4")
    for _ in range(2):
        with pytest.raises(FingerprintMismatch, match=r"'a': a.mp4 has other content than .*\n.* --overwrite"):
            extract(dataset, cache, CONFIG)
    assert files(cache) == before


def test_another_span_under_the_same_id_is_refused(cache: Path, dataset: Dataset) -> None:
    changed = with_span(dataset, "b", 0.1, 0.3)
    with pytest.raises(FingerprintMismatch, match=r"'b': the cache has 0 s to the end, .* 0.1 s to 0.3 s\n.*other ids"):
        extract(changed, cache, CONFIG)


def test_rows_stay_done_when_their_video_is_gone_or_the_start_is_spelled_out(cache: Path, dataset: Dataset) -> None:
    (dataset.video_root / "a.mp4").unlink()
    spelled = replace(dataset, clips=tuple(replace(clip, start_seconds=0.0) for clip in dataset.clips))
    assert extract(spelled, cache, CONFIG).already_done


def test_a_failure_of_another_file_or_span_is_no_answer_and_is_made_again(cache: Path, dataset: Dataset) -> None:
    make_video(dataset.video_root / "text.mp4", num_frames=12)
    assert extract(dataset, cache, CONFIG).num_clips_decoded == 1
    assert "text" in FeatureStore.open(cache).frames
    other_span = with_span(dataset, "gone", 0.0, 1.0)
    assert extract(other_span, cache, CONFIG).num_clips_decoded == 1
    assert extract(other_span, cache, CONFIG).already_done


def test_failed_rows_remember_span_and_source(tmp_path: Path, dataset: Dataset) -> None:
    extract(with_span(dataset, "text", 0.5, 1.0), tmp_path / "cache", CONFIG)
    sidecar = read_sidecar(tmp_path / "cache" / "frames", 0)
    assert sidecar is not None
    rows = {clip.id: clip for clip in sidecar.clips}
    assert (rows["text"].start_seconds, rows["text"].end_seconds) == (0.5, 1.0)
    assert (rows["text"].source_size, len(rows["text"].source_sha256)) == (8, 64)
    assert (rows["gone"].source_size, rows["gone"].source_sha256) == (0, "")
    assert rows["a"].source_size == (dataset.video_root / "a.mp4").stat().st_size


def test_every_video_is_asked_once_and_ten_clips_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v.mp4").write_bytes(b"12345")
    clips = tuple(Clip(id=f"{number:02d}", video="v.mp4") for number in range(13))
    sources = Sources(
        Dataset(name="d", version="1", tasks=(), protocols={}, clips=clips, video_root=tmp_path), tmp_path
    )
    asked: list[Path] = []
    stat = Path.stat

    def counting(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        asked.append(path)
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", counting)
    for clip in clips:
        assert sources.is_done(SidecarClip(id=clip.id, num_rows=1, crc32=0, source_size=7), retry_failed=False)
    monkeypatch.undo()
    assert len(asked) == 1
    with pytest.raises(FingerprintMismatch, match=r"'09': .*\n  \.\.\. and 3 more"):
        sources.refuse_foreign_rows()


def test_rows_of_two_fingerprints_are_never_merged(cache: Path, dataset: Dataset) -> None:
    (cache / "frames" / "fingerprint.json").unlink()
    before = files(cache)
    make_video(dataset.video_root / "gone.mp4", num_frames=12)
    for retry in (False, True):
        with pytest.raises(FingerprintMismatch, match="shard 0 was made with other settings"):
            extract(dataset, cache, replace(CONFIG, num_frames=3), retry_failed=retry)
    assert files(cache) == before


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_a_shard_whose_file_is_gone_or_cut_is_made_again(
    cache: Path, dataset: Dataset, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    expected = contents(cache)
    (shard,) = (cache / "frames").glob("*.h5")
    damage(shard)
    with caplog.at_level(logging.WARNING, "extract"):
        assert extract(dataset, cache, CONFIG).num_clips_decoded == len(dataset.clips)
    assert "the shard is made again" in caplog.text
    assert contents(cache) == expected


def test_a_damaged_row_does_not_get_a_fresh_checksum(cache: Path, dataset: Dataset) -> None:
    (shard,) = (cache / "frames").glob("*.h5")
    jpeg = bytes(FeatureStore.open(cache).frames["a"][0])
    content = bytearray(shard.read_bytes())
    content[content.find(jpeg) + len(jpeg) // 2] ^= 0xFF
    shard.write_bytes(content)
    before = files(cache)
    make_video(dataset.video_root / "gone.mp4", num_frames=12)
    with pytest.raises(CorruptShard, match="does not match its sha256"):
        extract(dataset, cache, CONFIG, retry_failed=True)
    assert files(cache) == before


def test_a_shard_that_is_read_and_written_again_is_the_same_file(cache: Path) -> None:
    folder = cache / "frames"
    before = read_sidecar(folder, 0)
    assert before is not None
    mark = FeatureStore.open(cache).frames.fingerprint
    assert write_shard(folder, 0, "frames", clip_rows(folder, before), fingerprint=mark) == before


class Killed(BaseException):
    """Unlike an error, nobody cleans up after it."""


def test_a_kill_at_any_write_of_a_retry_leaves_the_old_rows_or_the_new_ones(
    cache: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = contents(cache)
    make_video(dataset.video_root / "gone.mp4", num_frames=12)
    sync, seen = os.fsync, []
    for last in range(1, 20):
        calls = iter(range(1, last))

        def dying(descriptor: int, calls: Iterator[int] = calls) -> None:
            if next(calls, None) is None:
                raise Killed
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", dying)
        try:
            extract(dataset, cache, CONFIG, retry_failed=True)
            break
        except Killed:
            seen.append(contents(cache))
        finally:
            monkeypatch.undo()
        assert len(FeatureStore.open(cache).frames["a"]) == 2
    new = contents(cache)
    assert new != old
    assert len(FeatureStore.open(cache).frames["gone"]) == 2
    assert seen[:2] == [old, old]
    assert all(content in (old, new) for content in seen)
