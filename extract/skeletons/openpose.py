"""JSON files of OpenPose's `--write_json`: one per frame, of the models BODY_25 and COCO (18 joints).

    <folder>/<video>_000000000012_keypoints.json       {"people": [{"pose_keypoints_2d": [x0, y0, score0, x1, ...]}]}

A folder may hold one clip or many, in sub-folders or side by side: a clip is what has the same name in the same
folder, and is called by that name or by its folder. Frames without anybody have an empty list. A missing joint is 0, 0,
0. Both models become the 17 joints of COCO; neck, hips' middle and feet are left out.

The decision to question: coordinates are taken for pixels of the video, as OpenPose writes them by default. Those of
`--keypoint_scale 3` or `4` lie between -1 and 1 and are refused; sizes of 1 and 2 cannot be told from the files.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import ConfigError
from cache.skeletons import COCO_17
from extract.skeletons.json_files import numbers, read_object
from extract.skeletons.people import FoundPeople, files_sha256, unusable

BODY_25 = (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11)
"""For each joint of COCO-17, its place in BODY_25."""
COCO_18 = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
"""The same for COCO with a neck."""
_ORDERS = {75: BODY_25, 54: COCO_18}
"""By the length of a person's list."""
_NAME = re.compile(r"(?:(?P<clip>.*)_)?(?P<frame>\d+)_keypoints\.json", re.DOTALL)
_DIGITS_OF_VIDEO = 12

_Frames = dict[int, Path]


class OpenposeFolder:
    """A folder of JSON files, at any depth."""

    format = "openpose"
    skeleton = COCO_17

    def __init__(self, path: Path) -> None:
        self._root = path
        found = [file for file in path.rglob("*_keypoints.json") if _NAME.fullmatch(file.name)] if path.is_dir() else []
        if not found:
            raise ConfigError(f"{path} is no folder with files like clip_000000000000_keypoints.json")
        self._clips = _by_clip(found)
        self._names = _by_name(self._clips, path)

    @functools.cached_property
    def sha256(self) -> str:
        """Of names and contents."""
        return files_sha256(self._root, [path for frames in self._clips.values() for path in frames.values()])

    @property
    def names(self) -> Collection[str]:
        """Of clips and, where a folder holds one clip, of folders."""
        return self._names.keys()

    def read(self, name: str) -> FoundPeople:
        """All frames of a clip; see SkeletonFile.

        Raises:
            ConfigError: the coordinates are not in pixels.
        """
        key, *others = self._names[name]
        if others:
            raise unusable(f"{self._root} has several clips called {name!r}, as in {key[0]} and in {others[0][0]}")
        paths = _in_order(self._clips[key])
        people = [(number, joints) for number, path in enumerate(paths) for joints in _people(path)]
        joints = np.stack([joints for _, joints in people]) if people else np.zeros((0, COCO_17.num_joints, 3))
        present = joints[joints[..., 2] > 0]
        if len(present) and np.abs(present[:, :2]).max() <= 1:
            raise ConfigError(
                f"{paths[0].parent}: all coordinates of {name!r} lie between -1 and 1: they are normalised, and the "
                "size of the video is not in the files. Write them in pixels, with --keypoint_scale 0"
            )
        return FoundPeople.of(len(paths), [number for number, _ in people], joints[..., :2], joints[..., 2])


def _by_clip(files: list[Path]) -> Mapping[tuple[Path, str], _Frames]:
    """Folder and name of a clip -> its files by frame number."""
    clips: defaultdict[tuple[Path, str], _Frames] = defaultdict(dict)
    for path in files:
        match = _NAME.fullmatch(path.name)
        assert match is not None
        frames = clips[path.parent, match["clip"] or ""]
        number = int(match["frame"])
        if number in frames:
            raise ConfigError(f"{path} and {frames[number].name} are both frame {number}")
        frames[number] = path
    return dict(clips)


def _by_name(clips: Mapping[tuple[Path, str], _Frames], root: Path) -> Mapping[str, list[tuple[Path, str]]]:
    """A clip's own name; of a folder with one clip also the folder's name and path."""
    in_folder: defaultdict[Path, list[tuple[Path, str]]] = defaultdict(list)
    names: defaultdict[str, list[tuple[Path, str]]] = defaultdict(list)
    for key in clips:
        in_folder[key[0]].append(key)
        names[key[1]].append(key)
    for folder, keys in in_folder.items():
        if len(keys) == 1:
            for name in {folder.name, folder.relative_to(root).as_posix()}:
                if keys[0] not in names[name]:
                    names[name].append(keys[0])
    names.pop("", None)
    return dict(names)


def _in_order(frames: _Frames) -> list[Path]:
    """The files of all frames; videos are counted from 0, folders of images from 0 or 1."""
    first, last = min(frames), max(frames)
    counted = len(re.sub(r"_keypoints\.json", "", frames[first].name).rpartition("_")[2]) == _DIGITS_OF_VIDEO
    if first > (0 if counted else 1):
        raise unusable(f"the first file is {frames[first].name}: the frames before it are missing")
    if last - first + 1 != len(frames):
        gap = next(number for number in range(first, last) if number not in frames)
        raise unusable(f"{frames[first].parent} has no file for frame {gap}; a frame without anybody has one too")
    return [frames[number] for number in range(first, last + 1)]


def _people(path: Path) -> list[npt.NDArray[np.float64]]:
    """(17, 3) x, y and score of everybody in a frame."""
    people = read_object(path).get("people")
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise unusable(f"{path} has no list `people`")
    return [_joints(person, path) for person in people]


def _joints(person: dict[str, Any], path: Path) -> npt.NDArray[np.float64]:
    values = person.get("pose_keypoints_2d", person.get("pose_keypoints"))  # the second is of version 0.1
    length = len(values) if isinstance(values, list) else 0
    if length not in _ORDERS:
        raise unusable(f"{path}: a person has {length} numbers; BODY_25 has 75 and COCO 54")
    return numbers(values, length, f"{path}: a person").reshape(-1, 3)[list(_ORDERS[length])]
