"""A tiny dataset, cache and configuration that the tests of training share."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cache import fingerprint
from cache.manifest import Dataset
from cache.plan import Plan
from cache.rows import ClipRows
from cache.run import Run
from cache.shard import write_shard
from cache.store import FeatureStore
from tests.toys import PROVENANCE, toy_cache, toy_dataset, toy_fingerprint
from train.config import AugmentConfig, OptimizerConfig, TrainConfig, VideoEncoderConfig
from train.loop import train
from train.models.cmdcl import CMDCLConfig
from train.trainer import Trainer

ENCODER = VideoEncoderConfig(
    pretrained="none", image_size=16, resize=16, patch_size=8, width=16, depth=2, heads=2, drop_path=0.1
)
HEADS = CMDCLConfig(dim=16, sta_layers=1, sta_heads=2, qformer_heads=2, qformer_ffn=32)


def tiny_config(*, frozen: bool = False, **changes: Any) -> TrainConfig:  # noqa: ANN401 (fields of TrainConfig)
    """Three epochs of a model of a few thousand parameters; dropout, drop path and augmentation are on."""
    defaults: dict[str, Any] = {
        "task": "activity",
        "num_frames": 4,
        "epochs": 3,
        "batch_size": 3,
        "optimizer": OptimizerConfig(learning_rate=1e-2),
        "video_encoder": replace(ENCODER, frozen=frozen),
        "augment": AugmentConfig(),
        "cmdcl": HEADS,
    }
    return TrainConfig(**(defaults | changes))


def write_toys(folder: Path, *, num_clips: int = 12) -> Dataset:
    """`folder/dataset` and `folder/cache`, with frames, visual prompts and text."""
    dataset = toy_dataset(num_clips)
    dataset.write(folder / "dataset")
    add_frames(toy_cache(folder / "cache", dataset))
    return dataset


class Stopped(BaseException):
    """Stands for a stop from outside: no code of ours catches it."""


def stop_after(folder: Path, config: TrainConfig, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run named `stopped` that was stopped after some steps."""
    plain, left = Trainer._step, iter(range(steps))

    def step(*arguments: Any) -> None:  # noqa: ANN401
        if next(left, None) is None:
            raise Stopped
        plain(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", step)
        with pytest.raises(Stopped):
            run_training(folder, config, name="stopped")
    assert Run.open(folder / "stopped").info.status == "running"


def picture_rows(clip_id: str, *, num_frames: int = 8, height: int = 24, width: int = 32) -> ClipRows:
    """Real JPEGs of smooth noise, a function of the clip's id alone, at the instants of its visual prompts."""
    generator = np.random.default_rng([7, *clip_id.encode()])
    jpegs = []
    for coarse in generator.integers(0, 256, (num_frames, 3, 4, 3), dtype=np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
        jpegs.append(buffer.getvalue())
    return ClipRows(
        clip_id=clip_id,
        fields={"jpeg": jpegs},
        pts_seconds=np.arange(num_frames) / 8.0,
        frame_index=np.arange(num_frames, dtype=np.int64),
        provenance=PROVENANCE,
    )


def add_frames(cache: Path, *, num_frames: int = 8) -> None:
    """Adds the `frames` stream to a cache that `toy_cache` made; shards that are there stay."""
    mark = toy_fingerprint("frames", num_frames=num_frames)
    fingerprint.ensure(cache / "frames", mark)
    for number, clip_ids in Plan.load(cache).shards.items():
        if not (cache / "frames" / f"shard-{number:05d}.json").exists():
            rows = [picture_rows(clip_id, num_frames=num_frames) for clip_id in clip_ids]
            write_shard(cache / "frames", number, "frames", rows, fingerprint=mark)


def run_training(
    folder: Path,
    config: TrainConfig,
    *,
    name: str = "run",
    dataset: Dataset | None = None,
    tensorboard: bool = False,
    progress: bool = False,
) -> Run:
    """Trains on the toys under `folder` into `folder/<name>`."""
    return train(
        dataset or Dataset.read(folder / "dataset"),
        folder / "dataset",
        folder / "cache",
        folder / name,
        config,
        recipe="toy",
        tensorboard=tensorboard,
        progress=progress,
    )


def weights_of(run: Run) -> Mapping[str, torch.Tensor]:
    """The tensors of the last checkpoint."""
    (path,) = (run.path / "checkpoints").glob("last-*.safetensors")
    return load_file(path)


def open_store(folder: Path) -> FeatureStore:
    """The toys' cache."""
    return FeatureStore.open(folder / "cache")
