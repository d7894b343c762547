from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache import fingerprint
from cache.errors import CacheError, ConfigError, CorruptShard, FailureCode
from cache.manifest import Dataset
from cache.rows import ClipRows, Failure
from cache.shard import write_shard
from cache.store import StreamReader
from tests.toys import ACTIVITY, ATOMIC, toy_fingerprint, visual_prompt_rows
from tests.train.runs import open_store, picture_rows, tiny_config, write_toys
from train import frames
from train.clip_set import check_instants, select_clips
from train.config import AugmentConfig, TrainConfig
from train.data import FrameSource, TokenSource
from train.sampling import batches

CPU = torch.device("cpu")


@pytest.fixture
def toys(tmp_path: Path) -> tuple[Path, Dataset]:
    return tmp_path, write_toys(tmp_path)


def write_stream(folder: Path, stream: str, rows: Sequence[ClipRows]) -> StreamReader:
    mark = toy_fingerprint(stream)
    fingerprint.ensure(folder, mark)
    write_shard(folder, 0, stream, rows, fingerprint=mark)
    return StreamReader(folder)


def frame_source(folder: Path, dataset: Dataset, config: TrainConfig) -> FrameSource:
    store = open_store(folder)
    clips = select_clips(dataset, ACTIVITY, "default", "train", (store.visual_prompts, store.frames))
    return FrameSource(clips, config, visual_prompts=store.visual_prompts, frames=store.frames)


def test_unusable_clips_are_skipped_with_their_reason(toys: tuple[Path, Dataset], tmp_path: Path) -> None:
    dataset = toys[1]
    clips = [replace(clip, labels={"atomic": ()}) if clip.id == "clip-001" else clip for clip in dataset.clips]
    reader = write_stream(
        tmp_path / "visual_prompts",
        "visual_prompts",
        [visual_prompt_rows(clip.id) for clip in clips if clip.id not in ("clip-002", "clip-004")]
        + [ClipRows.failed("clip-004", Failure(code=FailureCode.TRUNCATED, message="short"))],
    )
    chosen = select_clips(replace(dataset, clips=tuple(clips)), ACTIVITY, "default", "train", (reader,))
    assert chosen.skipped == {
        "clip-001": "no label for task activity",
        "clip-002": "visual_prompts: not extracted",
        "clip-004": "visual_prompts: truncated",
    }
    assert [clip.id for clip in chosen.clips] == ["clip-005", "clip-007", "clip-008", "clip-010", "clip-011"]
    assert chosen.targets.tolist() == [2, 1, 2, 1, 2]
    assert chosen.groups == {"subject": ("P01", "P01", "P00", "P00", "P01")}


def test_a_clip_labelled_with_no_class_is_used_by_a_multi_label_task(toys: tuple[Path, Dataset]) -> None:
    store = open_store(toys[0])
    chosen = select_clips(toys[1], ATOMIC, "default", "test", (store.visual_prompts,))
    assert chosen.clips[0].labels["atomic"] == ()
    assert chosen.targets[:2].tolist() == [[0, 0, 0, 0], [1, 1, 0, 0]]


def test_a_split_without_a_usable_clip_is_refused_with_the_reasons_counted(toys: tuple[Path, Dataset]) -> None:
    store = open_store(toys[0])
    unlabelled = replace(toys[1], clips=tuple(replace(clip, labels={}) for clip in toys[1].clips))
    with pytest.raises(ConfigError, match=r"no usable clip .*'no label for task activity': 4"):
        select_clips(unlabelled, ACTIVITY, "default", "test", (store.visual_prompts,))


def test_more_frames_than_the_cache_holds_are_refused(toys: tuple[Path, Dataset]) -> None:
    store = open_store(toys[0])
    chosen = select_clips(toys[1], ACTIVITY, "default", "train", (store.visual_prompts,))
    with pytest.raises(ConfigError, match=r"train.num_frames = 9, but the cache holds 8 instants"):
        check_instants(chosen, 9, store.visual_prompts, store.frames)


