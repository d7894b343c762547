"""Whole extractions whose clips share batches: stopped, continued, and cut into other pieces of work."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cache.errors import Stopped
from cache.manifest import Dataset
from cache.rows import ClipRows
from cache.store import FeatureStore
from extract.config import ExtractConfig
from extract.extractor import extract
from extract.products import shared_batches
from extract.products.shared_batches import SharedBatches
from tests.extract.kitchen import FAILURES, contents, make_config, make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def config(dataset: Dataset) -> ExtractConfig:
    """Clips of few frames with somebody in two of three, 64 inputs to a batch."""
    folder = dataset.video_root.parent
    lines = (
        {
            "clip": clip.id,
            "boxes": [None if (frame // 3 + number) % 3 == 0 else [5, 6, 50, 60, 0.9] for frame in range(99)],
        }
        for number, clip in enumerate(dataset.clips)
    )
    (folder / "boxes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = make_config(folder, "frames", "visual_prompts", "joints", batch_size=64, shard_size=50)
    pose = replace(
        config.pose, model="hrnet_w8_tiny", batch_size=64, boxes="file", boxes_file=str(folder / "boxes.jsonl")
    )
    return replace(config, sampling="fps", fps=7.0, pose=pose)


@pytest.mark.slow
def test_a_stopped_run_commits_the_clips_that_wait_for_a_full_batch(
    dataset: Dataset, config: ExtractConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    flush = SharedBatches.flush

    def tell(batches: SharedBatches) -> Iterator[ClipRows]:
        for row in flush(batches):
            flushed.append(row.clip_id)
            yield row

    monkeypatch.setattr(SharedBatches, "flush", tell)
    monkeypatch.setattr(shared_batches, "is_as_fast_with_few", lambda _: False)

    def interrupt(done: int, failed: int, _total: int) -> None:
        if done - failed == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        extract(dataset, tmp_path / "cache", config, workers=1, progress=interrupt)
    assert len(flushed) == 2 * len(set(flushed)) >= 2 * 3  # of both models: without it these clips would be lost
    store = FeatureStore.open(tmp_path / "cache")
    assert 3 <= len(store.frames) < len(dataset.clips) - len(FAILURES)
    assert set(store.frames.clip_ids) == set(store.visual_prompts.clip_ids) == set(store.joints.clip_ids)
    extract(dataset, tmp_path / "cache", config, workers=2)
    extract(dataset, tmp_path / "whole", replace(config, shard_size=3), workers=1)
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")
