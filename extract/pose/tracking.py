"""From everybody that a detector saw to the one person whose joints are kept, over a whole clip.

Sightings are joined to tracks by the overlap of boxes. The main person is the track with the largest sum of
score x sqrt(area) x centrality over its sightings; centrality = exp(-d^2 / 2 (0.35 diagonals)^2) where d is how far the
box's centre is from the frame's. Identity is then fixed: in every frame it is this person or nobody.

Why a sighting is compared with where a track would be by now and not with where it was last: when two people cross, one
hides the other for some frames, and the last boxes of both lie where the other one comes out. Only whom nobody expects
is compared with last boxes, so that people who stop or return to their place are known again.

Time is counted in frames: a detector's in kept frames, a file's in frames of the video. Sixteen kept frames of a minute
lie four seconds apart, and a `max_gap` of 10 of them is 40 seconds, in which people move as nobody can foretell. So it
is a setting, to be made smaller where frames are kept sparsely.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from extract.config import PoseConfig
from extract.pose.boxes import Boxes, Floats, Frames, Sightings

CONTAINED = 0.8
"""Share of a box inside of one with a higher score from which on both are the same person."""
MIN_IOU = 0.3
"""Least overlap of a sighting with a track, intersection over union."""
MEMORY = 10
"""Sightings that a track's velocity is taken over."""
CENTRE_SPREAD = 0.35
"""Standard deviation of the centrality, in diagonals of the frame."""

Doubles = npt.NDArray[np.float64]


def tracking_settings(config: PoseConfig) -> Mapping[str, Any]:
    """What decides who is followed, as JSON values for the fingerprint."""
    return {
        "min_box_score": config.min_box_score,
        "min_box_area": config.min_box_area,
        "max_gap": config.max_gap,
        "contained": CONTAINED,
        "min_iou": MIN_IOU,
        "memory": MEMORY,
        "centre_spread": CENTRE_SPREAD,
    }


def follow(
    candidates: Sequence[Floats],
    frames: Frames,
    wanted: Frames,
    height: int,
    width: int,
    config: PoseConfig,
    *,
    source: int,
) -> Boxes:
    """The main person of a clip in the wanted frames.

    Args:
        candidates: (k, 5) x1 y1 x2 y2 score of everybody seen, for each frame that was looked at; in any order.
        frames: (m,) the frames that were looked at, ascending.
        wanted: (F,) the frames to give boxes for, ascending, counted as `frames` are. Sightings before and behind them
            help to follow and to interpolate; who is the main person is a matter of those among them, if there are any.
        height: of the frame in pixels.
        width: of the frame in pixels.
        config: its min_box_score, min_box_area and max_gap.
        source: where the candidates come from, as in `Boxes.source`.

    Returns:
        Boxes as seen, and interpolated between sightings that are at most max_gap frames apart. Nobody elsewhere.
    """
    people = [clean(boxes, height, width, config) for boxes in candidates]
    tracks = join(people, frames, max_gap=config.max_gap)
    if not tracks:
        nowhere = Sightings(frames=frames[:0], boxes=np.zeros((0, 5), np.float32))
        return Boxes.between(nowhere, wanted, max_gap=config.max_gap, source=source)
    weights = [(weight(_among(track, wanted), height, width), weight(track, height, width)) for track in tracks]
    best = weights.index(max(weights))  # the first of equals
    return Boxes.between(tracks[best], wanted, max_gap=config.max_gap, source=source, track=best)


def clean(boxes: Floats, height: int, width: int, config: PoseConfig) -> Floats:
    """The people of one frame that are large and certain enough, each once, best first: (k, 5) to (<= k, 5)."""
    sides = boxes[:, 2:4] - boxes[:, :2]
    large = (sides > 0).all(axis=1) & (sides.prod(axis=1) >= config.min_box_area * height * width)
    people = boxes[large & (boxes[:, 4] >= config.min_box_score)]
    people = people[np.lexsort((*people[:, 3::-1].T, -people[:, 4]))]  # by score, then by place: never by given order
    shared = _intersections(people, people) / _areas(people)[:, None]
    kept: list[int] = []
    for row in range(len(people)):
        if not (shared[row, kept] > CONTAINED).any():
            kept.append(row)
    return people[kept]


