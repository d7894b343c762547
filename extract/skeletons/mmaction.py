"""Skeleton pickles of mmaction2 and PySKL: `gym_hrnet.pkl`, `diving48_hrnet.pkl` and what their scripts write.

    {"split": {...}, "annotations": [annotation, ...]}, a list of annotations, or a single one; an annotation is
    {"frame_dir": name, "total_frames": T, "img_shape": (H, W), "keypoint": (M, T, 17, 2), "keypoint_score": (M, T, 17)}
    or, compressed, "keypoint": (N, 17, 3) with "frame_inds": (N,)

Annotations are named by `filename` if the first one has it, else by `frame_dir`, as PySKL's loader does it. Missing
people and frames are zeros with score 0. The person axis follows nobody: row j is the j-th detection of each frame.

The decision to question: `frame_inds` count from 0 as the scripts write them, but from 1 where people have a
`box_score`. So do the published files of Kinetics, whose frames were JPEGs numbered from 1.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache import atomic
from cache.errors import ConfigError
from cache.skeletons import COCO_17
from extract.skeletons.people import FoundPeople, unusable
from extract.skeletons.restricted_pickle import load

_MAX_PEOPLE = 5_000_000
"""Of one clip, over all frames: an array may be mentioned many times in a small file."""
_MAX_FRAMES = 10_000_000
"""Of one clip: more than 46 hours at 60 frames a second."""

_Annotation = Mapping[str, Any]


class MmactionFile:
    """The annotations of one pickle; parsed when the first of them is asked for."""

    format = "mmaction2"
    skeleton = COCO_17

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError(f"{path} is not a file; the format mmaction2 is one pickle (.pkl)")
        self.path = path

    @functools.cached_property
    def sha256(self) -> str:
        """Of the file."""
        return atomic.sha256_file(self.path)

    @property
    def names(self) -> Collection[str]:
        """The annotations' identifiers."""
        return self._annotations.keys()

    def read(self, name: str) -> FoundPeople:
        """One annotation; see SkeletonFile."""
        annotations = self._annotations[name]
        if len(annotations) > 1:
            raise unusable(f"{self.path} has {len(annotations)} annotations named {name!r}")
        annotation = annotations[0]
        if not isinstance(annotation.get("keypoint"), np.ndarray):
            other = "raw_file" in annotation or "frame_inds" in annotation
            hint = "; the published files of Kinetics keep it in other files" if other else ""
            raise unusable(f"the annotation {name!r} of {self.path} has no array `keypoint`{hint}")
        return _compressed(annotation) if "frame_inds" in annotation else _dense(annotation)

    @functools.cached_property
    def _annotations(self) -> Mapping[str, list[_Annotation]]:
        content = load(self.path)
        if isinstance(content, dict):
            content = content.get("annotations", [content])
        found = [entry for entry in content if entry is not None] if isinstance(content, list) else []
        if not found or not all(isinstance(entry, dict) for entry in found):
            raise ConfigError(
                f"{self.path} holds no annotations: a list of dicts, or a dict with the key `annotations`, is expected"
            )
        key = "filename" if "filename" in found[0] else "frame_dir"
        named = defaultdict(list)
        for number, annotation in enumerate(found):
            if not isinstance(annotation.get(key), str):
                raise ConfigError(f"{self.path}: annotation {number} has no text `{key}` that names its clip")
            named[annotation[key]].append(annotation)
        return dict(named)


def _dense(annotation: _Annotation) -> FoundPeople:
    """Arrays with a person axis and a time axis."""
    xy = _numbers(annotation, "keypoint", ("M", "T", COCO_17.num_joints, 2))
    num_people, num_frames = xy.shape[:2]
    if num_frames != _num_frames(annotation):
        raise unusable(f"keypoint has {num_frames} frames, total_frames is {_num_frames(annotation)}")
    if annotation.get("keypoint_score") is None:
        score = (xy != 0).any(axis=-1).astype(np.float32)
    else:
        score = _numbers(annotation, "keypoint_score", (num_people, num_frames, COCO_17.num_joints))
    frame = np.tile(np.arange(num_frames), num_people)
    return FoundPeople.of(
        num_frames, frame, xy.reshape(-1, *xy.shape[2:]), score.reshape(-1, score.shape[2]), size=_size(annotation)
    )


def _compressed(annotation: _Annotation) -> FoundPeople:
    """Arrays with a row for every person of every frame."""
    joints = _numbers(annotation, "keypoint", ("N", COCO_17.num_joints, 3))
    frame = _numbers(annotation, "frame_inds", ("N",)).astype(np.int64)
    confidence = annotation.get("box_score")
    if confidence is not None:
        frame, confidence = frame - 1, _numbers(annotation, "box_score", ("N",))
    if annotation.get("anno_inds") is not None:
        chosen = _numbers(annotation, "anno_inds", ("n",)).astype(np.int64)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(frame):
            raise unusable(f"anno_inds names people outside of the {len(frame)} in frame_inds")
        frame, confidence = frame[chosen], None if confidence is None else confidence[chosen]
        joints = joints[chosen] if len(joints) > len(chosen) else joints
    if not len(joints) == len(frame) == (len(frame) if confidence is None else len(confidence)):
        raise unusable(f"keypoint has {len(joints)} people, frame_inds {len(frame)}")
    return FoundPeople.of(
        _num_frames(annotation),
        frame,
        joints[..., :2],
        joints[..., 2],
        confidence=confidence,
        size=_size(annotation),
    )


def _numbers(annotation: _Annotation, key: str, shape: tuple[int | str, ...]) -> npt.NDArray[Any]:
    """An array of the annotation; letters stand for any length."""
    array = annotation.get(key)
    if not isinstance(array, np.ndarray):
        raise unusable(f"`{key}` is absent, or no array")
    fits = array.ndim == len(shape) and all(
        wanted == given or isinstance(wanted, str) for wanted, given in zip(shape, array.shape, strict=False)
    )
    if not fits:
        expected = ", ".join(map(str, shape))
        raise unusable(f"`{key}` is of shape {array.shape}, expected ({expected}): 17 joints in the order of COCO")
    size = math.prod(max(length, 1) for length in array.shape)  # (0, 2 ** 31 - 1, ...) has no bytes in the file
    if size > _MAX_PEOPLE * COCO_17.num_joints * 3:
        raise unusable(f"`{key}` is of shape {array.shape}, more than can belong to one clip")
    return array


def _num_frames(annotation: _Annotation) -> int:
    count = annotation.get("total_frames")
    if type(count) is not int or count < 1:
        raise unusable(f"total_frames is {count!r:.40}, not a positive number")
    if count > _MAX_FRAMES:
        raise unusable(f"total_frames is {count}, more than can belong to one clip ({_MAX_FRAMES})")
    return count


def _size(annotation: _Annotation) -> tuple[int, int] | None:
    size = annotation.get("img_shape")
    if size is None:
        return None
    if not isinstance(size, tuple | list) or len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise unusable(f"img_shape is {size!r:.40}, not (height, width)")
    return size[0], size[1]
