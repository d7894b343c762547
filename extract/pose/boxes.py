"""One box per frame of a clip: where the person who is followed is, and how that is known.

Why a frame without a person is NaN and not the whole frame: other tools take the whole frame when nobody is found and
give plausible joints of nobody. Here nobody is an answer, and the frame stays in its place.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

MAX_GAP_FRAMES = 10
"""Farthest listed frames of a sparse file between which a box is interpolated."""
NOBODY, FROM_FILE, WHOLE_FRAME, DETECTOR, INTERPOLATED = range(5)
"""Values of `Boxes.source`, as in the cache's stream of joints."""

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
    """(F,) 0 none, 1 file, 2 whole frame, 3 detector, 4 interpolated."""
    track: int = 0
    """The number of the person who is followed, among all that were seen."""

    @classmethod
    def between(cls, sightings: "Sightings", wanted: Frames, *, max_gap: int, source: int, track: int = 0) -> Self:
        """Boxes of the wanted frames: as seen, or interpolated between two sightings.

        Args:
            sightings: where one person was seen.
            wanted: (F,) frame numbers, counted as those of the sightings.
            max_gap: farthest two sightings between which the box is interpolated; a wider gap has nobody.
            source: of the boxes as seen.
            track: number of the person.
        """
        rows = np.full((len(wanted), 5), np.nan, np.float32)
        sources = np.full(len(wanted), NOBODY, np.uint8)
        if len(sightings.frames):
            exact, between = _interpolate(sightings, wanted, max_gap, into=rows)
            somebody = np.isfinite(rows).all(axis=1)
            sources[exact & somebody], sources[between & somebody] = source, INTERPOLATED
            rows[~somebody] = np.nan
        score = np.where(sources == NOBODY, 0, rows[:, 4]).astype(np.float32)
        return cls(xyxy=rows[:, :4], score=score, source=sources, track=track)

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
        """(F,) the number of the one person who is followed, -1 where nobody is."""
        return np.where(self.present, self.track, -1).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class Sightings:
    """The frames that were looked at for one person, and what was there."""

    frames: Frames
    """(m,) ascending."""
    boxes: Floats
    """(m, 5) x1 y1 x2 y2 score; NaN where the person is known to be absent."""

    def __post_init__(self) -> None:
        if self.boxes.shape != (len(self.frames), 5) or (np.diff(self.frames) <= 0).any() or (self.frames < 0).any():
            raise ValueError(f"{len(self.boxes)} boxes need as many ascending frame indices, not {len(self.frames)}")


def whole_frame(num_frames: int, height: int, width: int) -> Boxes:
    """The frame itself as the box, in every frame."""
    return Boxes(
        xyxy=np.tile(np.array([0, 0, width, height], np.float32), (num_frames, 1)),
        score=np.ones(num_frames, np.float32),
        source=np.full(num_frames, WHOLE_FRAME, np.uint8),
    )


def _interpolate(
    sightings: Sightings, wanted: Frames, max_gap: int, *, into: Floats
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Writes the rows of frames that were looked at, and of those in short gaps; says which they are: (F,), (F,)."""
    frames, boxes = sightings.frames, sightings.boxes
    after = np.searchsorted(frames, wanted)
    next_row = np.minimum(after, len(boxes) - 1)
    exact = frames[next_row] == wanted
    previous = np.maximum(after - 1, 0)
    gap = frames[next_row] - frames[previous]
    between = ~exact & (after > 0) & (after < len(boxes)) & (gap <= max_gap)
    share = ((wanted - frames[previous]) / np.maximum(gap, 1))[:, None]
    blended = (1 - share) * boxes[previous] + share * boxes[next_row]
    into[exact], into[between] = boxes[next_row[exact]], blended[between].astype(np.float32)
    return exact, between