def join(people: Sequence[Floats], frames: Frames, *, max_gap: int) -> list[Sightings]:
    """Tracks of everybody, in order of their first sighting.

    A track is continued by whom it expects: moved on with its velocity, it overlaps by MIN_IOU (the sum of overlaps is
    maximal). Then by one who is where it was seen last, however long ago. Then, if within max_gap nobody else was seen,
    by the only person in the frame who is not twice as large or small and has moved by less than the own height.

    Args:
        people: (k, 5) x1 y1 x2 y2 score for each frame that was looked at, each person once.
        frames: (m,) the frames that were looked at, ascending.
        max_gap: longest time over which a velocity is trusted.
    """
    tracks: list[_Track] = []
    for frame, boxes in zip(frames.tolist(), people, strict=True):
        free = np.arange(len(boxes))
        recent = [track for track in tracks if frame - track.frames[-1] <= max_gap]
        free = _continue(recent, [track.expected(frame) for track in recent], boxes, free, frame)
        if len(free):
            lost = [track for track in tracks if track.frames[-1] != frame]
            free = _continue(lost, [track.boxes[-1][:4] for track in lost], boxes, free, frame)
        if len(boxes) == len(free) == len(recent) == 1 and recent[0].could_become(boxes[0]):
            recent[0].add(frame, boxes, row=0)
            continue
        for row in free.tolist():
            tracks.append(_Track())
            tracks[-1].add(frame, boxes, row)
    return [track.sightings for track in tracks]


def weight(track: Sightings, height: int, width: int) -> float:
    """How much of the clip a person makes up: the sum of score x sqrt(area) x centrality over the sightings."""
    boxes = track.boxes.astype(np.float64)
    offset = (boxes[:, :2] + boxes[:, 2:4]) / 2 - (width / 2, height / 2)
    centrality = np.exp(-(offset**2).sum(axis=1) / (2 * CENTRE_SPREAD**2 * (height**2 + width**2)))
    return float((boxes[:, 4] * np.sqrt(_areas(boxes)) * centrality).sum())


def _among(track: Sightings, wanted: Frames) -> Sightings:
    if not len(wanted):
        return Sightings(frames=track.frames[:0], boxes=track.boxes[:0])
    inside = (track.frames >= wanted[0]) & (track.frames <= wanted[-1])
    return Sightings(frames=track.frames[inside], boxes=track.boxes[inside])


@dataclass(kw_only=True, eq=False)
class _Track:
    """One person while the clip is gone through."""

    frames: list[int] = field(default_factory=list)
    boxes: list[Doubles] = field(default_factory=list)  # (5,) each

    def add(self, frame: int, boxes: Floats, row: int) -> None:
        self.frames.append(frame)
        self.boxes.append(boxes[row].astype(np.float64))

    def expected(self, frame: int) -> Doubles:
        """(4,) the last box, moved on with the mean velocity of its centre."""
        start = max(0, len(self.frames) - MEMORY)
        moved = _centre(self.boxes[-1]) - _centre(self.boxes[start])
        elapsed = max(1, self.frames[-1] - self.frames[start])
        return self.boxes[-1][:4] + np.tile(moved / elapsed * (frame - self.frames[-1]), 2)

    def could_become(self, box: Floats) -> bool:
        """True if a person may have moved and turned into this box since the last sighting."""
        last = self.boxes[-1]
        (before,), (after,) = _areas(last[None]), _areas(box[None])
        distance = float(np.linalg.norm(_centre(box.astype(np.float64)) - _centre(last)))
        return before / 2 < after < before * 2 and distance < last[3] - last[1]

    @property
    def sightings(self) -> Sightings:
        return Sightings(frames=np.array(self.frames, np.int64), boxes=np.array(self.boxes, np.float32))


def _continue(
    tracks: list[_Track], expected: list[Doubles], boxes: Floats, free: npt.NDArray[np.intp], frame: int
) -> npt.NDArray[np.intp]:
    """Gives free boxes to the tracks that expect them; returns the rows that stay free."""
    if not tracks or not len(free):
        return free
    overlaps = _intersection_over_union(np.array(expected), boxes[free].astype(np.float64))
    overlaps[overlaps < MIN_IOU] = 0
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    taken = overlaps[rows, columns] > 0
    for row, column in zip(rows[taken], columns[taken], strict=True):
        tracks[row].add(frame, boxes, int(free[column]))
    return np.delete(free, columns[taken])


def _intersection_over_union(first: Doubles, second: Doubles) -> Doubles:
    shared = _intersections(first, second)
    return shared / (_areas(first)[:, None] + _areas(second)[None, :] - shared)


def _intersections(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> Doubles:
    """(a, b) pixels that boxes (a, >= 4) and (b, >= 4) share."""
    low = np.maximum(first[:, None, :2], second[None, :, :2]).astype(np.float64)
    high = np.minimum(first[:, None, 2:4], second[None, :, 2:4])
    return (high - low).clip(min=0).prod(axis=2)


def _areas(boxes: npt.NDArray[np.floating]) -> Doubles:
    return (boxes[:, 2:4].astype(np.float64) - boxes[:, :2]).prod(axis=1)


def _centre(box: Doubles) -> Doubles:
    return (box[:2] + box[2:4]) / 2
