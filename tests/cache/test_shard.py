import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import atomic, fingerprint
from cache.errors import CorruptShard, FailedClip, FailureCode, FingerprintMismatch, MissingClip
from cache.rows import ClipRows, Failure
from cache.shard import clip_digests, read_shard, sweep, write_shard
from cache.sidecar import read_sidecar, sidecars
from cache.store import FeatureStore, StreamReader
from tests.toys import PROVENANCE, toy_cache, toy_dataset, toy_fingerprint, visual_prompt_rows

FAILED = ClipRows.failed("broken", Failure(code=FailureCode.CORRUPT, message="frame 3 of 80 cannot be decoded"))


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    """A visual_prompts stream of one shard: three clips of different length and a failed one."""
    folder = tmp_path / "visual_prompts"
    mark = toy_fingerprint("visual_prompts")
    fingerprint.ensure(folder, mark)
    rows = [visual_prompt_rows(name, num_frames=count) for name, count in (("c", 3), ("a", 8), ("b", 1))]
    write_shard(folder, 0, "visual_prompts", [*rows, FAILED], fingerprint=mark)
    return folder


def test_rows_come_back_by_clip_id_with_their_times(stream: Path) -> None:
    reader = StreamReader(stream)
    expected = visual_prompt_rows("c", num_frames=3)
    np.testing.assert_array_equal(reader["c"], expected.fields["visual_prompts"])
    np.testing.assert_array_equal(reader.pts_seconds("c"), expected.pts_seconds)
    assert [reader.num_rows(name) for name in "abc"] == [8, 1, 3]
    assert reader.provenance("b") == PROVENANCE


def test_rows_are_read_only_views_of_the_file(stream: Path) -> None:
    row = StreamReader(stream)["a"]
    assert not row.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        row[0] = 0


def test_a_failed_clip_says_why_and_an_unknown_one_what_to_do(stream: Path) -> None:
    reader = StreamReader(stream)
    with pytest.raises(FailedClip, match=r"corrupt \(frame 3 of 80"):
        reader["broken"]
    with pytest.raises(MissingClip, match="deconfound extract"):
        reader["nowhere"]
    assert reader.failures["broken"].code == FailureCode.CORRUPT


def test_a_shard_where_every_clip_failed_can_be_read(tmp_path: Path) -> None:
    mark = toy_fingerprint("joints")
    fingerprint.ensure(tmp_path, mark)
    write_shard(tmp_path, 0, "joints", [FAILED], fingerprint=mark)
    reader = StreamReader(tmp_path)
    assert len(reader) == 0
    assert "broken" in reader.failures


def test_jpegs_come_back_byte_for_byte(tmp_path: Path) -> None:
    mark = toy_fingerprint("frames")
    fingerprint.ensure(tmp_path, mark)
    blobs = [b"first", b"", b"third jpeg"]
    rows = ClipRows(
        clip_id="a", fields={"jpeg": blobs}, pts_seconds=np.arange(3.0), frame_index=np.arange(3), provenance=None
    )
    write_shard(tmp_path, 0, "frames", [rows, FAILED], fingerprint=mark)
    assert [bytes(blob) for blob in StreamReader(tmp_path)["a"]] == blobs


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_never_committed(tmp_path: Path, value: float) -> None:
    rows = visual_prompt_rows("a")
    np.asarray(rows.fields["visual_prompts"])[2, 3] = value
    with pytest.raises(ValueError, match="'a': visual_prompts holds NaN"):
        write_shard(tmp_path, 0, "visual_prompts", [rows], fingerprint=toy_fingerprint("visual_prompts"))
    assert read_sidecar(tmp_path, 0) is None


def test_joints_must_be_nan_exactly_where_the_score_is_zero(tmp_path: Path) -> None:
    fields: dict[str, np.ndarray[Any, Any]] = {
        "xy": np.zeros((1, 2, 2), np.float32),
        "score": np.array([[0.5, 0.0]], np.float32),
        "valid": np.ones(1, np.uint8),
        "box": np.ones((1, 4), np.float32),
        "box_score": np.ones(1, np.float32),
        "track_id": np.zeros(1, np.int32),
        "box_source": np.ones(1, np.uint8),
    }
    rows = ClipRows(clip_id="a", fields=fields, pts_seconds=np.zeros(1), frame_index=np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="NaN exactly where score is 0"):
        write_shard(tmp_path, 0, "joints", [rows], fingerprint=toy_fingerprint("joints"))
    fields["xy"][0, 1] = np.nan
    write_shard(tmp_path, 0, "joints", [rows], fingerprint=toy_fingerprint("joints"))


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    mark = toy_fingerprint("visual_prompts")
    rows = [visual_prompt_rows("a"), visual_prompt_rows("b")]
    first = write_shard(tmp_path / "1", 0, "visual_prompts", rows, fingerprint=mark)
    second = write_shard(tmp_path / "2", 0, "visual_prompts", rows[::-1], fingerprint=mark)
    assert first == second


