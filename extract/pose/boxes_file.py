"""Person boxes that somebody else made: a file with one JSON object per line and clip.

Boxes are in pixels of the source as displayed, `null` where nobody is:

    {"clip": "P03_tea", "boxes": [[12.5, 40, 200, 310, 0.98], null, ...]}
    {"clip": "P04_tea", "frame_index": [0, 10, 20], "boxes": [[12.5, 40, 200, 310, 0.98], ...]}
    {"clip": "P05_tea", "boxes": [[[12.5, 40, 200, 310, 0.98], [300, 50, 400, 290, 0.91]], [], null, ...]}

The first form gives a box for each frame of the video file from its first one; the second for some of its frames. Then
a frame between two listed ones with a box, at most 10 frames apart, gets the interpolated box (marked as such); all
others have nobody. In the third, which may have a `frame_index` too, at least one frame has a list of people. An empty
list is nobody, as `null` is, and does not make a line the third form.

Why a list changes what the whole line means: one box per frame is somebody's decision about who matters, and is taken
as it stands, at any score. Lists are a detector's output, and the main person is found in them as in a detector's.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cache.errors import ConfigError, FailureCode, VideoError
from cache.manifest import Clip
from extract.config import PoseConfig
from extract.pose.boxes import FROM_FILE, MAX_GAP_FRAMES, Boxes, Floats, Frames, Sightings
from extract.pose.tracking import follow

_A_BOX = "an entry of boxes is null, five finite numbers x1, y1, x2, y2, score, or a list of such fives"


@dataclass(frozen=True, kw_only=True)
class ListedClip:
    """Boxes of one clip as the file lists them, n in m frames: two arrays, as a file may list millions of frames."""

    frame_index: Frames
    """(m,) frames of the video file, ascending."""
    boxes: Floats
    """(n, 5) x1 y1 x2 y2 score."""
    counts: npt.NDArray[np.int64]
    """(m,) boxes of each frame; 0 where nobody is."""
    is_sparse: bool
    """True if the line has a frame_index."""
    has_choice: bool
    """True if a frame has a list of boxes, so that somebody has to choose."""

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> Self:
        """One line of the file.

        Raises:
            ValueError, TypeError, KeyError: not of the format.
        """
        given = entry["boxes"]
        people = [_people(boxes) for boxes in given]
        boxes = np.array([box for listed in people for box in listed], np.float32).reshape(-1, 5)
        if not np.isfinite(boxes).all() or (boxes[:, 2:4] <= boxes[:, :2]).any():
            raise ValueError(f"{_A_BOX} with x1 < x2 and y1 < y2")
        if (boxes[:, 4] <= 0).any():
            raise ValueError("a box has a score of 0 or less; write null where nobody is")
        is_sparse = "frame_index" in entry
        index = np.array(entry["frame_index"] if is_sparse else range(len(people)), dtype=np.int64)
        if len(index) != len(people) or (np.diff(index) <= 0).any() or (index < 0).any():
            raise ValueError(f"{len(people)} boxes need as many ascending frame indices, not {len(index)}")
        counts = np.array([len(listed) for listed in people], np.int64)
        has_choice = any(listed and _is_list_of_boxes(listed) for listed in given)
        return cls(frame_index=index, boxes=boxes, counts=counts, is_sparse=is_sparse, has_choice=has_choice)

    @property
    def sightings(self) -> Sightings:
        """The one person that the line is about, where it leaves no choice."""
        rows = np.full((len(self.counts), 5), np.nan, np.float32)
        rows[self.counts == 1] = self.boxes
        return Sightings(frames=self.frame_index, boxes=rows)

    def near(self, frame_index: Frames, margin: int) -> tuple[list[Floats], Frames]:
        """People of the listed frames that lie among these frames, or so near that a box reaches over."""
        first, last = (frame_index.min(), frame_index.max()) if len(frame_index) else (0, -1)
        chosen = np.flatnonzero((self.frame_index > first - margin) & (self.frame_index < last + margin))
        people = np.split(self.boxes, np.cumsum(self.counts)[:-1])
        return [people[row] for row in chosen], self.frame_index[chosen]


def boxes_from_file(config: PoseConfig, clip: Clip, height: int, width: int, frame_index: Frames) -> Boxes:
    """The boxes of one clip, as the configured file has them.

    Args:
        config: names the file, and says whom to follow where it lists several people.
        clip: its id is looked up.
        height: of the source as displayed, in pixels.
        width: of the source as displayed, in pixels.
        frame_index: (F,) index of each frame in the video file.

    Raises:
        ConfigError: the file is absent or not of the format.
        VideoError: the file does not know the clip, ends before it does, or its boxes lie outside of the frame.
    """
    path = Path(config.boxes_file).expanduser()
    listed = _look_up(path, clip, frame_index)
    if listed.has_choice:
        candidates, frames = listed.near(frame_index, config.max_gap)
        _check_inside(np.concatenate([np.zeros((0, 5)), *candidates])[:, :4], clip, height, width)
        return follow(candidates, frames, frame_index, height, width, config, source=FROM_FILE)
    boxes = Boxes.between(listed.sightings, frame_index, max_gap=MAX_GAP_FRAMES, source=FROM_FILE)
    _check_inside(boxes.xyxy[boxes.present], clip, height, width)
    return boxes


def has_choice(path: Path) -> bool:
    """True if the file lists several people in a frame of any clip, so that settings of the choice have an effect.

    Raises:
        ConfigError: as `read_boxes_file`.
    """
    return any(listed.has_choice for listed in read_boxes_file(path).values())


def read_boxes_file(path: Path) -> Mapping[str, ListedClip]:
    """All clips of a file of boxes; parsed once per process and content.

    Raises:
        ConfigError: unreadable, or not of the format; names the line.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"extract.pose.boxes_file = {str(path)!r} cannot be read: {error.strerror}") from error
    return _parse_file(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _parse_file(path: Path, _size: int, _mtime: int) -> Mapping[str, ListedClip]:
    clips: dict[str, ListedClip] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                name = entry["clip"]
                if name in clips:
                    raise ValueError(f"the clip {name!r} stands in an earlier line too")
                clips[name] = ListedClip.parse(entry)
            except (ValueError, TypeError, KeyError) as error:
                raise ConfigError(
                    f"{path}, line {number}: {error!r}. A line is "
                    '{"clip": ID, "boxes": [[x1, y1, x2, y2, score] or null, ...]} with an optional "frame_index"; '
                    "a frame with several people has a list of boxes"
                ) from error
    return clips


def _people(given: Any) -> list[list[float]]:  # noqa: ANN401 (any JSON value)
    """Boxes of one frame's entry; a box of four numbers would otherwise become four people."""
    boxes = [] if given is None else given if _is_list_of_boxes(given) else [given]
    for box in boxes:
        if not (isinstance(box, list) and len(box) == 5 and all(type(value) in (int, float) for value in box)):
            raise ValueError(f"{_A_BOX}; not {json.dumps(given)[:80]}")
    return boxes


def _is_list_of_boxes(given: Any) -> bool:  # noqa: ANN401 (any JSON value)
    return isinstance(given, list) and all(isinstance(box, list) for box in given)


def _look_up(path: Path, clip: Clip, frame_index: Frames) -> ListedClip:
    listed = read_boxes_file(path).get(clip.id)
    if listed is None:
        raise VideoError(FailureCode.NO_BOXES, f"{path} has no line for the clip {clip.id!r}")
    if not listed.is_sparse and frame_index.max(initial=-1) >= len(listed.counts):
        raise VideoError(
            FailureCode.NO_BOXES,
            f"{path} lists {len(listed.counts)} frames of {clip.id!r}, but frame {frame_index.max()} of the video is "
            "needed (counted from 0); list every frame, with null where nobody is",
        )
    return listed


def _check_inside(xyxy: npt.NDArray[np.floating], clip: Clip, height: int, width: int) -> None:
    x1, y1, x2, y2 = xyxy.T
    outside = (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height)
    if outside.any():
        raise VideoError(
            FailureCode.NO_BOXES,
            f"{int(outside.sum())} boxes of {clip.id!r} lie outside of its {width} x {height} frame, as "
            f"{xyxy[outside][0].tolist()} does; they belong to another size or another clip",
        )
