import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache import fingerprint
from cache.array_file import Array
from cache.comparison import CacheComparison, compare
from cache.errors import CacheError, CorruptShard, FailureCode
from cache.plan import Plan
from cache.rows import ClipRows, Failure
from cache.shard import write_shard
from tests.toys import (
    ACTIVITY,
    frame_rows,
    joint_rows,
    toy_cache,
    toy_dataset,
    toy_fingerprint,
    toy_text,
    visual_prompt_rows,
)

CLIPS = ("a", "b", "c")
MAKERS: dict[str, Callable[[str], ClipRows]] = {
    "visual_prompts": visual_prompt_rows,
    "frames": frame_rows,
    "joints": joint_rows,
}
Change = Callable[[ClipRows], ClipRows]


def write_cache(folder: Path, *, stream: str = "visual_prompts", changes: dict[str, Change] | None = None) -> Path:
    """A cache of three clips in one stream; `changes` by clip id."""
    rows = [(changes or {}).get(clip_id, unchanged)(MAKERS[stream](clip_id)) for clip_id in CLIPS]
    mark = toy_fingerprint(stream)
    Plan.ensure(folder, CLIPS, 3)
    fingerprint.ensure(folder / stream, mark)
    write_shard(folder / stream, 0, stream, rows, fingerprint=mark)
    return folder


def unchanged(rows: ClipRows) -> ClipRows:
    return rows


def with_field(name: str, change: Callable[[Array], Array]) -> Change:
    return lambda rows: replace(rows, fields={**rows.fields, name: change(np.array(rows.fields[name]))})


def add(value: float, *at: int) -> Callable[[Array], Array]:
    def change(values: Array) -> Array:
        values[at] += values.dtype.type(value)
        return values

    return change


def differ(tmp_path: Path, change: Change, *, stream: str = "visual_prompts", atol: float = 0.0) -> CacheComparison:
    """Compares a cache with one whose clip `b` is changed."""
    here = write_cache(tmp_path / "here", stream=stream)
    there = write_cache(tmp_path / "there", stream=stream, changes={"b": change})
    return compare(here, there, atol=atol)


def test_a_copy_is_equal_bit_by_bit_in_every_stream(tmp_path: Path) -> None:
    here = toy_cache(tmp_path / "here", toy_dataset())
    for stream in ("joints", "frames"):
        write_cache(here, stream=stream)
    shutil.copytree(here, tmp_path / "there")
    found = compare(here, tmp_path / "there")
    assert found.problems == []
    assert {name: (stream.num_compared, stream.num_equal) for name, stream in found.streams.items()} == {
        "frames": (3, 3),
        "joints": (3, 3),
        "text": (2, 2),
        "visual_prompts": (12, 12),
    }


def test_the_cut_into_shards_is_no_difference(tmp_path: Path) -> None:
    caches = [toy_cache(tmp_path / str(size), toy_dataset(), shard_size=size) for size in (1, 5)]
    assert compare(caches[0], caches[1]).problems == []


def test_the_greatest_difference_names_its_clip_and_counts_against_atol(tmp_path: Path) -> None:
    here = write_cache(tmp_path / "here")
    changes = {
        "a": with_field("visual_prompts", lambda values: values * 0 + np.float16(1)),
        "b": with_field("visual_prompts", add(0.25, 2, 3)),
    }
    base = {"a": changes["a"]}
    small = write_cache(tmp_path / "small", changes=base | {"b": with_field("visual_prompts", lambda values: values)})
    assert compare(small, small).problems == []
    ones = write_cache(tmp_path / "ones", changes=base)
    nearly = {"a": with_field("visual_prompts", lambda values: values * 0 + np.float16(1.5)), "b": changes["b"]}
    there = write_cache(tmp_path / "there", changes=nearly)
    found = compare(ones, there, atol=0.3).streams["visual_prompts"]
    assert found.worst is not None
    assert (found.worst[0], found.worst[1].clip_id, found.worst[1].value) == ("visual_prompts", "a", 0.5)
    assert (found.num_compared, found.num_equal) == (3, 1)
    assert found.problems == ["visual_prompts differs by 0.5 (atol 0.3) in clip 'a'; 2 clips differ"]
    assert compare(ones, there, atol=0.5).problems == []
    assert compare(here, there, atol=0.5).problems != []


def test_a_missing_joint_equals_a_missing_joint_and_nothing_else(tmp_path: Path) -> None:
    same = differ(tmp_path / "1", with_field("xy", add(0.125, 0, 0, 0)), stream="joints", atol=0.2)
    assert same.problems == []
    assert same.streams["joints"].differences["xy"].value == 0.125

    def lose(rows: ClipRows) -> ClipRows:
        xy, score = np.array(rows.fields["xy"]), np.array(rows.fields["score"])
        xy[0, 0], score[0, 0] = np.nan, 0
        return replace(rows, fields={**rows.fields, "xy": xy, "score": score})

    lost = differ(tmp_path / "2", lose, stream="joints", atol=1000)
    assert len(lost.problems) == 1
    assert "xy differs by more than a number can say" in lost.problems[0]


def test_whole_numbers_must_be_equal_whatever_atol(tmp_path: Path) -> None:
    found = differ(tmp_path, with_field("track_id", add(1, 0)), stream="joints", atol=1000)
    assert "track_id differs" in found.problems[0]