def test_a_shard_made_again_replaces_the_old_one(stream: Path) -> None:
    before, early = StreamReader(stream), StreamReader(stream)
    assert before["a"].shape == (8, 16)
    again = [
        visual_prompt_rows(name, num_frames=count) for name, count in (("c", 3), ("a", 8), ("b", 1), ("broken", 2))
    ]
    write_shard(stream, 0, "visual_prompts", again, fingerprint=toy_fingerprint("visual_prompts"))
    assert len(list(stream.glob("*.h5"))) == 2
    assert early["a"].shape == (8, 16)
    sweep(stream)
    assert len(list(stream.glob("*.h5"))) == 2, "a young file may be another worker's"
    sweep(stream, min_age_seconds=0)
    assert len(list(stream.glob("*.h5"))) == 1
    assert "broken" in StreamReader(stream)
    np.testing.assert_array_equal(before["b"], visual_prompt_rows("b", num_frames=1).fields["visual_prompts"])


def test_a_reader_opened_before_a_shard_was_made_again_finds_the_new_file(stream: Path) -> None:
    reader = StreamReader(stream)
    rows = [visual_prompt_rows(name, num_frames=count, seed=1) for name, count in (("c", 3), ("a", 8), ("b", 1))]
    write_shard(stream, 0, "visual_prompts", [*rows, FAILED], fingerprint=toy_fingerprint("visual_prompts"))
    sweep(stream, min_age_seconds=0)
    np.testing.assert_array_equal(reader["a"], visual_prompt_rows("a", seed=1).fields["visual_prompts"])


def test_two_writers_of_one_shard_leave_a_shard_that_is_whole(stream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = toy_fingerprint("visual_prompts")
    write_json = atomic.write_json

    def other_writer_comes_between(path: Path, body: dict[str, Any]) -> None:
        monkeypatch.setattr(atomic, "write_json", write_json)
        write_shard(stream, 0, "visual_prompts", [visual_prompt_rows("a", seed=5)], fingerprint=mark)
        write_json(path, body)

    monkeypatch.setattr(atomic, "write_json", other_writer_comes_between)
    write_shard(stream, 0, "visual_prompts", [visual_prompt_rows("a", seed=6)], fingerprint=mark)
    np.testing.assert_array_equal(StreamReader(stream)["a"], visual_prompt_rows("a", seed=6).fields["visual_prompts"])


@pytest.mark.parametrize("again", [False, True], ids=["first time", "made again"])
def test_a_writer_stopped_at_any_step_leaves_the_old_shard_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    mark = toy_fingerprint("visual_prompts")
    rows = [visual_prompt_rows("a"), visual_prompt_rows("b")]
    for step in range(100):
        folder = tmp_path / str(step)
        fingerprint.ensure(folder, mark)
        if again:
            write_shard(folder, 0, "visual_prompts", rows[:1], fingerprint=mark)
        stopped = _stop_at(step, monkeypatch)
        with contextlib.suppress(InterruptedError):
            write_shard(folder, 0, "visual_prompts", rows, fingerprint=mark)
        monkeypatch.undo()
        visible = StreamReader(folder)
        assert visible.clip_ids in ((("a",),) if again else ((),)) + (("a", "b"),)
        for sidecar in sidecars(folder):
            assert set(clip_digests(folder, sidecar)) == set(visible.clip_ids)
        if not stopped():
            assert visible.clip_ids == ("a", "b")
            assert step > 5
            return
    pytest.fail("the writer never came to its end")


def _stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Every open for writing, fsync and replace counts; the one numbered `step` and all later ones raise."""
    count = iter(range(10**6))
    reached = []

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            if next(count) >= step:
                reached.append(True)
                raise InterruptedError("stopped here")
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(atomic, "_write_temporary", counted(atomic._write_temporary))
    return lambda: bool(reached)


def test_any_flipped_bit_of_a_shard_is_found(stream: Path) -> None:
    path = next(stream.glob("shard-00000-*.h5"))
    image = path.read_bytes()
    sidecar = read_sidecar(stream, 0)
    assert sidecar is not None
    generator = random.Random(0)
    for _ in range(200):
        position, bit = generator.randrange(len(image)), generator.randrange(8)
        damaged = bytearray(image)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(CorruptShard):
            clip_digests(stream, sidecar)


def test_any_truncation_of_a_shard_is_found_at_opening(stream: Path) -> None:
    path = next(stream.glob("shard-00000-*.h5"))
    image = path.read_bytes()
    sidecar = read_sidecar(stream, 0)
    assert sidecar is not None
    for length in range(0, len(image), 997):
        path.write_bytes(image[:length])
        with pytest.raises(CorruptShard, match="bytes"):
            read_shard(stream, sidecar)


def test_a_shard_without_a_sidecar_does_not_exist(stream: Path) -> None:
    (stream / "shard-00000.json").unlink()
    assert len(StreamReader(stream)) == 0


def test_an_edited_sidecar_is_refused(stream: Path) -> None:
    path = stream / "shard-00000.json"
    path.write_text(path.read_text().replace('"num_rows": 8', '"num_rows": 7'))
    with pytest.raises(CorruptShard, match="its own sha256"):
        StreamReader(stream)


def test_other_settings_are_refused_with_each_difference(stream: Path) -> None:
    with pytest.raises(FingerprintMismatch, match=r"sampling\.num_frames: the cache has 8, asked for 16"):
        fingerprint.ensure(stream, toy_fingerprint("visual_prompts", num_frames=16))


def test_a_store_names_its_random_weights(tmp_path: Path) -> None:
    notices = FeatureStore.open(toy_cache(tmp_path / "cache", toy_dataset())).notices
    assert any("visual_prompts" in notice and "random weights" in notice for notice in notices)
