"""Runs of PeVL as files: cached tokens, precision, recomputed blocks, weights that moved, runs that were refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cache import atomic, fingerprint
from cache.errors import CacheError, ConfigError, WeightsError
from cache.manifest import Dataset
from cache.plan import Plan
from cache.shard import write_shard
from tests.toys import joint_rows, toy_text
from tests.train.pose_runs import joint_mark, pose_config, text_mark, write_pose_toys
from tests.train.runs import run_training, weights_of
from tests.train.tiny_clip import ARCHITECTURE, reference
from train.config import TrainConfig
from train.experiment import Experiment
from train.methods.pevl import PeVLMethod
from train.predict import predict

CPU = torch.device("cpu")
FROZEN: dict[str, Any] = {"adapters": (), "p2v": "off", "v2p": False, "fusion": "concat"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pose_toys(tmp_path)
    return tmp_path


def open_experiment(folder: Path, config: TrainConfig) -> Experiment:
    return Experiment.open(Dataset.read(folder / "dataset"), folder / "cache", config, splits=("train", "test"))


def token_folder(folder: Path, **changes: Any) -> Path:  # noqa: ANN401 (fields of PeVLConfig)
    method = open_experiment(folder, pose_config(folder, **FROZEN, **changes)).method
    assert isinstance(method, PeVLMethod)
    assert method.token_cache is not None
    return method.token_cache.folder


@pytest.mark.parametrize("changes", [{}, {"encoders": ("video", "pose"), "adapters": ("video", "pose")}])
def test_a_batch_without_negatives_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    """Also without text: the refinement loss contrasts clips, too."""
    with pytest.raises(ValueError, match=r"batch_size = 1.*give 2 or more"):
        pose_config(folder, batch_size=1, **changes)
    with pytest.raises(ValueError, match="accumulate = 2"):
        pose_config(folder, accumulate=2, **changes)


def test_cached_tokens_of_other_towers_or_views_are_not_taken(folder: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"video_temporal": True}, {"crops": 1}, {"pose_frames": 8}]
    assert len({token_folder(folder, **change) for change in changes}) == 4
    assert token_folder(folder, tau=0.02) == token_folder(folder)


def test_without_adapters_frames_are_read_where_tokens_are_not_wanted(folder: Path) -> None:
    experiment = open_experiment(folder, pose_config(folder, **FROZEN, cache_tokens=False))
    batch = next(experiment.sources(CPU, progress=False)["train"].batches([np.arange(3)], 0))
    assert batch.tokens is None
    assert batch.frames is not None


def test_predictions_after_bf16_training_are_fp32_also_of_a_frozen_text_tower(folder: Path) -> None:
    run = run_training(folder, pose_config(folder, precision="bf16", adapters=("video", "pose")))
    found = run.predictions("test").logits
    (again,) = predict(run.path)
    np.testing.assert_array_equal(again.logits, found)


def test_recomputing_blocks_changes_memory_and_not_the_weights(folder: Path) -> None:
    plain = weights_of(run_training(folder, pose_config(folder), name="plain"))
    again = weights_of(run_training(folder, pose_config(folder, gradient_checkpointing=True), name="again"))
    assert plain.keys() == again.keys()
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_a_run_is_predicted_from_another_folder_and_with_weights_that_moved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    config = pose_config(folder, clip="./tiny-clip.json", pretrained="./tiny-clip.safetensors")
    before = run_training(folder, config).predictions("test").logits
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(predict(folder / "run")[0].logits, before)
    (folder / "tiny-clip.safetensors").rename(folder / "moved.safetensors")
    with pytest.raises(WeightsError, match=r"train\.pevl\.pretrained"):
        predict(folder / "run")
    moved = pose_config(folder, pretrained=str(folder / "moved.safetensors"))
    np.testing.assert_allclose(predict(folder / "run", config=moved)[0].logits, before, atol=1e-6)
    with pytest.raises(ConfigError, match="only these may be set"):
        predict(folder / "run", config=pose_config(folder, crops=1))


def test_a_skeleton_without_a_mirror_image_is_refused_and_leaves_no_run(folder: Path) -> None:
    other = replace(joint_mark(), model={**joint_mark().model, "skeleton": "octopus"})
    joints = folder / "cache" / "joints"
    for path in joints.iterdir():
        path.unlink()
    fingerprint.ensure(joints, other)
    for number, clip_ids in Plan.load(folder / "cache").shards.items():
        write_shard(joints, number, "joints", [joint_rows(clip_id) for clip_id in clip_ids], fingerprint=other)
    with pytest.raises(CacheError, match="octopus"):
        run_training(folder, pose_config(folder))
    assert not (folder / "run").exists()


def test_weights_of_another_width_are_refused_before_a_run_is_made(folder: Path) -> None:
    """A file of another model under the configuration of the cache, whose digest the cache has too."""
    wide = reference(ARCHITECTURE | {"vision_cfg": ARCHITECTURE["vision_cfg"] | {"width": 64}})
    save_file(wide.state_dict(), folder / "tiny-clip.safetensors")
    for path in (folder / "cache" / "text").iterdir():
        path.unlink()
    for task in Dataset.read(folder / "dataset").tasks:
        replace(toy_text(task, dim=ARCHITECTURE["embed_dim"]), fingerprint=text_mark(folder)).write(folder / "cache")
    atomic.write_json(
        folder / "cache" / "text" / "fingerprint.json", json.loads(json.dumps(text_mark(folder).to_json()))
    )
    with pytest.raises(WeightsError, match="width 64"):
        run_training(folder, pose_config(folder))
    assert not (folder / "run").exists()
