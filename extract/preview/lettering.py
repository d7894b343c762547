"""Text on pictures: the letters that come with Pillow, cut where the room ends."""

import functools
from typing import Any

from PIL import ImageFont

PAGE = (24, 25, 29)
"""Colour behind everything."""
INK = (235, 235, 235)
QUIET_INK = (165, 168, 175)
WARNING_INK = (255, 120, 100)


@functools.lru_cache(maxsize=16)
def font(size: int) -> Any:  # noqa: ANN401 (a bitmap font where Pillow was built without FreeType)
    """Pillow's own letters, so that pictures look alike on every machine."""
    return ImageFont.load_default(size=size)


def shortened(text: str, width: float, size: int) -> str:
    """The text, or its beginning and an ellipsis, within `width` pixels."""
    letters = font(size)
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
