"""What the tiny frozen models are trained on: endless frames and clips of the world, drawn from a seed.

The corpus of the image-text encoder is biased on purpose, as web corpora are: 40 % of its frames are activities in
their usual surroundings (rho 0.9, captioned by action, activity or both), 60 % are single actions anywhere, some
before a plain wall. With the biased part alone such an encoder learns kitchens and no actions. All frames go through a
JPEG round trip, because the demo's videos are compressed too.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.demo.renderer import SIZE, Mode, pose_of, render_frame
from pipeline.demo.scripts import (
    ACTIONS,
    ACTIVITIES,
    NUM_FRAMES,
    Recording,
    Segment,
    WorldConfig,
    activity_recording,
    recombined_recording,
)

CORPUS = WorldConfig(rho_background=0.9, rho_distractor=0.9, rho_co_occurring=0.9)
"""The world of the corpus: its confounders are stronger than the demo's."""
BIASED_SHARE = 0.4
PLAIN_SHARE = 0.15
"""Of the single actions, how many stand before a plain grey wall: else the probe's neutral frames would be foreign."""


@dataclass(frozen=True)
class CaptionedFrame:
    """One training pair of the image-text encoder."""

    image: npt.NDArray[np.uint8]
    """(64, 64, 3) RGB."""
    caption: str


def captioned_frame(rng: np.random.Generator) -> CaptionedFrame:
    """A random frame and what a person might write under it."""
    frame = int(rng.integers(NUM_FRAMES))
    if rng.random() >= BIASED_SHARE:
        recording = _even_actions(recombined_recording(CORPUS, rng), rng)
        mode: Mode = "neutral" if rng.random() < PLAIN_SHARE else "plain"
        return CaptionedFrame(_compressed(render_frame(recording, frame, mode), rng), recording.action_at(frame))
    recording = activity_recording(CORPUS, rng, int(rng.integers(len(ACTIVITIES))))
    action, activity = recording.action_at(frame), str(recording.activity)
    caption = (action, activity, f"{activity}, {action}")[int(rng.integers(3))]
    return CaptionedFrame(_compressed(render_frame(recording, frame), rng), caption)


def posed_frame(rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A random frame (64, 64, 3) and its joints (17, 2), in pixels."""
    frame = int(rng.integers(NUM_FRAMES))
    recording = _even_actions(recombined_recording(CORPUS, rng), rng)
    return _compressed(render_frame(recording, frame), rng), pose_of(recording, frame).joints


def labelled_clip(rng: np.random.Generator, num_frames: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """A video of random actions, cut in random places.

    Returns:
        (L, 64, 64, 3) RGB at the centres of L equal segments, and (L,) the number in ACTIONS of each frame's action.
    """
    recording = _random_sequence(recombined_recording(CORPUS, rng), rng)
    frames = (np.arange(num_frames) * 2 + 1) * NUM_FRAMES // (2 * num_frames)
    quality = int(rng.integers(80, 96))
    images = [_compressed(render_frame(recording, int(frame)), rng, quality) for frame in frames]
    labels = [ACTIONS.index(recording.action_at(int(frame))) for frame in frames]
    return np.stack(images), np.array(labels, dtype=np.int64)


def _even_actions(recording: Recording, rng: np.random.Generator) -> Recording:
    """The same person and place with one action throughout, all actions equally likely."""
    action = ACTIONS[int(rng.integers(len(ACTIONS)))]
    return _with_segments(recording, (Segment(action=action, start=0, stop=NUM_FRAMES),))


def _random_sequence(recording: Recording, rng: np.random.Generator) -> Recording:
    """The same person and place with two to six actions, repeats allowed, of equal length on average."""
    actions = rng.choice(ACTIONS, size=int(rng.integers(2, 7)))
    cuts = np.sort(rng.choice(np.arange(4, NUM_FRAMES - 4), size=len(actions) - 1, replace=False))
    edges = [0, *cuts.tolist(), NUM_FRAMES]
    return _with_segments(
        recording,
        tuple(
            Segment(action=str(action), start=start, stop=stop)
            for action, start, stop in zip(actions, edges[:-1], edges[1:], strict=True)
        ),
    )


def _with_segments(recording: Recording, segments: tuple[Segment, ...]) -> Recording:
    return Recording(
        activity=None,
        segments=segments,
        background=recording.background,
        shirt=recording.shirt,
        distractor=recording.distractor,
        co_occurring=None,
        look=recording.look,
    )


def _compressed(
    image: npt.NDArray[np.uint8], rng: np.random.Generator, quality: int | None = None
) -> npt.NDArray[np.uint8]:
    """The image after JPEG at a random quality, with colours at half resolution as in video."""
    buffer = io.BytesIO()
    chosen = int(rng.integers(80, 96)) if quality is None else quality
    Image.fromarray(image).save(buffer, "JPEG", quality=chosen, subsampling=2)
    decoded = np.asarray(Image.open(buffer))
    assert decoded.shape == (SIZE, SIZE, 3)
    return decoded
