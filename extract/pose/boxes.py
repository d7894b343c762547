"""Where the person is: the whole frame, or boxes from a file. Nobody there is an answer too.

Why no fallback: other tools take the whole frame when nobody is found and give plausible joints of nobody. Here a
frame without a person stays in its place with NaN, and a clip that the file does not know is a failed clip.

The file has one JSON object per line and clip, in pixels of the source as displayed, `null` where nobody is:

    {"clip": "P03_tea", "boxes": [[12.5, 40, 200, 310, 0.98], null, ...]}
    {"clip": "P04_tea", "frame_index": [0, 10, 20], "boxes": [[12.5, 40, 200, 310, 0.98], ...]}

The first form gives a box for each frame of the video file from its first one; the second for some of its frames. Then
a frame between two listed ones with a box, at most 10 frames apart, gets the interpolated box (marked as such); all
others have nobody.
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

MAX_GAP_FRAMES = 10
"""Farthest listed frames of a sparse file between which a box is interpolated."""
NOBODY, FROM_FILE, WHOLE_FRAME, INTERPOLATED = 0, 1, 2, 4
"""Values of `Boxes.source`, as in the cache's stream of joints; 3 is a detector."""

_A_BOX = "an entry of boxes is null or five finite numbers x1, y1, x2, y2, score"

Floats = npt.NDArray[np.float32]
Frames = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """One box per frame of a clip."""

    xyxy: Floats
    """(F, 4) x1 y1 x2 y2 in source pixels; NaN where nobody is."""
    score: Floats
    """(F,) confidence of the detector; 0 where nobody is."""
    source: npt.NDArray[np.uint8]
    """(F,) 0 none, 1 file, 2 whole frame, 4 interpolated."""

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """(F,) True where there is somebody."""
        return self.source != NOBODY

    @property
    def valid(self) -> npt.NDArray[np.uint8]:
        """(F,) as the cache stores it: 0 nobody, 1 measured, 2 measured in an interpolated box."""
        return np.where(self.source == INTERPOLATED, 2, self.present).astype(np.uint8)

    @property
    def track_id(self) -> npt.NDArray[np.int32]:
        """(F,) 0 for the one person that is followed, -1 where nobody is."""
        return np.where(self.present, 0, -1).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """Boxes of one clip as the file lists them."""

    frame_index: Frames  # (m,) ascending
    boxes: Floats  # (m, 5), NaN for nobody
    is_sparse: bool

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> Self:
        boxes = np.array([_box(given) for given in entry["boxes"]], np.float32).reshape(-1, 5)
        is_sparse = "frame_index" in entry
        index = np.array(entry["frame_index"] if is_sparse else range(len(boxes)), dtype=np.int64)
        if len(index) != len(boxes) or (np.diff(index) <= 0).any() or (index < 0).any():
            raise ValueError(f"{len(boxes)} boxes need as many ascending frame indices, not {len(index)}")
        listed = boxes[~np.isnan(boxes).all(axis=1)]
        if not np.isfinite(listed).all() or (listed[:, 2:4] <= listed[:, :2]).any():
            raise ValueError(f"{_A_BOX} with x1 < x2 and y1 < y2")
        if (listed[:, 4] <= 0).any():
            raise ValueError("a box has a score of 0 or less; write null where nobody is")
        return cls(frame_index=index, boxes=boxes, is_sparse=is_sparse)


def _box(given: Any) -> list[float]:  # noqa: ANN401 (any JSON value)
    """Five numbers; several people of one frame would otherwise become boxes of the next frames."""
    if given is None:
        return [np.nan] * 5
    if isinstance(given, list) and len(given) == 5 and all(type(value) in (int, float) for value in given):
        return given
    raise ValueError(f"{_A_BOX}, for the one person who is followed; not {json.dumps(given)[:80]}")


