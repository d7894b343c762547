"""Draws a recording: 64 x 64 pixels, eight frames a second, everything known.

Drawn at twice the size and averaged down. The two modes of the papers' probe of bias are part of the renderer because
only here is it known what causes the label: `masked` covers the person and what they hold and leaves the surroundings,
`neutral` leaves the person and takes the surroundings away (grey wall, grey shirt, no corner object).
"""

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pipeline.demo.figure import Pose, pose_at
from pipeline.demo.objects import draw_distractor, draw_object
from pipeline.demo.scripts import FRAMES_PER_SECOND, NUM_FRAMES, Recording

Mode = Literal["plain", "masked", "neutral"]
Colour = tuple[int, int, int]

SIZE = 64
_ZOOM = 2
_MARGIN = 8  # the wall is larger than the frame, for the shaking camera
_GREY: Colour = (112, 112, 112)
_NEUTRAL_SHIRT: Colour = (150, 150, 150)

_SHIRTS: tuple[Colour, ...] = (
    (222, 36, 36), (40, 200, 205), (44, 70, 220), (240, 200, 40),
    (165, 60, 195), (40, 160, 60), (240, 130, 180), (240, 130, 30),
)  # fmt: skip
_SKINS: tuple[Colour, ...] = ((245, 208, 178), (228, 178, 140), (190, 135, 95), (145, 98, 66), (98, 66, 46))
_TROUSERS: tuple[Colour, ...] = ((40, 40, 62), (58, 40, 34), (34, 58, 44), (64, 64, 64))
_WALLS: tuple[tuple[Colour, Colour, str], ...] = (
    ((92, 66, 26), (62, 42, 14), "vertical"),
    ((46, 128, 118), (30, 92, 88), "checks"),
    ((66, 62, 120), (40, 38, 86), "checks"),
    ((158, 116, 62), (124, 88, 42), "diagonal"),
    ((110, 32, 98), (74, 16, 68), "vertical"),
    ((112, 118, 50), (86, 92, 34), "horizontal"),
    ((206, 190, 150), (180, 162, 120), "horizontal"),
    ((34, 28, 58), (54, 46, 84), "diagonal"),
)


@lru_cache(maxsize=len(_WALLS))
def _wall(background: int) -> Image.Image:
    """The wall, larger than the frame by the margin, at twice the size."""
    light, dark, texture = _WALLS[background]
    side = _ZOOM * (SIZE + 2 * _MARGIN)
    y, x = np.mgrid[:side, :side] // _ZOOM
    pattern = {
        "vertical": x // 3,
        "horizontal": y // 4,
        "diagonal": (x + y) // 4,
        "checks": x // 6 + y // 6,
    }[texture]
    pixels = np.where((pattern % 2 == 0)[..., None], np.array(light), np.array(dark))
    grain = np.random.default_rng(background).normal(0.0, 4.0, (side, side, 1))
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


@lru_cache(maxsize=64)
def _shake(seed: int) -> npt.NDArray[np.float64]:
    """(NUM_FRAMES, 2) smooth camera shifts of at most about 3 pixels."""
    steps = np.random.default_rng(seed).normal(0.0, 1.0, (NUM_FRAMES + 8, 2))
    smooth = np.stack([np.convolve(steps[:, axis], np.hanning(11)[1:-1] / 3, mode="valid") for axis in range(2)], 1)
    return np.clip(smooth, -3.0, 3.0)


def pose_of(recording: Recording, frame: int) -> Pose:
    """The figure in one frame: its joints are the truth that pose estimation is measured against."""
    shift = _shake(recording.look.shake_seed)[frame]
    seconds = frame / FRAMES_PER_SECOND
    return pose_at(recording.action_at(frame), seconds, recording.look, (float(shift[0]), float(shift[1])))


