"""CLIP alone: matches of cached prompts and texts, by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from cache.manifest import Dataset
from cache.store import FeatureStore
from pipeline.study.clip_alone import clip_alone
from tests.train.runs import run_training, tiny_config, write_toys


def test_clip_alone_scores_the_same_videos_by_cosines_of_the_frames_that_a_class_chooses(tmp_path: Path) -> None:
    write_toys(tmp_path)
    config = tiny_config(frozen=True, task="atomic", epochs=1)
    predictions = run_training(tmp_path, config).predictions("test")
    store, dataset = FeatureStore.open(tmp_path / "cache"), Dataset.read(tmp_path / "dataset")
    task = dataset.task("atomic")
    sharp = replace(config, cmdcl=replace(config.cmdcl, tau_t=1e-4))
    found = clip_alone(store, task, predictions, sharp)
    assert found.clip_ids == predictions.clip_ids
    assert found.run_name == "CLIP alone"
    np.testing.assert_array_equal(found.targets, predictions.targets)
    text = store.text(task).sentence
    frames = np.asarray(store.visual_prompts[predictions.clip_ids[1]], dtype=np.float32)
    unit_text, unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (text, frames))
    cosines = unit[[1, 3, 5, 7]] @ unit_text.T  # the centres of four segments of eight instants
    np.testing.assert_allclose(found.logits[1], cosines.max(axis=0), atol=1e-4)
