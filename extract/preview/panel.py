"""One instant as a picture: the frame with the person on it, and a strip that says when and how sure."""

import io

import numpy as np
from PIL import Image, ImageDraw

from cache.errors import CacheError
from extract.preview.clip_view import IMPORTED, NOBODY, ClipView, Figure
from extract.preview.lettering import INK, PAGE, QUIET_INK, WARNING_INK, font, shortened
from extract.preview.person import draw_person

_GREY = (92, 94, 98)
_NOBODY_DIMMING = 0.45


def panel_size(view: ClipView, width: int) -> tuple[int, int]:
    """Width and height of a panel of this clip whose picture is `width` wide."""
    return width, round(width * view.height / view.width) + strip_height(width)


def draw_panel(view: ClipView, figure: Figure, *, width: int, min_score: float) -> Image.Image:
    """The panel of one instant.

    Args:
        view: the clip.
        figure: one of its figures.
        width: of the panel, in pixels; smaller frames are enlarged.
        min_score: joints below are faint.

    Raises:
        CacheError: the cached frame is not a JPEG.
    """
    size = panel_size(view, width)
    strip = strip_height(width)
    picture = _picture(view, figure, (width, size[1] - strip))
    if figure.valid == NOBODY:
        picture = Image.blend(Image.new("RGB", picture.size), picture, _NOBODY_DIMMING)
    scale = picture.width / view.width, picture.height / view.height
    picture = draw_person(picture, figure, view.skeleton, scale=scale, min_score=min_score)
    panel = Image.new("RGB", size, PAGE)
    panel.paste(picture, (0, strip))
    _write_strip(ImageDraw.Draw(panel), figure, width, min_score)
    return panel


def strip_height(width: int) -> int:
    """Height of the line of text above a picture."""
    return round(1.6 * _text_size(width))


def outcome(figure: Figure, min_score: float) -> str:
    """What came of the instant, in a few words."""
    if figure.valid == NOBODY:
        return "nobody"
    found = figure.score > 0
    mean = float(figure.score[found].mean()) if found.any() else 0.0
    sure = int((figure.score >= min_score).sum())
    words = f"{sure}/{len(figure.score)} joints · mean {mean:.2f}"
    return f"imported · {words}" if figure.valid == IMPORTED else words


def _text_size(width: int) -> int:
    return int(np.clip(width / 26, 10, 16))


def _picture(view: ClipView, figure: Figure, size: tuple[int, int]) -> Image.Image:
    if figure.jpeg is None:
        return Image.new("RGB", size, _GREY)
    try:
        with Image.open(io.BytesIO(figure.jpeg), formats=["JPEG"]) as frame:
            return frame.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    except (OSError, Image.DecompressionBombError) as error:
        raise CacheError(
            f"frame {figure.frame_index} of {view.clip_id!r} is not a JPEG ({error}): "
            "run `deconfound verify CACHE --deep`"
        ) from error


def _write_strip(draw: ImageDraw.ImageDraw, figure: Figure, width: int, min_score: float) -> None:
    size = _text_size(width)
    middle = strip_height(width) / 2
    right = outcome(figure, min_score)
    ink = WARNING_INK if figure.valid == NOBODY else QUIET_INK
    draw.text((width - 4, middle), right, fill=ink, font=font(size), anchor="rm")
    room = width - 16 - font(size).getlength(right)
    left = shortened(f"{figure.seconds:.2f} s · frame {figure.frame_index}", room, size)
    draw.text((4, middle), left, fill=INK, font=font(size), anchor="lm")