def boxes_for(config: PoseConfig, clip: Clip, num_frames: int, height: int, width: int, frame_index: Frames) -> Boxes:
    """The boxes of one clip.

    Args:
        config: its `boxes` says where they come from.
        clip: its id is looked up in the file.
        num_frames: F.
        height: of the source as displayed, in pixels.
        width: of the source as displayed, in pixels.
        frame_index: (F,) index of each frame in the video file.

    Raises:
        ConfigError: no source was chosen, or the file is not of the format.
        VideoError: the file does not know the clip, ends before it does, or its boxes lie outside of the frame.
    """
    if len(frame_index) != num_frames:
        raise ValueError(f"{num_frames} frames need as many frame indices, not {len(frame_index)}")
    if config.boxes == "whole_frame":
        return Boxes(
            xyxy=np.tile(np.array([0, 0, width, height], np.float32), (num_frames, 1)),
            score=np.ones(num_frames, np.float32),
            source=np.full(num_frames, WHOLE_FRAME, np.uint8),
        )
    if config.boxes == "file":
        boxes = _boxes_from(Path(config.boxes_file).expanduser(), clip, frame_index)
        _check_inside(boxes, clip, height, width)
        return boxes
    raise ConfigError("joints need person boxes: set extract.pose.boxes to 'whole_frame' or 'file'")


def read_boxes_file(path: Path) -> Mapping[str, _Listed]:
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
def _parse_file(path: Path, _size: int, _mtime: int) -> Mapping[str, _Listed]:
    clips: dict[str, _Listed] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                name = entry["clip"]
                if name in clips:
                    raise ValueError(f"the clip {name!r} stands in an earlier line too")
                clips[name] = _Listed.parse(entry)
            except (ValueError, TypeError, KeyError) as error:
                raise ConfigError(
                    f"{path}, line {number}: {error!r}. A line is "
                    '{"clip": ID, "boxes": [[x1, y1, x2, y2, score] or null, ...]} with an optional "frame_index"'
                ) from error
    return clips


def _boxes_from(path: Path, clip: Clip, frame_index: Frames) -> Boxes:
    listed = read_boxes_file(path).get(clip.id)
    if listed is None:
        raise VideoError(FailureCode.NO_BOXES, f"{path} has no line for the clip {clip.id!r}")
    if not listed.is_sparse and frame_index.max(initial=-1) >= len(listed.boxes):
        raise VideoError(
            FailureCode.NO_BOXES,
            f"{path} lists {len(listed.boxes)} frames of {clip.id!r}, but frame {frame_index.max()} of the video is "
            "needed (counted from 0); list every frame, with null where nobody is",
        )
    rows, source = _look_up(listed, frame_index)
    return Boxes(xyxy=rows[:, :4], score=np.where(source == NOBODY, 0, rows[:, 4]).astype(np.float32), source=source)


def _look_up(listed: _Listed, frame_index: Frames) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """Box and source of each frame: (F, 5), (F,)."""
    rows = np.full((len(frame_index), 5), np.nan, np.float32)
    source = np.full(len(frame_index), NOBODY, np.uint8)
    if not len(listed.boxes):
        return rows, source
    after = np.searchsorted(listed.frame_index, frame_index)
    next_row = np.minimum(after, len(listed.boxes) - 1)
    exact = listed.frame_index[next_row] == frame_index
    previous = np.maximum(after - 1, 0)
    gap = listed.frame_index[next_row] - listed.frame_index[previous]
    between = ~exact & (after > 0) & (after < len(listed.boxes)) & (gap <= MAX_GAP_FRAMES)
    share = ((frame_index - listed.frame_index[previous]) / np.maximum(gap, 1))[:, None]
    blended = (1 - share) * listed.boxes[previous] + share * listed.boxes[next_row]
    rows[exact], rows[between] = listed.boxes[next_row[exact]], blended[between].astype(np.float32)
    somebody = np.isfinite(rows).all(axis=1)
    source[exact & somebody], source[between & somebody] = FROM_FILE, INTERPOLATED
    rows[~somebody] = np.nan
    return rows, source


def _check_inside(boxes: Boxes, clip: Clip, height: int, width: int) -> None:
    x1, y1, x2, y2 = boxes.xyxy[boxes.present].T
    outside = (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height)
    if outside.any():
        raise VideoError(
            FailureCode.NO_BOXES,
            f"{int(outside.sum())} boxes of {clip.id!r} lie outside of its {width} x {height} frame, as "
            f"{boxes.xyxy[boxes.present][outside][0].tolist()} does; they belong to another size or another clip",
        )
