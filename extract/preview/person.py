"""A skeleton and its box, drawn over a picture with smooth lines.

Left and right have colours of their own, because swapped sides are the commonest fault of a pose network and cannot be
seen otherwise. What the network was unsure of is drawn faintly and not left out: a missing arm and a doubtful arm are
different troubles.
"""

import itertools

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cache.skeletons import Skeleton
from extract.preview.clip_view import BOX_SOURCES, Figure
from extract.preview.lettering import font

Colour = tuple[int, int, int]

LEFT: Colour = (255, 150, 30)
"""The person's left side."""
RIGHT: Colour = (40, 190, 255)
"""The person's right side."""
MIDDLE: Colour = (250, 250, 250)
"""Joints and limbs of no side."""
BOX: Colour = (255, 235, 90)

_WHOLE_FRAME, _INTERPOLATED = BOX_SOURCES.index("whole frame"), BOX_SOURCES.index("interpolated")
_SMOOTH = 3  # drawn so many times larger, then averaged down
_CLEAR, _FAINT = 255, 80
_OUTLINE: Colour = (10, 10, 12)

Points = npt.NDArray[np.float64]


def draw_person(
    picture: Image.Image, figure: Figure, skeleton: Skeleton, *, scale: tuple[float, float], min_score: float
) -> Image.Image:
    """The picture with skeleton and box on it.

    Args:
        picture: RGB.
        figure: in pixels of the source.
        skeleton: limbs and sides.
        scale: pixels of the picture per pixel of the source, x before y.
        min_score: joints below are faint, and limbs that end in one.
    """
    overlay = Image.new("RGBA", (picture.width * _SMOOTH, picture.height * _SMOOTH), (*_OUTLINE, 0))
    draw = ImageDraw.Draw(overlay)
    factor = _SMOOTH * np.array(scale)
    corners = np.clip((figure.box.reshape(2, 2) + 0.5) * factor, 0, np.array(overlay.size) - 1)
    has_box = bool(np.isfinite(figure.box).all())
    if has_box:
        _draw_box(draw, corners, dashed=figure.box_source == _INTERPOLATED)
    _draw_skeleton(draw, (figure.xy + 0.5) * factor, figure.score, skeleton, min_score)
    if has_box:
        _draw_label(draw, corners[0], box_label(figure), overlay.width)
    smooth = overlay.resize(picture.size, Image.Resampling.BOX)
    return Image.alpha_composite(picture.convert("RGBA"), smooth).convert("RGB")


def sides(skeleton: Skeleton) -> list[Colour]:
    """A colour for each of the J joints."""
    colours = {"left": LEFT, "right": RIGHT}
    return [colours.get(name.partition("_")[0], MIDDLE) for name in skeleton.joint_names]


def limb_colour(first: Colour, second: Colour) -> Colour:
    """The side that a limb belongs to: that of its ends; from the middle outwards it is the outer end's."""
    if first == second:
        return first
    if MIDDLE in (first, second):
        return second if first == MIDDLE else first
    return MIDDLE


def _draw_skeleton(
    draw: ImageDraw.ImageDraw, points: Points, score: npt.NDArray[np.float32], skeleton: Skeleton, min_score: float
) -> None:
    colours = sides(skeleton)
    width = _line_width(points)
    for is_clear in (False, True):  # clear ones lie on top
        alpha = _CLEAR if is_clear else _FAINT
        for first, second in skeleton.limbs:
            lower = min(score[first], score[second])
            if lower > 0 and (lower >= min_score) == is_clear:
                ends = [tuple(points[first]), tuple(points[second])]
                draw.line(ends, fill=(*_OUTLINE, alpha), width=round(width + 2 * _SMOOTH))
                draw.line(ends, fill=(*limb_colour(colours[first], colours[second]), alpha), width=round(width))
        for joint in np.flatnonzero((score > 0) & ((score >= min_score) == is_clear)):
            _draw_dot(draw, points[joint], 0.95 * width, (*colours[joint], alpha), (*_OUTLINE, alpha))


def _draw_dot(
    draw: ImageDraw.ImageDraw,
    point: Points,
    radius: float,
    fill: tuple[int, int, int, int],
    outline: tuple[int, int, int, int],
) -> None:
    x, y = point
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=outline, width=_SMOOTH)


def _line_width(points: Points) -> float:
    """Thicker for larger people, at drawing size."""
    seen = points[np.isfinite(points).all(axis=1)]
    extent = float(np.ptp(seen, axis=0).max()) if len(seen) else 0.0
    return float(np.clip(0.018 * extent, 1.5 * _SMOOTH, 5 * _SMOOTH))


def box_label(figure: Figure) -> str:
    """Where the box comes from, and how sure its maker was."""
    name = BOX_SOURCES[figure.box_source]
    return name if figure.box_source == _WHOLE_FRAME else f"{name} {figure.box_score:.2f}"


def _draw_box(draw: ImageDraw.ImageDraw, corners: Points, *, dashed: bool) -> None:
    (left, top), (right, bottom) = corners
    around = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    for start, end in itertools.pairwise(np.array(around)):
        for first, last in _dashes(start, end) if dashed else [(start, end)]:
            draw.line([tuple(first), tuple(last)], fill=(*BOX, 230), width=round(1.4 * _SMOOTH))


def _dashes(start: Points, end: Points) -> list[tuple[Points, Points]]:
    count = max(1, int(np.linalg.norm(end - start) / (8 * _SMOOTH)))
    step = (end - start) / count
    return [(start + dash * step, start + (dash + 0.55) * step) for dash in range(count)]


def _draw_label(draw: ImageDraw.ImageDraw, corner: Points, text: str, room: int) -> None:
    """A tag on the box's upper left corner: above it, or inside where there is no room."""
    letters = font(11 * _SMOOTH)
    wide, high = letters.getlength(text) + 4 * _SMOOTH, 14 * _SMOOTH
    left = max(0.0, min(float(corner[0]), room - wide))
    top = float(corner[1]) - high if corner[1] >= high else float(corner[1])
    draw.rectangle((left, top, left + wide, top + high), fill=(*BOX, 215))
    draw.text((left + 2 * _SMOOTH, top + high / 2), text, fill=(*_OUTLINE, 255), font=letters, anchor="lm")