def test_streams_of_different_instants_are_refused(toys: tuple[Path, Dataset], tmp_path: Path) -> None:
    store = open_store(toys[0])
    chosen = select_clips(toys[1], ACTIVITY, "default", "train", (store.visual_prompts,))
    shifted = [
        replace(rows, frame_index=rows.frame_index + 1) for rows in (picture_rows(clip.id) for clip in chosen.clips)
    ]
    with pytest.raises(CacheError, match="not of the same instants"):
        check_instants(chosen, 4, store.visual_prompts, write_stream(tmp_path / "frames", "frames", shifted))


def test_streams_of_different_videos_are_refused(toys: tuple[Path, Dataset], tmp_path: Path) -> None:
    store = open_store(toys[0])
    chosen = select_clips(toys[1], ACTIVITY, "default", "train", (store.visual_prompts,))
    rows = [picture_rows(clip.id) for clip in chosen.clips]
    assert rows[1].provenance is not None
    rows[1] = replace(rows[1], provenance=replace(rows[1].provenance, source_sha256="f" * 64))
    with pytest.raises(CacheError, match=f"clip '{chosen.clips[1].id}': visual_prompts and frames were made from diff"):
        check_instants(chosen, 4, store.visual_prompts, write_stream(tmp_path / "frames", "frames", rows))


