"""Skeleton files as other tools write them, of people whose joints are known."""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def walk(num_frames: int, *, num_joints: int = 17, start: tuple[float, float] = (20, 20), seed: int = 0) -> Floats:
    """(T, J, 2) somebody who goes right by two pixels a frame; all places are exact in float16."""
    joints = np.random.default_rng(seed).integers(0, 40, (num_joints, 2)) + np.array(start)
    steps = np.stack([2 * np.arange(num_frames), np.zeros(num_frames)], axis=1)
    return (joints + steps[:, None]).astype(np.float32)


def annotation(name: str, people: Sequence[Floats], **changes: Any) -> dict[str, Any]:  # noqa: ANN401 (keys of it)
    """What mmaction2 writes about people who are there in every frame, with a score of 0.5."""
    xy = np.stack(people).astype(np.float16)
    return {
        "frame_dir": name,
        "total_frames": xy.shape[1],
        "img_shape": (96, 128),
        "original_shape": (96, 128),
        "label": np.int64(0),
        "keypoint": xy,
        "keypoint_score": np.full(xy.shape[:3], 0.5, np.float16),
        **changes,
    }


def compressed(name: str, frames: Sequence[int], joints: Floats, total: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """The compressed form: (N, 17, 2) joints with a score of 0.5, in these frames."""
    rows = np.concatenate([joints, np.full((*joints.shape[:2], 1), 0.5)], axis=2).astype(np.float16)
    inds = np.array(frames, np.int16)
    keys = {"keypoint": rows, "frame_inds": inds, "total_frames": total, "img_shape": (96, 128)}
    return {"frame_dir": name, **keys, **changes}


def write_pickle(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def toyota_person(joints: Floats, **keys: float) -> dict[str, Any]:
    """(13, 2) joints: all x before all y, and a third dimension that nobody reads."""
    return {"pose2d": joints.T.reshape(-1).tolist(), "pose3d": [0.0] * 39, **keys}


def write_toyota(path: Path, frames: Sequence[Sequence[Mapping[str, Any]]]) -> Path:
    path.write_text(json.dumps({"K": 100, "njts": 13, "frames": frames}))
    return path


def write_openpose(folder: Path, clip: str, frames: Sequence[Sequence[Floats]]) -> Path:
    """A file for every frame with its people, each (V, 3) x, y and score."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, people in enumerate(frames):
        body = {
            "version": 1.3,
            "people": [{"person_id": [-1], "pose_keypoints_2d": joints.reshape(-1).tolist()} for joints in people],
        }
        (folder / f"{clip}_{number:012d}_keypoints.json").write_text(json.dumps(body))
    return folder