@pytest.mark.parametrize("name", ["pts_seconds", "frame_index"])
def test_times_and_frame_numbers_must_be_equal_whatever_atol(tmp_path: Path, name: str) -> None:
    def shift(rows: ClipRows) -> ClipRows:
        return replace(rows, **{name: getattr(rows, name) + 1})

    found = differ(tmp_path, shift, atol=1000)
    assert found.problems == ["visual_prompts: 1 clip (b) with other times or frames"]
    assert found.streams["visual_prompts"].num_equal == 2


def test_clips_that_one_side_lacks_or_that_failed_there_are_named(tmp_path: Path) -> None:
    failure = Failure(code=FailureCode.CORRUPT, message="frame 3")
    found = differ(tmp_path / "1", lambda rows: ClipRows.failed(rows.clip_id, failure))
    assert found.problems == ["visual_prompts: 1 clip (b (ok, there corrupt)) with another status"]
    fewer = differ(tmp_path / "2", lambda rows: visual_prompt_rows(rows.clip_id, num_frames=5))
    assert fewer.problems == ["visual_prompts: 1 clip (b (8, there 5)) with another number of rows"]
    other = differ(tmp_path / "3", lambda _: visual_prompt_rows("new"))
    assert other.problems == [
        "visual_prompts: 1 clip (b) only here",
        "visual_prompts: 1 clip (new) only in the other cache",
    ]


def test_jpegs_are_compared_by_bytes_and_by_pixels_if_they_can_be_unpacked(tmp_path: Path) -> None:
    def other(rows: ClipRows) -> ClipRows:
        return replace(rows, fields={"jpeg": [b"x" * 17, *list(rows.fields["jpeg"])[1:]]})

    here, there = write_cache(tmp_path / "1", stream="frames"), tmp_path / "2"
    write_cache(there, stream="frames", changes={"c": other})
    found = compare(here, there, atol=255)
    assert "jpeg differs by more than a number can say (atol 255) in clip 'c'; 1 clips differ" in found.problems[0]

    def unpack(jpeg: bytes) -> Array:
        return np.array([len(jpeg)], np.uint8)  # the toy's JPEGs have 11 bytes

    assert compare(here, there, atol=6, unpack_jpeg=unpack).problems == []
    assert compare(here, there, atol=5, unpack_jpeg=unpack).problems != []


def test_text_embeddings_are_compared_by_task_and_prompts(tmp_path: Path) -> None:
    caches = []
    for seed in (0, 1):
        folder = toy_cache(tmp_path / str(seed), toy_dataset())
        text = toy_text(ACTIVITY, name="toy-clip")
        replace(text, sentence=text.sentence + np.float32(seed * 0.5)).write(folder)
        caches.append(folder)
    found = compare(caches[0], caches[1]).streams["text"]
    assert (found.num_compared, found.num_equal) == (2, 1)
    assert found.worst is not None
    assert found.worst[0] == "sentence"
    assert found.worst[1].value == pytest.approx(0.5, abs=1e-6)
    toy_text(replace(ACTIVITY, prompts=("a", "b", "c")), name="toy-clip").write(caches[0])
    assert "1 clip (activity (3 prompts" in compare(caches[0], caches[1], atol=1).problems[0]


def test_settings_that_differ_are_listed_and_are_no_problem(tmp_path: Path) -> None:
    here, there = write_cache(tmp_path / "here"), tmp_path / "there"
    mark = toy_fingerprint("visual_prompts", name="another")
    Plan.ensure(there, CLIPS, 3)
    fingerprint.ensure(there / "visual_prompts", mark)
    write_shard(there / "visual_prompts", 0, "visual_prompts", [*map(visual_prompt_rows, CLIPS)], fingerprint=mark)
    found = compare(here, there)
    assert found.problems == []
    assert 'model.name: the cache has "toy-visual_prompts", the other "another"' in found.to_text()


def test_a_stream_of_one_side_only_is_a_problem(tmp_path: Path) -> None:
    here, there = write_cache(tmp_path / "here"), write_cache(tmp_path / "there")
    write_cache(there, stream="joints")
    assert compare(here, there).problems == ["stream joints is only in the other cache"]
    assert compare(there, here).problems == ["stream joints is only here"]


def test_the_report_is_json_also_where_a_difference_is_no_number(tmp_path: Path) -> None:
    found = differ(tmp_path, with_field("track_id", add(1, 0)), stream="joints")
    body = json.loads(json.dumps(found.to_json(), allow_nan=False))
    stream = body["streams"]["joints"]
    assert (stream["differences"], stream["worst_clip"]) == ({"track_id": None}, "b")
    assert body["problems"] == found.problems
    assert "3 compared, 2 equal bit by bit" in found.to_text()


def test_a_folder_that_is_no_cache_and_a_damaged_shard_are_refused(tmp_path: Path) -> None:
    here, there = write_cache(tmp_path / "here"), write_cache(tmp_path / "there")
    with pytest.raises(CacheError, match="is not a cache"):
        compare(here, tmp_path / "nowhere")
    next((there / "visual_prompts").glob("*.h5")).write_bytes(b"")
    with pytest.raises(CorruptShard):
        compare(here, there)