def test_visual_prompts_and_frames_are_taken_at_the_same_instants(
    toys: tuple[Path, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[list[bytes]] = []
    plain = frames.decode

    def recording(jpegs: Sequence[bytes | memoryview]) -> torch.Tensor:
        decoded.append([bytes(jpeg) for jpeg in jpegs])
        return plain(jpegs)

    monkeypatch.setattr("train.read_ahead.num_threads", lambda: 1)
    monkeypatch.setattr(frames, "decode", recording)
    source = frame_source(*toys, tiny_config())
    store = open_store(toys[0])
    for epoch in (None, 0, 1):
        decoded.clear()
        for number, batch in enumerate(source.batches(batches(np.arange(8), 1), epoch)):
            clip_id = source.clip_set.clips[number].id
            jpegs = [bytes(jpeg) for jpeg in store.frames[clip_id]]
            instants = [jpegs.index(jpeg) for jpeg in decoded[number]]
            expected = store.visual_prompts[clip_id][instants].astype(np.float32)
            np.testing.assert_array_equal(batch.visual_prompts[0].numpy(), expected)
            assert epoch is not None or instants == [1, 3, 5, 7]


def test_a_batch_does_not_depend_on_which_clips_are_beside_it_nor_on_threads(toys: tuple[Path, Dataset]) -> None:
    source = frame_source(*toys, tiny_config())
    together = next(source.batches([np.array([3, 0, 5])], 2))
    assert together.frames is not None
    assert together.frames.shape == (3, 4, 3, 16, 16)
    alone = [next(source.batches([np.array([number])], 2)) for number in (3, 0, 5)]
    for position, batch in enumerate(alone):
        assert batch.frames is not None
        assert torch.equal(together.frames[position], batch.frames[0])
        assert torch.equal(together.visual_prompts[position], batch.visual_prompts[0])
        assert together.targets[position] == batch.targets[0]


def test_training_draws_differ_between_epochs_and_the_test_view_is_one(toys: tuple[Path, Dataset]) -> None:
    source = frame_source(*toys, tiny_config())
    first, second, test = (next(source.batches([np.arange(8)], epoch)) for epoch in (0, 1, None))
    again = next(source.batches([np.arange(8)], None))
    assert first.frames is not None
    assert test.frames is not None
    assert again.frames is not None
    assert second.frames is not None
    assert not torch.equal(first.frames, second.frames)
    assert not torch.equal(first.visual_prompts, second.visual_prompts)
    assert torch.equal(test.frames, again.frames)


def test_centre_instants_may_be_asked_for_in_training(toys: tuple[Path, Dataset]) -> None:
    source = frame_source(*toys, tiny_config(augment=AugmentConfig(instants="centre")))
    first, test = (next(source.batches([np.arange(8)], epoch)) for epoch in (0, None))
    assert torch.equal(first.visual_prompts, test.visual_prompts)


def test_a_damaged_jpeg_stops_training_and_names_the_clip(toys: tuple[Path, Dataset], tmp_path: Path) -> None:
    rows = [picture_rows(clip.id) for clip in toys[1].clips]
    rows[1] = replace(rows[1], fields={"jpeg": [b"damaged"] * 8})
    reader = write_stream(tmp_path / "frames", "frames", rows)
    prompts = open_store(toys[0]).visual_prompts
    clips = select_clips(toys[1], ACTIVITY, "default", "train", (prompts,))
    source = FrameSource(clips, tiny_config(), visual_prompts=prompts, frames=reader)
    with pytest.raises(CorruptShard, match="clip-001"):
        list(source.batches([np.array([0, 1])], 0))


def token_source(folder: Path, dataset: Dataset) -> TokenSource:
    """Eight clips, the tokens (4, 6) of clip i being full of i."""
    store = open_store(folder)
    clips = select_clips(dataset, ACTIVITY, "default", "train", (store.visual_prompts,))
    rows = [
        ClipRows(
            clip_id=clip.id,
            fields={"video_tokens": np.full((4, 6), number, np.float32)},
            pts_seconds=np.arange(4.0),
            frame_index=np.array([1, 3, 5, 7]),
        )
        for number, clip in enumerate(clips.clips)
    ]
    tokens = write_stream(folder / "tokens", "video_tokens", rows)
    check_instants(clips, 4, store.visual_prompts, tokens)
    return TokenSource(clips, 4, visual_prompts=store.visual_prompts, video_tokens=tokens, device=CPU)


@pytest.mark.parametrize("loaded", [False, True])
def test_tokens_come_with_the_prompts_of_their_instants_from_disk_and_from_memory(
    toys: tuple[Path, Dataset], loaded: bool
) -> None:
    source = token_source(*toys)
    for table in source.tables(training=True) if loaded else ():
        table.load(CPU)
    pieces = [np.array([5, 2]), np.array([7])]
    batch, last = source.batches(pieces, 0)
    assert batch.frames is None
    assert batch.frame_tokens is not None
    assert batch.frame_tokens[:, 0, 0].tolist() == [5.0, 2.0]
    assert batch.targets.tolist() == source.clip_set.targets[[5, 2]].tolist()
    assert last.targets.tolist() == source.clip_set.targets[[7]].tolist()
    prompts = open_store(toys[0]).visual_prompts[source.clip_set.clips[5].id]
    assert torch.equal(batch.visual_prompts[0], torch.from_numpy(prompts[[1, 3, 5, 7]].astype(np.float32)))


def test_prompts_are_kept_as_the_cache_has_them_and_only_those_of_the_instants(toys: tuple[Path, Dataset]) -> None:
    prompts, tokens = token_source(*toys).tables(training=True)
    assert (prompts.name, prompts.nbytes) == ("visual_prompts", 8 * 4 * 16 * 2)  # clips, instants, width, float16
    assert (tokens.name, tokens.nbytes) == ("video_tokens", 8 * 4 * 6 * 4)


def test_nothing_of_frames_can_live_elsewhere_than_on_disk(toys: tuple[Path, Dataset]) -> None:
    assert not frame_source(*toys, tiny_config()).tables(training=True)


def test_batches_of_few_clips_are_those_of_many(toys: tuple[Path, Dataset]) -> None:
    source = frame_source(*toys, tiny_config())
    pieces = [np.array([number]) for number in (6, 1, 1, 0, 7, 4)]
    together = next(source.batches([np.concatenate(pieces)], 1))
    assert together.frames is not None
    for position, batch in enumerate(source.batches(pieces, 1)):
        assert batch.frames is not None
        assert torch.equal(batch.frames[0], together.frames[position])
        assert torch.equal(batch.targets[0], together.targets[position])
