"""Brightness, contrast, saturation and hue of frames, changed by numpy a frame at a time.

The definitions are torchvision's, to one grey level of rounding; every change ends in whole numbers, as there. A reader
may ask why its functions are not called: nine tenths of preparing a clip were spent in them. They make tens of arrays
as large as the clip, while one frame's planes stay in the processor's cache, and they would start threads of their own
inside every decode thread.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]
_GREY = (0.2989, 0.587, 0.114)
_WHITE = np.float32(255)


def change_colours(frames: Pixels, changes: Sequence[tuple["Change", float]], out: Pixels) -> None:
    """Applies one change after the other to every frame.

    Args:
        frames: (L, 3, H, W) RGB, of any strides.
        changes: functions of this module, each with its amount.
        out: (L, 3, H, W), C-contiguous; may be `frames`.
    """
    work = Workspace(frames.shape[-2:])
    for frame, result in zip(frames, out, strict=True):
        work.planes[...] = frame
        for change, amount in changes:
            change(work, np.float32(amount))
        np.copyto(result, work.planes, casting="unsafe")


class Workspace:
    """One frame as float32 whole numbers from 0 to 255, planes (3, H, W), and room to compute."""

    def __init__(self, extent: tuple[int, ...]) -> None:
        self.planes = np.empty((3, *extent), np.float32)
        self.grey = np.empty(extent, np.float32)
        self.room = np.empty((4, *extent), np.float32)
        self.masks = np.empty((3, *extent), bool)


Change = Callable[[Workspace, Any], None]


def brightness(work: Workspace, factor: np.float32) -> None:
    """Every value times `factor`."""
    work.planes *= factor
    _to_whole_numbers(work.planes)


def contrast(work: Workspace, factor: np.float32) -> None:
    """Distances from the frame's mean grey times `factor`."""
    _compute_grey(work)
    work.planes *= factor
    work.planes += (np.float32(1) - factor) * work.grey.mean()
    _to_whole_numbers(work.planes)


def saturation(work: Workspace, factor: np.float32) -> None:
    """Distances from each pixel's grey times `factor`."""
    _compute_grey(work)
    work.planes -= work.grey
    work.planes *= factor
    work.planes += work.grey
    _to_whole_numbers(work.planes)


def drop_colour(work: Workspace, _: np.float32) -> None:
    """Every pixel's grey in all three planes."""
    _compute_grey(work)
    work.planes[...] = work.grey


def hue(work: Workspace, turns: np.float32) -> None:
    """Turns the colour circle by `turns`; value and saturation (of HSV) stay.

    On a circle of length 6, red is at 0, green at 2, blue at 4, and a channel's share of the colour falls off linearly
    from 1 unit around its place to 0 at 2 units.
    """
    red, green, blue = work.planes
    least, chroma, angle, share = work.room
    np.minimum(np.minimum(red, green, out=least), blue, out=least)
    np.maximum(np.maximum(red, green, out=chroma), blue, out=chroma)
    _colour_angle(work, top=chroma, least=least, angle=angle, share=share)
    chroma -= least
    angle += np.float32(6) * turns
    np.floor(np.multiply(angle, np.float32(1 / 6), out=share), out=share)
    share *= np.float32(6)
    angle -= share  # in [0, 6)
    for channel, place in zip(work.planes, (3, 2, 4), strict=True):
        np.abs(np.subtract(angle, np.float32(place), out=share), out=share)
        if place == 3:  # red's own place is both 0 and 6: measured from the opposite side
            share -= np.float32(1)
        else:
            np.subtract(np.float32(2), share, out=share)
        np.clip(share, np.float32(0), np.float32(1), out=share)
        np.add(np.multiply(share, chroma, out=share), least, out=channel)
        channel *= np.float32(255.999 / 255)  # torchvision's way back to whole numbers
        np.floor(channel, out=channel)


def _colour_angle(work: Workspace, *, top: Plane, least: Plane, angle: Plane, share: Plane) -> None:
    """Where on the circle each pixel's colour is, in [-1, 5]; 0 where it has none."""
    red, green, blue = work.planes
    is_red, is_green, is_blue = work.masks
    np.equal(top, red, out=is_red)
    np.equal(top, green, out=is_green)
    np.greater(is_green, is_red, out=is_green)  # green and not red
    np.logical_or(is_red, is_green, out=is_blue)
    np.logical_not(is_blue, out=is_blue)
    np.multiply(np.subtract(green, blue, out=angle), is_red, out=angle)
    np.multiply(np.subtract(blue, red, out=share), is_green, out=share)
    angle += share
    np.multiply(np.subtract(red, green, out=share), is_blue, out=share)
    angle += share
    np.maximum(np.subtract(top, least, out=share), np.float32(1), out=share)
    angle /= share
    angle += np.multiply(is_green, np.float32(2), out=share)
    angle += np.multiply(is_blue, np.float32(4), out=share)


def _compute_grey(work: Workspace) -> None:
    """Whole numbers again."""
    grey, part = work.grey, work.room[0]
    np.multiply(work.planes[0], np.float32(_GREY[0]), out=grey)
    for plane, weight in zip(work.planes[1:], _GREY[1:], strict=True):
        grey += np.multiply(plane, np.float32(weight), out=part)
    np.floor(grey, out=grey)


def _to_whole_numbers(planes: Plane) -> None:
    np.clip(planes, np.float32(0), _WHITE, out=planes)
    np.floor(planes, out=planes)
