"""The tables of a comparison: what differs between runs, and by how much in every class and group.

As in `evaluate.tables`, nothing is computed here but percent.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cache.manifest import TaskKind
from evaluate.detail_tables import belief_texts
from evaluate.tables import Table, p_text, percent, points

_DESCRIBED = ("method", "variant", "recipe", "seed", "fingerprints", "versions", "config")
CHANGES: Mapping[TaskKind, tuple[str, str]] = {"single": ("fixed", "broken"), "multi": ("better", "worse")}
"""What has become of clips: right or wrong of a single label, a smaller or a larger error of many."""
_ENDS = 10
"""Rows of the largest gains and losses that are shown at once."""


def settings(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Every key of recipe, fingerprints and versions in which the runs are not the same, a column per run."""
    flat = [dict(_flat({key: run[key] for key in _DESCRIBED})) for run in runs]
    keys = dict.fromkeys(key for values in flat for key in values)
    rows = [
        [key, *(values.get(key, "–") for values in flat)]
        for key in keys
        if len({values.get(key) for values in flat}) > 1
    ]
    return Table(columns=["key", *(run["label"] for run in runs)], rows=rows)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401 (any JSON)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, str(value)


def classes(comparison: Mapping[str, Any], *, single: bool) -> Table:
    """Every class, the largest gain first."""
    what = "recall" if single else "average precision"
    test = "the exact test of its clips" if single else "the paired bootstrap over the clips that have it"
    return _rows(
        comparison["per_class"],
        "class",
        "name",
        caption=f"By {what}, %; p by {test}, Holm's over the classes of this table.",
        with_interval=not single,
    )


def ends(table: Table) -> Table | None:
    """The first and the last ten rows of a long table; None for one that is short enough."""
    if len(table.rows) <= 2 * _ENDS + 2:
        return None
    gap = ["…"] * len(table.columns)
    return Table(columns=table.columns, rows=[*table.rows[:_ENDS], gap, *table.rows[-_ENDS:]], caption=table.caption)


def groups(comparison: Mapping[str, Any], metric: str) -> dict[str, Table]:
    """Group -> every value, the largest gain first."""
    return {
        group: _rows(
            rows, group, "value", caption=f"{metric}, %; Holm's p over the values of this table.", with_interval=True
        )
        for group, rows in comparison["groups"].items()
        if rows
    }


def _rows(rows: Sequence[Mapping[str, Any]], title: str, key: str, *, caption: str, with_interval: bool) -> Table:
    return Table(
        columns=[title, "clips", "before", "after", "points", "p", "p, Holm"],
        rows=[
            [
                row[key] or "unknown",
                str(row["num_clips"]),
                percent(row["first"]),
                percent(row["second"]),
                points(row["difference"]) + (_edges(row) if with_interval else ""),
                *("–" if row[name] is None else p_text(row[name]) for name in ("p_value", "p_value_holm")),
            ]
            for row in rows
        ],
        caption=caption,
    )


def _edges(row: Mapping[str, Any]) -> str:
    return "" if row["low"] is None else f" ({points(row['low'])} to {points(row['high'])})"


def change_text(changed: Mapping[str, Any], kind: TaskKind) -> str:
    """How many clips changed."""
    gained, lost = CHANGES[kind]
    return f"{changed['num_fixed']} clips {gained}, {changed['num_broken']} {lost}."


def change_caption(clip: Mapping[str, Any], names: tuple[str, str]) -> str:
    """What two runs made of one clip, three lines each."""
    where = ", ".join(f"{group} {value}" for group, value in clip["groups"].items())
    told = [f"{name}, {_belief(clip[key])}" for key, name in zip(("first", "second"), names, strict=True)]
    return "\n".join([clip["clip_id"], *told, *([where] if where else [])])


def changes(clips: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> Table:
    """Changed clips without pictures."""
    rows = [[clip["clip_id"], *(_belief(clip[key]) for key in ("first", "second"))] for clip in clips]
    return Table(columns=["clip", *names], rows=rows)


def _belief(told: Mapping[str, Any]) -> str:
    labels, others = belief_texts(told)
    return f"error {told['error']:.2f}\nlabel: {labels}\nother: {others}"
