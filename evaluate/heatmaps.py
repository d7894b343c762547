"""Heat maps as inline SVG: several panels over the same rows and columns, in one colour scale.

The decision to question: a cell's strength is cut into a few levels, and all cells of a level are one path. A matrix of
a thousand cells then takes 30 kB of the page and not 200, and nobody reads more levels than that from a shade.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from evaluate.figures import HEAT, draw, short

_LEVELS = 12
_SQUARE = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
_CODES = (Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY)
_SMALL, _SMALLER = 8, 6.5
_MOST_NAMES = 40  # under one line of panels
_LETTER, _LINE = 0.075, 0.17  # inches


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One map: values (rows, columns), 0 or more."""

    title: str
    values: npt.NDArray[np.floating]


def heat_panels(
    panels: Sequence[Panel],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    x_label: str = "",
    y_label: str = "",
    marked: Collection[int] = (),
    per_line: int = 1,
    full: float | None = None,
    letters: int = 24,
) -> str:
    """Panels side by side or one below the other; the strongest value of all has the full colour.

    Args:
        panels: all of one shape.
        rows: their names, shown once per line of panels.
        columns: their names, shown under the last panel of each column; where they are the rows' and have no room,
            the label says that they stand in the same order.
        x_label: what columns are.
        y_label: what rows are.
        marked: numbers of rows whose names get a dot.
        per_line: panels side by side.
        full: the value with the full colour, in place of the strongest.
        letters: of the longest name of a row.

    Raises:
        ValueError: no panel, or one of another shape than the names.
    """
    shape = (len(rows), len(columns))
    wrong = [panel.values.shape for panel in panels if panel.values.shape != shape]
    if not panels or not all(shape) or wrong:
        raise ValueError(f"{len(panels)} panels for {shape[0]} rows and {shape[1]} columns, of shapes {wrong}")
    top = full or max(float(panel.values.max()) for panel in panels) or 1.0
    per_line = min(per_line, len(panels))
    lines = -(-len(panels) // per_line)
    names = [("● " if number in marked else "") + short(name, letters) for number, name in enumerate(rows)]
    below = [short(name, 18) for name in columns]
    if list(columns) == list(rows) and per_line * len(columns) > _MOST_NAMES:
        below, x_label = [], f"{x_label}, in the order of the rows"

    def paint(figure: Figure) -> None:
        grid = figure.subplots(lines, per_line, sharex=True, sharey=True, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number >= len(panels):
                axes.set_visible(False)
                continue
            _cells(axes, panels[number].values / top)
            axes.set_title(panels[number].title, loc="left", fontsize=9)
            _ticks(axes, names, below)
            axes.tick_params(length=0, labelbottom=number + per_line >= len(panels))
        figure.supylabel(y_label, fontsize=9)
        figure.supxlabel(f"{x_label} (full colour: {top:.2g})".strip(), fontsize=9)

    under = _LETTER * max(map(len, below), default=0) if _upright(below, per_line) else 0.2
    return draw(paint, height=0.5 + under + lines * (0.3 + _LINE * max(len(rows), 2)))


def _cells(axes: Axes, strengths: npt.NDArray[np.floating]) -> None:
    levels = np.ceil(np.clip(strengths, 0, 1) * _LEVELS - 0.5).astype(int)
    for level in range(1, _LEVELS + 1):
        places = np.argwhere(levels == level)
        if len(places):
            corners = np.flip(places, axis=1)[:, None] - 0.5  # x, y
            path = Path((corners + _SQUARE).reshape(-1, 2), np.tile(_CODES, len(places)))
            axes.add_patch(PathPatch(path, facecolor=HEAT, alpha=level / _LEVELS, linewidth=0))
    axes.set(xlim=(-0.5, strengths.shape[1] - 0.5), ylim=(strengths.shape[0] - 0.5, -0.5))
    for spine in axes.spines.values():
        spine.set_visible(True)


def _ticks(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    size = _SMALL if len(rows) <= 16 else _SMALLER
    axes.set_yticks(np.arange(len(rows)), rows, fontsize=size)
    axes.set_xticks(np.arange(len(columns)), columns, fontsize=size, rotation=90 if _upright(columns, 1) else 0)


def _upright(columns: Sequence[str], per_line: int) -> bool:
    """Whether the names of columns have to stand on end to fit."""
    return per_line * sum(len(name) + 1 for name in columns) > 60
