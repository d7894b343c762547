"""Contact sheets for the demo's page, as PNG bytes: videos as strips, and what goes with what."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.demo.renderer import Mode, render_frame
from pipeline.demo.scripts import ACTIVITIES, NUM_FRAMES, Recording, Split, WorldConfig, draw_recording

Pixels = npt.NDArray[np.uint8]
_STRIP_FRAMES = tuple(range(NUM_FRAMES // 16, NUM_FRAMES, NUM_FRAMES // 8))
_ZOOM = 2


def strips(recordings: Sequence[Recording], modes: Sequence[Mode] = ("plain",)) -> bytes:
    """One row of eight frames for each recording and mode."""
    rows = [
        np.concatenate([render_frame(recording, frame, mode) for frame in _STRIP_FRAMES], axis=1)
        for recording in recordings
        for mode in modes
    ]
    return _png(np.concatenate(rows))


def surroundings(world: WorldConfig, *, columns: int = 7) -> bytes:
    """One row per activity: frames of training videos on the left, of counterfactual test videos on the right."""
    gap = np.full((64, 12, 3), 255, dtype=np.uint8)
    rows = [
        np.concatenate(
            [
                *_middles(world, "train", activity, min(columns, world.num_train // len(ACTIVITIES))),
                gap,
                *_middles(world, "test_counterfactual", activity, min(columns, world.num_test // len(ACTIVITIES))),
            ],
            axis=1,
        )
        for activity in range(len(ACTIVITIES))
    ]
    return _png(np.concatenate(rows))


def describe(recording: Recording) -> str:
    """What happens in a recording, in order."""
    story = ", ".join(segment.action for segment in recording.segments)
    return story if recording.activity is None else f"{recording.activity}: {story}"


def _middles(world: WorldConfig, split: Split, activity: int, columns: int) -> list[Pixels]:
    """The middle frame of the first videos of an activity."""
    numbers = [activity + len(ACTIVITIES) * column for column in range(columns)]
    return [render_frame(draw_recording(world, split, number), NUM_FRAMES // 2) for number in numbers]


def _png(pixels: Pixels) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.resize((_ZOOM * image.width, _ZOOM * image.height), Image.Resampling.NEAREST).save(
        buffer, "PNG", optimize=True
    )
    return buffer.getvalue()
