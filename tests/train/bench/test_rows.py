from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from cache import fingerprint
from cache.errors import ConfigError, CorruptShard
from cache.shard import write_shard
from cache.store import StreamReader
from tests.toys import toy_fingerprint, visual_prompt_rows
from train.bench.row_files import StoredRows, choose_clips, make_stream, store_rows
from train.bench.row_ways import batch_ways, check_equal, draw_chunks, h5py_slices, single_ways
from train.bench.rows import RowsBench, Timing, bench_rows

CPU = torch.device("cpu")


@pytest.fixture
def stored(tmp_path: Path) -> StoredRows:
    """Twenty made-up clips of (3, 4) in eight shards."""
    reader = make_stream(tmp_path / "stream", num_clips=20, num_frames=3, dim=4)
    return store_rows(reader, choose_clips(reader, 100), tmp_path / "raw")


def test_a_made_up_stream_is_a_real_one_with_the_same_rows_in_the_raw_file(stored: StoredRows) -> None:
    assert len(list(stored.reader.folder.glob("*.h5"))) == 8
    assert stored.raw.shape == (20, 3, 4)
    assert stored.raw.dtype == np.float16
    for number, clip_id in enumerate(stored.clip_ids):
        np.testing.assert_array_equal(stored.raw[number], stored.reader[clip_id])
    assert len(np.unique(stored.raw)) > 200


def test_of_a_cache_those_clips_are_taken_that_have_the_usual_number_of_rows(tmp_path: Path) -> None:
    mark = toy_fingerprint("visual_prompts")
    fingerprint.ensure(tmp_path, mark)
    assert fingerprint.load(tmp_path) == mark
    with pytest.raises(ConfigError, match="no clip with rows"):
        choose_clips(StreamReader(tmp_path), 10)
    rows = [visual_prompt_rows(f"clip-{number}", num_frames=5 if number % 3 else 4) for number in range(9)]
    write_shard(tmp_path, 0, "visual_prompts", rows, fingerprint=mark)
    usual = ("clip-1", "clip-2", "clip-4", "clip-5", "clip-7", "clip-8")
    reader = StreamReader(tmp_path)
    assert choose_clips(reader, 10) == usual
    assert choose_clips(reader, 2) == (usual[0], usual[-1])


def test_chunks_are_a_random_order_without_a_smaller_rest(stored: StoredRows) -> None:
    chunks, others = (draw_chunks(stored.clip_ids, 6, seed=seed) for seed in (0, 1))
    assert [len(chunk.indices) for chunk in chunks] == [6, 6, 6]
    assert len({index for chunk in chunks for index in chunk.indices}) == 18
    assert chunks[0].indices != others[0].indices
    for chunk in chunks:
        assert chunk.numbers.tolist() == chunk.indices
        assert chunk.clip_ids == [stored.clip_ids[index] for index in chunk.indices]


def test_every_way_reads_the_same_rows_and_one_that_does_not_is_noticed(stored: StoredRows) -> None:
    (chunk, *_) = draw_chunks(stored.clip_ids, 6, seed=3)
    with ExitStack() as stack:
        slices = h5py_slices(stored.reader, stack)
        singles, batches = single_ways(stored, slices), batch_ways(stored, slices, CPU)
        assert set(batches) - set(singles) == {"memory_map", "ram"}
        np.testing.assert_array_equal(batches["memmap"](chunk), stored.raw[chunk.numbers])
        np.testing.assert_array_equal(singles["memmap"](chunk), stored.raw[chunk.indices[-1]])
        for ways in (singles, batches):
            check_equal(ways, chunk)
            with pytest.raises(CorruptShard, match="store read other rows than memmap"):
                check_equal({**ways, "store": lambda chunk: stored.raw[chunk.numbers] + 1}, chunk)


def test_a_ratio_is_seconds_of_the_store_over_those_of_the_other_and_medians_are_over_rounds() -> None:
    rounds = tuple(
        {"store": store, "memmap": 2.0, "h5py": 4.0, "ram": 1.0, "dataloader": 8.0} for store in (1.0, 2.0, 4.0)
    )
    timing = Timing(rounds=rounds)
    body = timing.to_json()
    assert [body[f"ratio_to_{other}"] for other in ("memmap", "h5py", "dataloader")] == [1.0, 0.5, 0.25]
    assert body["ratios"]["ratio_to_memmap"] == [0.5, 1.0, 2.0]
    assert body["clips_per_second"] == {"store": 0.5, "memmap": 0.5, "h5py": 0.25, "ram": 1.0, "dataloader": 0.125}
    report = RowsBench(facts={"clips": 7}, single=timing, batches=timing, core_share=0.5).to_json()
    assert (report["clips"], report["core_share"], report["ratio_to_memmap"]) == (7, 0.5, 1.0)
    assert report["batches"]["ratio_to_h5py"] == 0.5
    assert report["batches"]["training"] == {"ram": {"ratio_to_memmap": 0.5, "ratios": [0.5, 0.5, 0.5]}}


def test_all_ways_are_timed_in_every_round_with_workers_that_stay(stored: StoredRows) -> None:
    steps = []
    found = bench_rows(stored, batch_size=6, repeats=2, workers=1, progress=lambda: steps.append(1))
    assert len(steps) == 3  # one to warm up
    assert found.single.ways == ("store", "memmap", "h5py", "dataloader")
    assert found.tables == ("memory_map", "ram")
    for timing in (found.single, found.batches):
        assert [set(seconds) for seconds in timing.rounds] == [set(timing.ways)] * 2
        assert all(spent > 0 for seconds in timing.rounds for spent in seconds.values())
    assert found.facts == {
        "clips": 20,
        "frames": 3,
        "dim": 4,
        "bytes_per_clip": 24,
        "shards": 8,
        "batch_size": 6,
        "repeats": 2,
        "workers": 1,
        "device": "cpu",
    }
    assert 0 < found.core_share <= 1.1
    with pytest.raises(ValueError, match="batches of 21 clips out of 20"):
        bench_rows(stored, batch_size=21)
