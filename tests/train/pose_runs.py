"""A tiny dataset, CLIP, cache and configuration that the tests of PeVL's training share."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from cache import atomic, fingerprint
from cache.fingerprint import Fingerprint
from cache.manifest import Dataset
from cache.plan import Plan
from cache.rows import ClipRows
from cache.run import Run
from cache.shard import write_shard
from tests.toys import joint_rows, toy_dataset, toy_fingerprint, toy_text
from tests.train.runs import add_frames
from tests.train.tiny_clip import ARCHITECTURE, reference, write_model
from train.config import OptimizerConfig, TrainConfig
from train.models.pevl_config import PeVLConfig


def pose_config(folder: Path, **changes: Any) -> TrainConfig:  # noqa: ANN401 (fields of PeVLConfig or TrainConfig)
    """Three epochs of a PeVL of a few thousand parameters: 2 video frames, 4 pose frames of 8 cached ones."""
    ours = {name: changes.pop(name) for name in list(changes) if name in PeVLConfig.__dataclass_fields__}
    defaults: dict[str, Any] = {
        "clip": str(folder / "tiny-clip.json"),
        "pretrained": str(folder / "tiny-clip.safetensors"),
        "pose_frames": 4,
        "crop_area": (0.5, 1.0),
        "drop_path": 0.1,
    }
    settings: dict[str, Any] = {
        "method": "pevl",
        "task": "activity",
        "num_frames": 2,
        "epochs": 3,
        "batch_size": 4,
        "optimizer": OptimizerConfig(name="adamw", learning_rate=1e-3, weight_decay=0.05),
        "pevl": PeVLConfig(**(defaults | ours)),
    }
    return TrainConfig(**(settings | changes))


def write_pose_toys(folder: Path, *, num_clips: int = 12) -> Dataset:
    """`folder/dataset`, `folder/cache` with frames, joints and text, and the CLIP that made the text."""
    dataset = toy_dataset(num_clips)
    dataset.write(folder / "dataset")
    cache = folder / "cache"
    plan = Plan.ensure(cache, [clip.id for clip in dataset.clips], 5)
    add_frames(cache)
    mark = joint_mark()
    fingerprint.ensure(cache / "joints", mark)
    for number, clip_ids in plan.shards.items():
        write_shard(cache / "joints", number, "joints", [moving_joints(clip) for clip in clip_ids], fingerprint=mark)
    write_model(folder)
    save_file(reference().state_dict(), folder / "tiny-clip.safetensors")
    mark = text_mark(folder)
    fingerprint.ensure(cache / "text", mark)
    for task in dataset.tasks:
        replace(toy_text(task, dim=ARCHITECTURE["embed_dim"]), fingerprint=mark).write(cache)
    return dataset


def moving_joints(clip_id: str) -> ClipRows:
    """The toy joints in motion, another one for each clip."""
    rows = joint_rows(clip_id)
    steps = np.random.default_rng([9, *clip_id.encode()]).uniform(0, 4, (rows.num_rows, 1, 2))
    xy = np.asarray(rows.fields["xy"]) + steps.cumsum(axis=0)
    return replace(rows, fields={**rows.fields, "xy": xy.astype(np.float32)})


def joint_mark() -> Fingerprint:
    """As extraction would write it."""
    mark = toy_fingerprint("joints")
    return replace(mark, model={**mark.model, "skeleton": "coco_17"})


def text_mark(folder: Path) -> Fingerprint:
    """As extraction would write it for the CLIP in `folder`."""
    model = {
        "name": "tiny-clip",
        "weights": atomic.sha256_file(folder / "tiny-clip.safetensors"),
        "quick_gelu": True,
        "embed_dim": ARCHITECTURE["embed_dim"],
        "architecture": json.loads(json.dumps(ARCHITECTURE)),
    }
    return Fingerprint(stream="text", dtype="float32", model=model)


def logits_table(folder: Path, run: str, split: str = "test") -> np.ndarray[Any, np.dtype[np.float32]]:
    """The logits that a run wrote."""
    return Run.open(folder / run).predictions(split).logits
