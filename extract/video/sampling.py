"""Which instants of a clip are kept, and which frame is on screen at an instant. Everything is seconds.

By time, not by frame number: on a variable-rate video, equal steps in frame number are unequal steps in time (1.3 s
off in a 4 s clip), and clocks survive re-encoding where frame numbers don't.
"""

import numpy as np
import numpy.typing as npt


def uniform_instants(start_seconds: float, end_seconds: float, num_frames: int) -> npt.NDArray[np.float64]:
    """Centres of equal segments of a clip.

    Returns:
        (F,) instants in seconds, ascending, all strictly inside the clip.
    """
    if not end_seconds > start_seconds:
        raise ValueError(f"a clip from {start_seconds} s to {end_seconds} s has no length")
    if num_frames < 1:
        raise ValueError(f"num_frames = {num_frames}: it must be at least 1")
    centres = (np.arange(num_frames, dtype=np.float64) + 0.5) / num_frames
    return start_seconds + (end_seconds - start_seconds) * centres


def frames_on_screen(
    frame_seconds: npt.NDArray[np.float64], instants: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """The frame shown at each instant: the last one whose time has come, the first one before that.

    Args:
        frame_seconds: (N,) display times, ascending.
        instants: (F,) seconds.

    Returns:
        (F,) indices into `frame_seconds`.
    """
    return np.maximum(np.searchsorted(frame_seconds, instants, side="right") - 1, 0).astype(np.int64)
