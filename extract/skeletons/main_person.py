"""Which of the people that a tool found is the one whose joints are kept: one for the whole clip.

The rule is that of detected people (extract/pose/tracking.py), on the boxes around their joints: followed by overlap,
the track with the largest sum of confidence x sqrt(area) x centrality. A reader may ask why not where there is at most
one person in every frame: then the tool, or the boxes it was given, has chosen already, and a long absence or a cut of
the film must not lose what comes after it. Frames between two sightings have nobody here: there is no network to ask.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from extract.config import PoseConfig
from extract.pose.boxes import FROM_FILE
from extract.skeletons.people import FoundPeople, Indices

_FOLLOWING = PoseConfig(min_box_score=0.0, min_box_area=0.0)
"""Everybody may be followed: tools have thresholds of their own, and scores on scales of their own."""
_MARGIN = 0.5
"""Pixels around the joints, so that a single one has an area."""


def settings() -> Mapping[str, Any]:
    """What decides who is kept, for the fingerprint."""
    from extract.pose.tracking import tracking_settings

    return {"boxes": "around the joints", **tracking_settings(_FOLLOWING)}


def main_person(people: FoundPeople, height: int, width: int) -> Indices:
    """(T,) the row of the main person in each frame; -1 where that person is not.

    Args:
        people: N people, in pixels of the video.
        height: of the video.
        width: of the video.
    """
    chosen = np.full(people.num_frames, -1, np.int64)
    if (np.diff(people.frame) > 0).all():
        chosen[people.frame] = np.arange(len(people.frame))
        return chosen
    from extract.pose.tracking import follow

    boxes = (people.boxes + np.array([-_MARGIN, -_MARGIN, _MARGIN, _MARGIN])).astype(np.float32)
    candidates = np.concatenate([boxes, people.confidence[:, None]], axis=1)
    frames, first = np.unique(people.frame, return_index=True)
    followed = follow(np.split(candidates, first[1:]), frames, frames, height, width, _FOLLOWING, source=FROM_FILE)
    place = np.searchsorted(frames, people.frame)
    seen = (followed.source[place] == FROM_FILE) & (followed.xyxy[place] == boxes).all(axis=1)
    chosen[people.frame[seen]] = np.flatnonzero(seen)
    return chosen
