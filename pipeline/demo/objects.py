"""What hands hold and what stands in the corner: small shapes in loud colours, drawn with PIL.

Held objects belong to the causal action; corner objects mean nothing and follow the activity only by the confounder D.
"""

import math
from collections.abc import Callable

from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Shape = Callable[[ImageDraw.ImageDraw, float, float, float, float], None]
"""Draws at (x, y) with unit u and tilt t (-1 to 1), in drawing pixels."""


def _polygon(draw: ImageDraw.ImageDraw, centre: Point, corners: list[Point], colour: Colour, turn: float = 0.0) -> None:
    cos, sin = math.cos(turn), math.sin(turn)
    x, y = centre
    draw.polygon([(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in corners], fill=colour)


def _box(width: float, height: float, dx: float = 0.0, dy: float = 0.0) -> list[Point]:
    return [(dx - width, dy - height), (dx + width, dy - height), (dx + width, dy + height), (dx - width, dy + height)]


def _egg(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    draw.ellipse((x - 3 * u, y - (4.2 + 0.2 * t) * u, x + 3 * u, y + 4.2 * u), fill=(250, 248, 232))


def _butter(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    _polygon(draw, (x + u, y), _box(3.6 * u, 3.2 * u), (250, 214, 50), 0.1 * t)


def _salt(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    _polygon(draw, (x, y - 2 * u), [(-3.4 * u, -3 * u), (3.4 * u, -3 * u), (2 * u, 3 * u), (-2 * u, 3 * u)],
             (244, 244, 244), 0.3 * t)  # fmt: skip
    for k in (-2, 0, 2):
        draw.rectangle((x + k * u, y + 2 * u, x + (k + 0.7) * u, y + (3.4 + t) * u), fill=(255, 255, 255))


def _spoon(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    _polygon(draw, (x, y + 2 * u), _box(1.0 * u, 5.5 * u), (150, 74, 22), 0.25 * t)
    draw.ellipse((x - 2.4 * u, y + 4.5 * u, x + 2.4 * u, y + 9.5 * u), fill=(150, 74, 22))


def _bottle(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    turn = 0.5 + 0.4 * t
    _polygon(draw, (x, y - 2 * u), _box(2.6 * u, 4.6 * u), (240, 246, 255), turn)
    _polygon(draw, (x, y - 2 * u), _box(2.6 * u, 1.5 * u, dy=-5.0 * u), (30, 60, 210), turn)


def _kettle(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    _polygon(draw, (x + u, y + 2 * u), [(-4 * u, -3 * u), (4 * u, -3 * u), (5 * u, 4 * u), (-3.4 * u, 4 * u)],
             (60, 222, 210), 0.2 * t)  # fmt: skip
    draw.line((x + 5 * u, y, x + 8 * u, y - 3 * u), fill=(60, 222, 210), width=max(1, round(1.6 * u)))


def _cup(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    _polygon(draw, (x, y - u), [(-4 * u, -3.4 * u), (4 * u, -3.4 * u), (2.4 * u, 3.4 * u), (-2.4 * u, 3.4 * u)],
             (236, 40, 200), 0.2 * t)  # fmt: skip


def _bread(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    _polygon(draw, (x + u, y), _box(4.2 * u, 4.2 * u), (120, 72, 30), 0.08 * t)
    _polygon(draw, (x + u, y), _box(3.0 * u, 3.0 * u), (206, 136, 66), 0.08 * t)


def _jam(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    _polygon(draw, (x + u, y + u), _box(5.2 * u, 2.0 * u), (208, 16, 44), 0.35 * t)


def _knife(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    _polygon(draw, (x + 4 * u, y), [(-4 * u, -1.6 * u), (5 * u, -1.6 * u), (7 * u, 1.8 * u), (-4 * u, 1.8 * u)],
             (206, 210, 220), 0.1 * t)  # fmt: skip


def _bowl(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    draw.pieslice((x - 7 * u, y - (8 + t) * u, x + 7 * u, y + 4 * u), 0, 180, fill=(50, 96, 232))


def _pan(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    _polygon(draw, (x, y), _box(7.5 * u, 1.9 * u), (18, 18, 18), 0.12 * t)
    draw.ellipse((x - 3 * u, y - (5.2 + 1.5 * t) * u, x + 3 * u, y - (2 + 1.5 * t) * u), fill=(246, 206, 110))


def _phone(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    _polygon(draw, (x, y), _box(2.2 * u, 3.6 * u), (16, 16, 20), 0.05 * t)
    _polygon(draw, (x, y), _box(1.4 * u, 2.6 * u), (110, 214, 255), 0.05 * t)


def _glass(draw: ImageDraw.ImageDraw, x: float, y: float, u: float, t: float) -> None:
    _polygon(draw, (x, y - u), _box(2.4 * u, 3.8 * u), (120, 190, 246), 0.15 * t)


_HELD: dict[str, Shape] = {
    "crack egg": _egg,
    "add butter": _butter,
    "sprinkle salt": _salt,
    "stir": _spoon,
    "pour milk": _bottle,
    "boil kettle": _kettle,
    "spoon sugar": _cup,
    "toast bread": _bread,
    "spread jam": _jam,
    "cut fruit": _knife,
    "fill bowl": _bowl,
    "flip pan": _pan,
    "answer phone": _phone,
    "drink water": _glass,
}


def draw_object(draw: ImageDraw.ImageDraw, action: str, hand: Point, swing: float, scale: float, zoom: int) -> None:
    """The object of an action, in the hand. `hand` in frame pixels, drawn `zoom` times as large."""
    _HELD[action](draw, zoom * hand[0], zoom * hand[1], zoom * scale, swing)


def _star(points: int, outer: float, inner: float) -> list[Point]:
    angles = [math.pi * k / points - math.pi / 2 for k in range(2 * points)]
    radii = [outer if k % 2 == 0 else inner for k in range(2 * points)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


_CORNER: tuple[tuple[list[Point], Colour], ...] = (
    ([(0, -6), (5.5, 5), (-5.5, 5)], (255, 146, 20)),
    (_box(2.4, 6.5), (252, 252, 252)),
    (_star(5, 6.4, 2.8), (255, 220, 20)),
    (_star(8, 5.4, 5.4), (90, 160, 250)),
    (_star(3, 5.6, 4.6), (140, 36, 36)),
    (_box(1.8, 5.8) + _box(5.8, 1.8), (90, 250, 110)),
    (_star(8, 5.8, 5.8), (250, 90, 80)),
    ([(0, -6.6), (4.2, 0), (0, 6.6), (-4.2, 0)], (226, 118, 250)),
)
_CROSS, _RING = 5, 6


def draw_distractor(draw: ImageDraw.ImageDraw, kind: int, centre: Point, zoom: int) -> None:
    """The corner object number `kind` of scripts.DISTRACTORS, at `centre` in frame pixels."""
    corners, colour = _CORNER[kind]
    x, y = zoom * centre[0], zoom * centre[1]
    scaled = [(zoom * a, zoom * b) for a, b in corners]
    if kind == _RING:
        radius = zoom * 5.6
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=round(zoom * 1.8))
    elif kind == _CROSS:
        _polygon(draw, (x, y), scaled[:4], colour)
        _polygon(draw, (x, y), scaled[4:], colour)
    else:
        _polygon(draw, (x, y), scaled, colour)
