"""Which instants of a clip are kept, and which frame is on screen at an instant. Everything is seconds.

By time, not by frame number: on a variable-rate video, equal steps in frame number are unequal steps in time (1.3 s
off in a 4 s clip), and clocks survive re-encoding where frame numbers don't. Even "every n-th frame" is said in
instants, each in the middle of its frame's time on screen, so that one path reads all of them and no rounding of a
clock can reach the neighbour.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]

_ANNOTATION_ROUNDING = 0.5e-3
"""Seconds: spans are often frame numbers over a rate, and containers round times to their tick."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How densely clips are sampled: exactly one of the three is given, the others are 0.

    `num_frames`: the centres of so many equal segments of the clip. `fps`: the centres of segments of 1/fps seconds
    from the clip's start; a clip shorter than one segment gives its middle. `every_nth`: each n-th displayed frame,
    starting with the one on screen when the clip begins.
    """

    num_frames: int = 0
    fps: float = 0.0
    every_nth: int = 0

    def __post_init__(self) -> None:
        values = {"num_frames": self.num_frames, "fps": self.fps, "every_nth": self.every_nth}
        given = {name: value for name, value in values.items() if value}
        if len(given) != 1 or not all(value > 0 and math.isfinite(value) for value in given.values()):
            raise ValueError(f"exactly one of num_frames, fps and every_nth must be positive, got {values}")

    @property
    def rows_per_clip(self) -> int | None:
        """F where it is the same for every clip, None where it is not."""
        return self.num_frames or None

    def to_json(self) -> dict[str, Any]:
        """The `sampling` section of a fingerprint."""
        if self.num_frames:
            return {"instants": "centres of equal segments", "num_frames": self.num_frames}
        if self.fps:
            return {"instants": "centres of segments of 1/fps s, from the start of the clip", "fps": float(self.fps)}
        return {"instants": "every n-th frame, from the one on screen at the start", "every_nth": self.every_nth}

    def expected_rows(self, seconds: float, frames_per_second: float) -> float:
        """About how many rows a clip of this length gives."""
        if self.num_frames:
            return self.num_frames
        rate = self.fps or frames_per_second / self.every_nth
        return max(1.0, seconds * rate)


def uniform_instants(start_seconds: float, end_seconds: float, num_frames: int) -> Seconds:
    """Centres of equal segments of a clip.

    Returns:
        (F,) instants in seconds, ascending, all strictly inside the clip.
    """
    _check_length(start_seconds, end_seconds)
    if num_frames < 1:
        raise ValueError(f"num_frames = {num_frames}: it must be at least 1")
    centres = (np.arange(num_frames, dtype=np.float64) + 0.5) / num_frames
    return start_seconds + (end_seconds - start_seconds) * centres


def rate_instants(start_seconds: float, end_seconds: float, fps: float) -> Seconds:
    """Centres of segments of 1/fps seconds, counted from the clip's start; a shorter clip gives its middle.

    Centres, because at the video's own rate they lie inside the frames, where starts lie between two of them.

    Returns:
        (F,) instants in seconds, ascending, all inside the clip; F is length times fps, rounded, and at least 1.
    """
    _check_length(start_seconds, end_seconds)
    num_segments = (end_seconds - start_seconds) * fps
    if num_segments < 1:
        return np.array([(start_seconds + end_seconds) / 2])
    return start_seconds + (np.arange(math.ceil(num_segments - 0.5), dtype=np.float64) + 0.5) / fps


def nth_frame_instants(
    frame_seconds: Seconds, start_seconds: float, end_seconds: float, step: int, *, duration: float, tick: float
) -> Seconds:
    """The middle of the time on screen of every `step`-th frame of a clip.

    The clip's frames are those from the one on screen at its start to the last one that appears before its end. A
    frame that appears within a rounding of the start (half a tick, half a millisecond at most) counts as on screen.

    Args:
        frame_seconds: (N,) display times of the video, ascending.
        start_seconds: of the clip.
        end_seconds: of the clip.
        step: n.
        duration: end of the video's last frame.
        tick: seconds of one step of the container's clock.

    Returns:
        (F,) instants in seconds, ascending; no two show the same frame.
    """
    _check_length(start_seconds, end_seconds)
    slack = min(tick / 2, _ANNOTATION_ROUNDING)
    first = int(frames_on_screen(frame_seconds, np.array([start_seconds + slack]))[0])
    stop = int(np.searchsorted(frame_seconds, end_seconds - slack, side="left"))
    chosen = np.arange(first, max(stop, first + 1), step)
    return middles(frame_seconds, duration)[chosen]


def middles(frame_seconds: Seconds, duration: float) -> Seconds:
    """(N,) instants at which each frame is shown beyond doubt: halfway to the next one, or to the end."""
    return (frame_seconds + np.append(frame_seconds[1:], duration)) / 2


def frames_on_screen(frame_seconds: Seconds, instants: Seconds) -> npt.NDArray[np.int64]:
    """The frame shown at each instant: the last one whose time has come, the first one before that.

    Args:
        frame_seconds: (N,) display times, ascending.
        instants: (F,) seconds.

    Returns:
        (F,) indices into `frame_seconds`.
    """
    return np.maximum(np.searchsorted(frame_seconds, instants, side="right") - 1, 0).astype(np.int64)


def _check_length(start_seconds: float, end_seconds: float) -> None:
    if not end_seconds > start_seconds:
        raise ValueError(f"a clip from {start_seconds} s to {end_seconds} s has no length")
