"""Skeleton files of Toyota-Smarthome, as LCR-Net wrote them: one JSON per clip, 13 joints.

    <clip>.json or <clip>_pose3d.json
    {"njts": 13, "frames": [[{"pose2d": [x0 .. x12, y0 .. y12], "cumscore": 3.1}, ...], [], ...]}

A frame is a list of people, and nobody is an empty one. Coordinates are pixels of 640 x 480. Joints have no scores of
their own, so each is 1. The decision to question: the 13 joints stay 13. Others fill the eyes, ears and nose of COCO
with the head; a pose encoder would learn that faces have no size.
"""

import functools
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import ConfigError
from cache.skeletons import TOYOTA_13
from extract.skeletons.json_files import numbers, read_object
from extract.skeletons.people import FoundPeople, files_sha256, unusable

SIZE = (480, 640)
"""Height and width of the frames that the joints were found in."""
_SUFFIXES = ("_pose3d", "")


class ToyotaFiles:
    """One JSON file, or a folder of them at any depth."""

    format = "toyota"
    skeleton = TOYOTA_13

    def __init__(self, path: Path) -> None:
        self._root = path if path.is_dir() else path.parent
        found = sorted(path.rglob("*.json")) if path.is_dir() else [path] if path.is_file() else []
        if not found:
            raise ConfigError(f"{path} is no JSON file and no folder with some; the format toyota has one per clip")
        self._files: Mapping[str, list[Path]] = _by_name(found)

    @functools.cached_property
    def sha256(self) -> str:
        """Of names and contents."""
        return files_sha256(self._root, [path for paths in self._files.values() for path in paths])

    @property
    def names(self) -> Collection[str]:
        """The files' names without their suffixes."""
        return self._files.keys()

    def read(self, name: str) -> FoundPeople:
        """One file; see SkeletonFile."""
        first, *others = self._files[name]
        if others:
            raise unusable(f"{first} and {others[0]} are both files of {name!r}")
        content = read_object(first)
        frames = content.get("frames")
        if content.get("njts") != TOYOTA_13.num_joints or not isinstance(frames, list) or not frames:
            raise unusable(f"{first} is no list of `frames` with `njts` = 13")
        people = [(number, person) for number, frame in enumerate(frames) for person in _people(frame, number)]
        xy = np.stack([_xy(person, number) for number, person in people]) if people else np.zeros((0, 13, 2))
        return FoundPeople.of(
            len(frames),
            [number for number, _ in people],
            xy,
            np.broadcast_to((xy != 0).any(axis=(1, 2))[:, None], xy.shape[:2]),  # zeros stand for nobody elsewhere too
            confidence=[_confidence(person) for _, person in people],
            size=SIZE,
        )


def _by_name(paths: list[Path]) -> dict[str, list[Path]]:
    named = defaultdict(list)
    for path in paths:
        suffix = next(suffix for suffix in _SUFFIXES if path.stem.endswith(suffix))
        named[path.stem.removesuffix(suffix)].append(path)
    return dict(named)


def _people(frame: Any, number: int) -> list[dict[str, Any]]:  # noqa: ANN401 (any JSON value)
    if not isinstance(frame, list) or not all(isinstance(person, dict) for person in frame):
        raise unusable(f"frame {number} is no list of people")
    return frame


def _xy(person: dict[str, Any], number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(13, 2); in the file all x stand before all y."""
    return numbers(person.get("pose2d"), 2 * TOYOTA_13.num_joints, f"pose2d in frame {number}").reshape(2, -1).T


def _confidence(person: dict[str, Any]) -> float:
    """LCR-Net's score of the person; 1 where a file has none."""
    score = person.get("cumscore", 1.0)
    if type(score) not in (int, float) or not 0 <= score <= sys.float_info.max:
        raise unusable(f"cumscore is {score!r:.40}, not a number from 0 on")
    return float(score)
