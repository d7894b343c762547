"""Recipes with models of a few thousand parameters, and short videos to train them on."""

import json
from pathlib import Path

from extract.bench.videos import VideoShape, make_videos
from pipeline.config import Recipe, load_recipe
from tests.extract.kitchen import TINY_CLIP

NUM_CACHED, NUM_FRAMES, NUM_POSE_FRAMES = 8, 2, 4
SHAPE = VideoShape(height=48, width=64, seconds=0.5)


def tiny_videos(folder: Path, count: int = 4) -> list[Path]:
    """Half a second of 64 x 48 each, smaller than the short side of JPEGs, so that these have the video's pixels."""
    return make_videos(folder, count, SHAPE)


def causal_settings(folder: Path, *, frozen: bool = False, **train: str) -> list[str]:
    """`--set` texts for a recipe of CMDCL."""
    look = {"image_size": 16, "resize": 16, "patch_size": 8, "width": 16, "depth": 2, "heads": 2}
    heads = {"dim": 16, "sta_layers": 1, "sta_heads": 2, "qformer_heads": 2, "qformer_ffn": 32}
    values = {f"train.video_encoder.{key}": str(value) for key, value in look.items()}
    values |= {f"train.cmdcl.{key}": str(value) for key, value in heads.items()}
    values |= {"train.video_encoder.frozen": str(frozen).lower(), "train.num_frames": str(NUM_FRAMES)}
    return _settings(folder, values, train)


def pose_settings(folder: Path, **train: str) -> list[str]:
    """`--set` texts for a recipe of PeVL."""
    values = {"train.pevl.clip": str(_clip(folder)), "train.pevl.pose_frames": str(NUM_POSE_FRAMES)}
    values |= {"train.num_frames": str(NUM_FRAMES), "extract.pose.model": "hrnet_w8_tiny"}
    values |= {"extract.pose.boxes": "whole_frame", "extract.pose.batch_size": str(NUM_POSE_FRAMES)}
    values |= {"extract.pose.input_height": "64", "extract.pose.input_width": "64"}
    return _settings(folder, values, train)


def causal_recipe(folder: Path, *, frozen: bool = False, **train: str) -> Recipe:
    """CMDCL on Breakfast, made tiny. train: keys of [train]."""
    return load_recipe("cmdcl-breakfast-activity", causal_settings(folder, frozen=frozen, **train))


def pose_recipe(folder: Path, **train: str) -> Recipe:
    """PeVL on Diving48, made tiny. train: keys of [train], with __ for a dot."""
    return load_recipe("pevl-diving48-b16", pose_settings(folder, **train))


def _settings(folder: Path, values: dict[str, str], train: dict[str, str]) -> list[str]:
    values |= {"extract.image_encoder.model": str(_clip(folder)), "extract.num_frames": str(NUM_CACHED)}
    values |= {"train.precision": "fp32", "train.batch_size": "3", "train.accumulate": "1"}
    values |= {f"train.{key.replace('__', '.')}": value for key, value in train.items()}
    return [f"{key}={value}" for key, value in values.items()]


def _clip(folder: Path) -> Path:
    path = folder / "tiny-clip.json"
    path.write_text(json.dumps(TINY_CLIP))
    return path