def render_frame(recording: Recording, frame: int, mode: Mode = "plain") -> npt.NDArray[np.uint8]:
    """One frame, (64, 64, 3) RGB."""
    pose = pose_of(recording, frame)
    shift = _shake(recording.look.shake_seed)[frame]
    image = _background(recording, shift, mode)
    draw = ImageDraw.Draw(image)
    if mode == "masked":
        draw.rectangle(_causal_region(pose), fill=_GREY)
    else:
        shirt = _NEUTRAL_SHIRT if mode == "neutral" else _SHIRTS[recording.shirt]
        _draw_person(draw, pose, shirt, recording)
        if pose.hand is not None:
            draw_object(draw, recording.action_at(frame), pose.hand, pose.swing, recording.look.scale, _ZOOM)
    if mode != "neutral":
        x, y = _distractor_place(recording, frame)
        draw_distractor(draw, recording.distractor, (x + shift[0], y + shift[1]), _ZOOM)
    return np.asarray(image.reduce(_ZOOM))


def render(recording: Recording, mode: Mode = "plain") -> npt.NDArray[np.uint8]:
    """All frames, (80, 64, 64, 3) RGB."""
    return np.stack([render_frame(recording, frame, mode) for frame in range(NUM_FRAMES)])


def _background(recording: Recording, shift: npt.NDArray[np.float64], mode: Mode) -> Image.Image:
    if mode == "neutral":
        return Image.new("RGB", (_ZOOM * SIZE, _ZOOM * SIZE), _GREY)
    left, top = (round(_ZOOM * (_MARGIN - float(offset))) for offset in shift)
    return _wall(recording.background).crop((left, top, left + _ZOOM * SIZE, top + _ZOOM * SIZE))


def _distractor_place(recording: Recording, frame: int) -> tuple[float, float]:
    """The corner object drifts slowly about its corner."""
    phase = frame / NUM_FRAMES * 2 * np.pi + recording.look.phase * 6.0
    x = 57.0 if recording.look.distractor_right else 7.0
    return x + 1.5 * float(np.cos(phase)), 50.0 + 5.0 * float(np.sin(phase))


def _causal_region(pose: Pose) -> list[float]:
    """Box around body and object, at drawing size."""
    points = pose.joints
    if pose.hand is not None:
        hand = np.array(pose.hand, dtype=np.float32)
        points = np.vstack([points, hand - 6.0, hand + 6.0])
    left, top = points.min(axis=0) - 4.0
    right, bottom = points.max(axis=0) + 4.0
    return [_ZOOM * left, _ZOOM * top, _ZOOM * right, _ZOOM * bottom]


def _draw_person(draw: ImageDraw.ImageDraw, pose: Pose, shirt: Colour, recording: Recording) -> None:
    look = recording.look
    skin, trousers = _SKINS[look.skin], _TROUSERS[look.trousers]
    joints = [(_ZOOM * float(x), _ZOOM * float(y)) for x, y in pose.joints]

    def line(indices: tuple[int, ...], colour: Colour, width: float) -> None:
        draw.line([joints[j] for j in indices], fill=colour, width=round(_ZOOM * width * look.scale), joint="curve")

    for side in (11, 12):
        line((side, side + 2, side + 4), trousers, 4.0)
    draw.polygon([joints[5], joints[6], joints[12], joints[11]], fill=shirt)
    line((5, 6, 12, 11, 5), shirt, 3.0)
    for side in (5, 6):
        line((side, side + 2), shirt, 3.6)
        line((side + 2, side + 4), skin, 2.6)
    _draw_head(draw, joints, skin, look.scale)


def _draw_head(draw: ImageDraw.ImageDraw, joints: list[tuple[float, float]], skin: Colour, scale: float) -> None:
    x, y = joints[0]
    radius = _ZOOM * 4.1 * scale
    middle = y - _ZOOM * 0.9 * scale
    draw.ellipse((x - radius, middle - radius * 1.1, x + radius, middle + radius * 1.1), fill=skin)
    for eye in joints[1:3]:
        draw.ellipse((eye[0] - 1.2, eye[1] - 1.2, eye[0] + 1.2, eye[1] + 1.2), fill=(20, 20, 20))
    draw.line((x - 1.5, y + 3.2, x + 1.5, y + 3.2), fill=(120, 40, 40), width=1)
