"""A tiny dataset, cache and configuration that the tests of training share."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cache.manifest import Dataset
from cache.run import Run
from cache.store import FeatureStore
from tests.toys import add_toy_frames, toy_cache, toy_dataset
from train.config import AugmentConfig, OptimizerConfig, TrainConfig, VideoEncoderConfig
from train.loop import train
from train.models.cmdcl import CMDCLConfig

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
    add_toy_frames(toy_cache(folder / "cache", dataset))
    return dataset


def run_training(folder: Path, config: TrainConfig, *, name: str = "run", dataset: Dataset | None = None) -> Run:
    """Trains on the toys under `folder` into `folder/<name>`."""
    return train(
        dataset or Dataset.read(folder / "dataset"),
        folder / "dataset",
        folder / "cache",
        folder / name,
        config,
        recipe="toy",
        progress=False,
    )


def weights_of(run: Run) -> Mapping[str, torch.Tensor]:
    """The tensors of the last checkpoint."""
    from safetensors.torch import load_file

    (path,) = (run.path / "checkpoints").glob("last-*.safetensors")
    return load_file(path)


def open_store(folder: Path) -> FeatureStore:
    """The toys' cache."""
    return FeatureStore.open(folder / "cache")
