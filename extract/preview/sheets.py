"""Contact sheets: one clip as a grid of instants, or the worst clips of a cache with a row each."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from cache.store import FeatureStore
from extract.preview.clip_view import ClipView, Figure, read_clip, skeleton_of
from extract.preview.lettering import INK, PAGE, QUIET_INK, WARNING_INK, font, shortened
from extract.preview.panel import draw_panel, panel_size
from extract.preview.person import LEFT, MIDDLE, RIGHT
from extract.preview.worst import ClipQuality

MOST_INSTANTS = 16
_COLUMNS, _PANEL_WIDTH = 4, 400
_SHEET_WIDTH, _ROW_PICTURE_HEIGHT = 1968, 180
_NARROWEST_PANEL, _WIDEST_PANEL = 200, 400
_GAP = 8
_LINE = 22
_TITLE_SIZE, _TEXT_SIZE = 18, 14

Line = tuple[str, tuple[int, int, int], int]  # text, colour, size


def clip_sheet(view: ClipView, clip: ClipQuality, *, min_score: float) -> Image.Image:
    """Up to 16 instants of a clip, evenly spread.

    Raises:
        CacheError: a cached frame is not a JPEG.
    """
    figures = spread(view.figures, MOST_INSTANTS)
    grid = _grid(view, figures, min(_COLUMNS, len(figures)), _PANEL_WIDTH, min_score)
    shown = f"{len(figures)} instants shown" if len(figures) < clip.num_rows else "all shown"
    lines = [
        (clip.clip_id, INK, _TITLE_SIZE),
        (f"{clip} · {view.skeleton.name} · {shown}", QUIET_INK, _TEXT_SIZE),
        *((f"note: {note}", WARNING_INK, _TEXT_SIZE) for note in view.notes),
    ]
    return _framed([_heading(lines, grid.width), _legend(min_score, grid.width), grid])


def worst_sheet(store: FeatureStore, clips: Sequence[ClipQuality], *, min_score: float) -> Image.Image:
    """A row of instants for each clip, in the order given; as many as fit into the sheet.

    Raises:
        CacheError: as `read_clip`.
    """
    reader = store.joints
    summary = f"{skeleton_of(reader).name}: the {len(clips)} worst of {len(reader)} clips"
    if reader.failures:
        summary += f"; {len(reader.failures)} more have no rows at all, `deconfound status` says why"
    title = [(str(store.folder), INK, _TITLE_SIZE), (summary, QUIET_INK, _TEXT_SIZE)]
    rows = [part for clip in clips for part in _clip_row(store, clip, min_score)]
    return _framed([_heading(title, _SHEET_WIDTH), _legend(min_score, _SHEET_WIDTH), *rows])


def spread(figures: Sequence[Figure], count: int) -> list[Figure]:
    """At most `count` of them at even distances, the first and the last included."""
    places = np.linspace(0, len(figures) - 1, min(count, len(figures))).round().astype(int)
    return [figures[place] for place in places]


def _clip_row(store: FeatureStore, clip: ClipQuality, min_score: float) -> tuple[Image.Image, Image.Image]:
    """What there is to say about a clip, and its instants."""
    view = read_clip(store, clip.clip_id)
    lines: list[Line] = [("", INK, _TEXT_SIZE), (f"{clip.clip_id}:  {clip}", INK, _TEXT_SIZE)]
    lines += [(f"note: {note}", WARNING_INK, _TEXT_SIZE) for note in view.notes]
    width = int(np.clip(_ROW_PICTURE_HEIGHT * view.width / view.height, _NARROWEST_PANEL, _WIDEST_PANEL))
    figures = spread(view.figures, (_SHEET_WIDTH + _GAP) // (width + _GAP))
    return _heading(lines, _SHEET_WIDTH), _grid(view, figures, len(figures), width, min_score)


def _grid(view: ClipView, figures: Sequence[Figure], columns: int, width: int, min_score: float) -> Image.Image:
    height = panel_size(view, width)[1]
    rows = -(-len(figures) // columns)
    grid = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP), PAGE)
    for place, figure in enumerate(figures):
        row, column = divmod(place, columns)
        panel = draw_panel(view, figure, width=width, min_score=min_score)
        grid.paste(panel, (column * (width + _GAP), row * (height + _GAP)))
    return grid


def _heading(lines: Sequence[Line], width: int) -> Image.Image:
    image = Image.new("RGB", (width, _LINE * len(lines)), PAGE)
    draw = ImageDraw.Draw(image)
    for number, (text, colour, size) in enumerate(lines):
        middle = _LINE * (number + 0.5)
        draw.text((0, middle), shortened(text, width, size), fill=colour, font=font(size), anchor="lm")
    return image


def _legend(min_score: float, width: int) -> Image.Image:
    """What the colours mean."""
    image = Image.new("RGB", (width, _LINE), PAGE)
    draw = ImageDraw.Draw(image)
    entries = (("person's left", LEFT), ("person's right", RIGHT), ("middle", MIDDLE))
    left = 0.0
    for name, colour in entries:
        draw.line([(left, _LINE / 2), (left + 22, _LINE / 2)], fill=colour, width=4)
        draw.text((left + 28, _LINE / 2), name, fill=QUIET_INK, font=font(_TEXT_SIZE), anchor="lm")
        left += 28 + font(_TEXT_SIZE).getlength(name) + 22
    text = f"faint: score below {min_score:g}; dashed box: interpolated; dark picture: nobody"
    text = shortened(text, width - left, _TEXT_SIZE)
    draw.text((left, _LINE / 2), text, fill=QUIET_INK, font=font(_TEXT_SIZE), anchor="lm")
    return image


def _framed(images: Sequence[Image.Image]) -> Image.Image:
    """One above the other, with a margin around."""
    width = max(image.width for image in images)
    height = sum(image.height for image in images) + _GAP * (len(images) + 1)
    sheet = Image.new("RGB", (width + 2 * _GAP, height), PAGE)
    top = _GAP
    for image in images:
        sheet.paste(image, (_GAP, top))
        top += image.height + _GAP
    return sheet
