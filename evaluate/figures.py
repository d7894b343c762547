"""Figures as inline SVG: learning curves, bars per class, test splits compared, a confusion matrix.

No pyplot and no global state: a `Figure` and its SVG canvas each time, under one fixed style. The decision to question:
ink, grid and panel are drawn in sentinel colours that become `currentColor`, so that one SVG follows the page from
light to dark and to paper; text stays text in the page's own font, to be searched and read at any size. Equal input
gives equal bytes: the hash salt is fixed and no date is written. Colours are Okabe and Ito's, which the colour-blind
can tell apart, and every series has its own marker too.
"""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

_INK, _GRID = "#010203", "#010204"
_SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
HEAT = _SERIES[0]
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_WIDTH = 5.4  # inches: read at full size on a wide page and at two thirds on a phone
_MOST_BARS, _MOST_MARKERS = 60, 20
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "deconfound",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
}


Line = Sequence[tuple[float, float]]
"""Points (epoch, value)."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value with its interval, which need not hold it, both in the unit of the axis; None: no interval."""

    value: float
    interval: tuple[float, float] | None = None


def draw(paint: Callable[[Figure], None], *, height: float) -> str:
    """What another file paints, in the style of all figures, as SVG; `height` in inches, the width is that of all."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        paint(figure)
        return _svg(figure)


def learning_curves(curves: Mapping[str, Sequence[Line]], *, y_label: str, x_label: str = "epoch") -> str:
    """A colour per series: its one line, or a thin line for each of several and their mean over it.

    Args:
        curves: name -> lines of (epoch, value), for example one for each seed; lines without points are left out.
        y_label: what the values are, and their unit.
        x_label: what the epochs are.

    Raises:
        ValueError: no line has a finite point.
    """
    points = {name: [line for line in map(_finite_points, lines) if len(line)] for name, lines in curves.items()}
    points = {name: lines for name, lines in points.items() if lines}
    if not points:
        raise ValueError("there is no finite point to draw a learning curve of")
    with mpl.rc_context(_STYLE):
        figure, axes = _new(3.0)
        for number, (name, lines) in enumerate(points.items()):
            style = _series_style(number)
            for line in lines if len(lines) > 1 else []:
                axes.plot(*line.T, color=style["color"], linewidth=0.9, alpha=0.55)
            mean = _mean_line(lines)
            every = max(1, len(mean) // _MOST_MARKERS)
            axes.plot(*mean.T, label=name, linewidth=1.6, markersize=4, markevery=every, **style)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True))
        axes.grid(axis="y")
        _legend(figure, axes, len(points))
        return _svg(figure)


def _mean_line(lines: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """The mean at every epoch that all lines have; lines (points, 2) hold an epoch once."""
    values = [dict(line.tolist()) for line in lines]
    shared = sorted(set(values[0]).intersection(*values[1:]))
    return np.array([(epoch, np.mean([line[epoch] for line in values])) for epoch in shared]).reshape(-1, 2)


def class_bars(values: Mapping[str, float], *, x_label: str, mean: float | None = None) -> str:
    """Horizontal bars in the order given, best first if the caller sorted them; at most 60, the middle left out.

    Raises:
        ValueError: no classes.
    """
    if not values:
        raise ValueError("there are no classes to draw bars of")
    names, heights = _ends(values)
    with mpl.rc_context(_STYLE):
        figure, axes = _new(0.9 + 0.2 * len(names))
        places = np.arange(len(names))
        axes.barh(places, heights, height=0.72, color=_SERIES[0])
        axes.set_yticks(places, [short(name) for name in names])
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=x_label, xlim=(0, 100), ylim=(len(names) - 0.4, -0.6))
        axes.grid(axis="x")
        if mean is not None:
            axes.axvline(mean, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                f"mean {mean:.1f}", (mean, 1), xycoords=("data", "axes fraction"), xytext=(0, 4),
                textcoords="offset points", ha="center", fontsize=9,
            )  # fmt: skip
        return _svg(figure)


def difference_bars(values: Mapping[str, float], *, x_label: str) -> str:
    """Horizontal bars to both sides of zero in the order given, gains and losses in two colours; at most 60.

    Raises:
        ValueError: no classes.
    """
    if not values:
        raise ValueError("there are no classes to draw bars of")
    names, widths = _ends(values)
    with mpl.rc_context(_STYLE):
        figure, axes = _new(0.9 + 0.2 * len(names))
        places = np.arange(len(names))
        axes.barh(places, widths, height=0.72, color=[_SERIES[0] if width >= 0 else _SERIES[1] for width in widths])
        axes.set_yticks(places, [short(name) for name in names])
        axes.tick_params(axis="y", length=0)
        reach = max(1.0, *(1.05 * abs(width) for width in widths))
        axes.set(xlabel=x_label, xlim=(-reach, reach), ylim=(len(names) - 0.4, -0.6))
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.grid(axis="x")
        return _svg(figure)


def _ends(values: Mapping[str, float]) -> tuple[list[str], list[float]]:
    """Names and heights, of more than 60 the first and the last 30."""
    names, heights = list(values), list(values.values())
    if len(names) <= _MOST_BARS:
        return names, heights
    half = _MOST_BARS // 2
    gap = f"… {len(names) - 2 * half} classes between …"
    return [*names[:half], gap, *names[-half:]], [*heights[:half], 0.0, *heights[-half:]]


def split_comparison(
    points: Mapping[str, Mapping[str, Point]], *, x_label: str, references: Mapping[str, float] | None = None
) -> str:
    """Dots with intervals: one row per run, grouped by test split.

    Args:
        points: run -> split -> point; a run may lack a split.
        x_label: metric and unit.
        references: dashed lines with a name, e.g. chance.

    Raises:
        ValueError: no run has a point.
    """
    splits = list(dict.fromkeys(split for row in points.values() for split in row))
    if not splits:
        raise ValueError("there is no run with a value to compare")
    pitch = len(points) + 1.0
    with mpl.rc_context(_STYLE):
        figure, axes = _new(1.0 + 0.19 * pitch * len(splits) + 0.2 * -(-len(points) // 2))
        for number, (run, row) in enumerate(points.items()):
            drawn = [(splits.index(split) * pitch + number, point) for split, point in row.items()]
            if drawn:
                _dots(axes, drawn, run, number)
        axes.set_yticks([place * pitch + (len(points) - 1) / 2 for place in range(len(splits))], splits)
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=x_label, ylim=(len(splits) * pitch - 1, -1))
        for place in range(1, len(splits)):
            axes.axhline(place * pitch - 1, color=_GRID, linewidth=0.6)
        axes.grid(axis="x")
        for name, value in (references or {}).items():
            axes.axvline(value, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                name, (value, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
                textcoords="offset points", ha="center", fontsize=9,
            )  # fmt: skip
        _legend(figure, axes, len(points))
        return _svg(figure)


def confusion(matrix: npt.NDArray[np.int64], class_names: Sequence[str]) -> str:
    """A confusion matrix, rows (targets) in percent; with numbers up to 16 classes.

    Raises:
        ValueError: the matrix is not (C, C) for C names.
    """
    num_classes = len(class_names)
    if matrix.shape != (num_classes, num_classes) or not num_classes:
        raise ValueError(f"a confusion matrix of {num_classes} classes cannot have shape {matrix.shape}")
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(100.0 * matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    with mpl.rc_context(_STYLE):
        figure, axes = _new(_WIDTH if num_classes > 6 else 4.0)
        _cells(axes, shares)
        if num_classes <= 16:
            for row, column in zip(*np.nonzero(shares >= 0.5), strict=True):
                share = shares[row, column]
                axes.text(
                    column, row, f"{share:.0f}", ha="center", va="center", fontsize=8,
                    color="white" if share > 55 else _INK,
                )  # fmt: skip
        names = [short(name, 22) for name in class_names] if num_classes <= 48 else []
        size = 9 if num_classes <= 16 else 5.5
        axes.set_xticks(np.arange(len(names)), names, rotation=90, fontsize=size)
        axes.set_yticks(np.arange(len(names)), names, fontsize=size)
        axes.tick_params(length=0)
        axes.set(xlabel="predicted class", ylabel="target class")
        axes.set(xlim=(-0.5, num_classes - 0.5), ylim=(num_classes - 0.5, -0.5))
        return _svg(figure)


def _cells(axes: Axes, shares: npt.NDArray[np.float64]) -> None:
    """One rectangle per nonzero cell: sharp at any size, and nothing at all where there is nothing."""
    for row, column in zip(*np.nonzero(shares), strict=True):
        strength = float(shares[row, column] / 100)
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=_SERIES[0], alpha=strength, linewidth=0))
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_visible(True)


def _dots(axes: Axes, drawn: Sequence[tuple[float, Point]], run: str, number: int) -> None:
    style = _series_style(number) | {"linestyle": "none"}
    places = [place for place, _ in drawn]
    axes.plot([point.value for _, point in drawn], places, label=run, markersize=5.5, **style)
    known = [(place, *point.interval) for place, point in drawn if point.interval]
    if known:
        at, low, high = np.array(known).T
        axes.errorbar(
            (low + high) / 2, at, xerr=(high - low) / 2, fmt="none", ecolor=style["color"], elinewidth=1.4, capsize=2.5
        )


def _series_style(number: int) -> dict[str, Any]:
    lines = ("-", (0, (5, 2)), (0, (1, 1.5)))
    return {
        "color": _SERIES[number % len(_SERIES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": lines[number // len(_SERIES) % len(lines)],
    }


def _finite_points(line: Line) -> npt.NDArray[np.float64]:
    points = np.array([point for point in line if np.isfinite(point).all()], dtype=np.float64)
    return points.reshape(-1, 2)


def short(name: str, width: int = 30) -> str:
    """A name in one line that fits an axis."""
    flat = " ".join(name.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def _new(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _legend(figure: Figure, axes: Axes, num_series: int) -> None:
    if num_series > 1:
        handles, labels = axes.get_legend_handles_labels()
        labels = [short(label, 34) for label in labels]
        figure.legend(handles, labels, loc="outside upper left", ncols=min(2, num_series), borderaxespad=0.2)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text: the reader's font draws it, whatever the font that measures it lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure)
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # several figures share a page: only referenced ids stay
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = text.replace("font-family: 'DejaVu Sans'", "font-family: inherit")
    return _compact(text.replace(_GRID, "currentColor; stroke-opacity: 0.18").replace(_INK, "currentColor")).strip()


def _compact(svg: str) -> str:
    """Half the bytes: a hundredth of a point is finer than any screen, and line ends mean nothing. Texts stay."""
    tags = re.sub(r"<[^>]*>", lambda tag: re.sub(r"\d+\.\d{3,}", _hundredths, re.sub(r"\s+", " ", tag[0])), svg)
    return re.sub(r">\s+<", "><", tags)


def _hundredths(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}"
