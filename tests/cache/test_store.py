import pickle
from pathlib import Path

import numpy as np
import pytest

from cache import fingerprint
from cache.errors import CacheError, FailedClip, FailureCode, MissingClip
from cache.rows import ClipRows, Failure
from cache.shard import write_shard
from cache.store import FeatureStore, StreamReader
from tests.toys import frame_rows, toy_cache, toy_dataset, toy_fingerprint, visual_prompt_rows


@pytest.fixture
def reader(tmp_path: Path) -> StreamReader:
    """Twelve clips of 8 rows in three shards."""
    return FeatureStore.open(toy_cache(tmp_path, toy_dataset())).visual_prompts


def write_stream(folder: Path, *rows: ClipRows, stream: str = "visual_prompts") -> StreamReader:
    mark = toy_fingerprint(stream)
    fingerprint.ensure(folder, mark)
    write_shard(folder, 0, stream, rows, fingerprint=mark)
    return StreamReader(folder)


def expected(clip_id: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    return np.asarray(visual_prompt_rows(clip_id).fields["visual_prompts"])


def test_a_batch_is_the_rows_of_its_clips_in_their_order_out_of_any_shard(reader: StreamReader) -> None:
    ids = ["clip-011", "clip-000", "clip-007", "clip-000"]
    for _ in range(2):  # the second time from what is remembered
        batch = reader.batch(ids)
        assert batch.dtype == np.float16
        np.testing.assert_array_equal(batch, np.stack([expected(clip_id) for clip_id in ids]))
    np.testing.assert_array_equal(reader.batch(["clip-003"]), expected("clip-003")[None])


def test_a_batch_is_a_copy_and_may_be_copied_into_an_array_at_hand(reader: StreamReader) -> None:
    out = np.zeros((2, 8, 16), np.float16)
    assert reader.batch(["clip-004", "clip-001"], out=out) is out
    np.testing.assert_array_equal(out[1], expected("clip-001"))
    reader.batch(["clip-001"])[:] = 0
    np.testing.assert_array_equal(reader["clip-001"], expected("clip-001"))


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((3, 8, 16), np.float16),
        np.zeros((2, 8, 16), np.float32),
        np.zeros((2, 16, 8), np.float16).transpose(0, 2, 1),
    ],
    ids=["shape", "dtype", "strides"],
)
def test_an_array_that_does_not_fit_is_refused(
    reader: StreamReader, out: np.ndarray[tuple[int, ...], np.dtype[np.float16]]
) -> None:
    with pytest.raises(ValueError, match=r"expected float16 \(2, 8, 16\), C-contiguous"):
        reader.batch(["clip-004", "clip-001"], out=out)


def test_clips_of_different_lengths_are_no_batch(tmp_path: Path) -> None:
    rows = [visual_prompt_rows(name, num_frames=count) for name, count in (("a", 4), ("b", 6), ("c", 4))]
    reader = write_stream(tmp_path, *rows)
    for _ in range(2):
        with pytest.raises(CacheError, match="'a' has 4 and 'b' has 6; read such clips one by one"):
            reader.batch(["a", "c", "b"])
    assert reader.batch(["a", "c"]).shape == (2, 4, 16)


def test_a_batch_with_a_clip_that_has_no_rows_says_why(tmp_path: Path) -> None:
    failed = ClipRows.failed("b", Failure(code=FailureCode.TRUNCATED, message="short"))
    reader = write_stream(tmp_path, visual_prompt_rows("a"), failed)
    with pytest.raises(FailedClip, match="short"):
        reader.batch(["a", "b"])
    with pytest.raises(MissingClip, match="no clip 'nobody'"):
        reader.batch(["a", "nobody"])


def test_only_a_stream_of_one_array_has_batches(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 clips of 'frames'"):
        write_stream(tmp_path, frame_rows("a"), stream="frames").batch(["a"])


def test_no_clip_is_no_batch(reader: StreamReader) -> None:
    with pytest.raises(ValueError, match="0 clips"):
        reader.batch([])


def test_a_view_is_made_once_and_not_handed_to_other_processes(reader: StreamReader) -> None:
    rows = reader["clip-005"]
    assert reader["clip-005"] is rows
    assert not rows.flags.writeable
    reader.batch(list(reader))
    other = pickle.loads(pickle.dumps(reader))
    assert len(pickle.dumps(reader)) < 1000  # a folder, no rows
    np.testing.assert_array_equal(other.batch(["clip-005"])[0], rows)
