"""One clip of a cache as somebody wants to see it: joints, and the cached frames that they belong to.

Why rows are paired by frame index and not by place: the two streams of a cache may have been sampled differently, and
imported skeletons bring rows of their own. A row without a cached frame is left out, never drawn on a neighbour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import CacheError, MissingClip
from cache.rows import Joints
from cache.skeletons import SKELETONS, Skeleton
from cache.store import FeatureStore, StreamReader

BOX_SOURCES = ("no box", "file", "whole frame", "detector", "interpolated")
"""Names of the values of `box_source`."""
NOBODY, IMPORTED = 0, 3
"""Values of `valid` that a picture tells apart from the measured ones."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure:
    """Who is seen at one instant, in pixels of the source as displayed; fields as in `cache.rows.Joints`."""

    seconds: float
    frame_index: int
    jpeg: bytes | memoryview | None
    """The cached frame; None: draw on grey."""
    xy: npt.NDArray[np.float32]
    """(J, 2), NaN where missing."""
    score: npt.NDArray[np.float32]
    """(J,), 0 where missing."""
    valid: int
    box: npt.NDArray[np.float32]
    """(4,), NaN where there is none."""
    box_score: float
    box_source: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipView:
    """The rows of one clip that can be drawn."""

    clip_id: str
    skeleton: Skeleton
    figures: Sequence[Figure]
    height: int
    """Of the source as displayed, in pixels."""
    width: int
    """Of the source as displayed, in pixels."""
    notes: tuple[str, ...] = ()
    """What a person must know to read the pictures right."""


def read_clip(store: FeatureStore, clip_id: str) -> ClipView:
    """The joints of a clip, with its cached frames where there are any.

    Raises:
        CacheError: the cache has no joints, or joints of an unknown skeleton.
        FailedClip: extraction failed on this clip; says why.
        MissingClip: the joints have no such clip.
    """
    reader = store.joints
    joints = reader[clip_id]
    skeleton = skeleton_of(reader)
    jpegs, notes = _cached_frames(store, clip_id)
    notes += [notice for notice in store.notices if notice.startswith("joints:")]
    figures = list(_figures(reader, clip_id, joints, jpegs))
    num_left_out = len(joints.xy) - len(figures)
    if jpegs and not figures:
        notes.append("none of the joints belongs to a cached frame: drawn on grey")
        figures = list(_figures(reader, clip_id, joints, None))
    elif num_left_out:
        notes.append(f"{num_left_out} of {len(joints.xy)} rows have no cached frame and are left out")
    height, width = _source_size(store, clip_id)
    if not height:
        notes.append("the size of the video is not known: drawn on grey, as large as the joints need")
        figures = list(_figures(reader, clip_id, joints, None))
        height, width = _extent(joints)
    return ClipView(clip_id=clip_id, skeleton=skeleton, figures=figures, height=height, width=width, notes=tuple(notes))


def skeleton_of(reader: StreamReader) -> Skeleton:
    """The skeleton of a stream of joints.

    Raises:
        CacheError: it is not in the table of skeletons.
    """
    name = str(reader.fingerprint.model.get("skeleton"))
    if name not in SKELETONS:
        raise CacheError(f"{reader.folder} has joints of the skeleton {name!r}; known are {', '.join(SKELETONS)}")
    return SKELETONS[name]


def _cached_frames(store: FeatureStore, clip_id: str) -> tuple[dict[int, memoryview] | None, list[str]]:
    """JPEGs by frame index; None, with a note, where the cache has none."""
    if "frames" not in store.streams:
        return None, ["the cache has no stream `frames`: drawn on grey"]
    try:
        jpegs = store.frames[clip_id]
    except MissingClip:
        return None, ["the clip has no cached frames: drawn on grey"]
    return dict(zip(store.frames.frame_index(clip_id).tolist(), jpegs, strict=True)), []


def _figures(
    reader: StreamReader, clip_id: str, joints: Joints, jpegs: dict[int, memoryview] | None
) -> Sequence[Figure]:
    """The rows that have a frame; all of them where there are no frames."""
    times, index = reader.pts_seconds(clip_id).tolist(), reader.frame_index(clip_id).tolist()
    return [
        Figure(
            seconds=times[row],
            frame_index=index[row],
            jpeg=None if jpegs is None else jpegs[index[row]],
            xy=joints.xy[row],
            score=joints.score[row],
            valid=int(joints.valid[row]),
            box=joints.box[row],
            box_score=float(joints.box_score[row]),
            box_source=int(joints.box_source[row]),
        )
        for row in range(len(joints.xy))
        if jpegs is None or index[row] in jpegs
    ]


def _source_size(store: FeatureStore, clip_id: str) -> tuple[int, int]:
    """Height and width, from whichever stream knows them; zeros if none does."""
    for stream in ("joints", "frames"):
        if stream in store.streams and clip_id in store.stream(stream):
            provenance = store.stream(stream).provenance(clip_id)
            if provenance.height and provenance.width:
                return provenance.height, provenance.width
    return 0, 0


def _extent(joints: Joints) -> tuple[int, int]:
    """Height and width of the smallest picture from (0, 0) on that holds all joints, with a margin."""
    points = joints.xy[np.isfinite(joints.xy).all(axis=-1)]
    if not len(points):
        return 1, 1
    width, height = np.ceil(1.1 * np.maximum(points.max(axis=0), 1)).astype(int).tolist()
    return height, width
