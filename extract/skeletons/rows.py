"""From the people of one clip to its rows in the stream of joints, in pixels of the video as displayed."""

from dataclasses import replace
from typing import Any

import numpy as np

from cache.rows import ClipRows
from extract.pose.boxes import FROM_FILE, NOBODY
from extract.skeletons.clip_frames import ClipFrames
from extract.skeletons.main_person import main_person
from extract.skeletons.people import FoundPeople, Indices, unusable

IMPORTED = 3
"""`valid` of a frame whose joints another tool found."""


def on_video(people: FoundPeople, height: int, width: int) -> FoundPeople:
    """The same people in pixels of the video, if the tool saw it in another size.

    Sizes may differ in both directions (pixels that are not square); a whole number is a pixel's centre.

    Raises:
        VideoError: NO_SKELETON, the tool saw an upright video lying or the other way round.
    """
    if people.size in (None, (height, width)):
        return people
    seen_height, seen_width = people.size or (height, width)
    if (seen_height - seen_width) * (height - width) < 0:
        raise unusable(
            f"it is of frames of {seen_width} x {seen_height} pixels, the video is displayed as {width} x {height}: "
            "the tool read it without turning it"
        )
    scale = np.array([width / seen_width, height / seen_height])
    return replace(people, xy=((people.xy + 0.5) * scale - 0.5).astype(np.float32), size=(height, width))


def imported_rows(clip_id: str, people: FoundPeople, frames: ClipFrames, in_skeleton: Indices) -> ClipRows:
    """The main person's joints at every instant of a clip.

    Args:
        clip_id: of the clip.
        people: everybody in the clip, and in no other part of its video, in pixels of the video: the main person
            of a video may not be that of a clip.
        frames: F instants.
        in_skeleton: (F,) the frame of `people` of each; outside of 0 .. T - 1 where it has none.
    """
    chosen = main_person(people, frames.provenance.height, frames.provenance.width)
    known = (in_skeleton >= 0) & (in_skeleton < people.num_frames)
    row = np.where(known, chosen[np.where(known, in_skeleton, 0)], -1)
    present = row >= 0
    num_joints = people.score.shape[1]
    fields: dict[str, Any] = {
        "xy": np.full((len(row), num_joints, 2), np.nan, np.float32),
        "score": np.zeros((len(row), num_joints), np.float32),
        "valid": np.where(present, IMPORTED, 0).astype(np.uint8),
        "box": np.full((len(row), 4), np.nan, np.float32),
        "box_score": np.zeros(len(row), np.float32),
        "track_id": np.where(present, 0, -1).astype(np.int32),
        "box_source": np.where(present, FROM_FILE, NOBODY).astype(np.uint8),
    }
    for name, values in (("xy", people.xy), ("score", people.score), ("box", people.boxes)):
        fields[name][present] = values[row[present]]
    fields["box_score"][present] = people.confidence[row[present]]
    return ClipRows(
        clip_id=clip_id,
        fields=fields,
        pts_seconds=frames.pts_seconds,
        frame_index=frames.frame_index,
        provenance=frames.provenance,
    )
