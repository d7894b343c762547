"""The tables and captions of what lies behind the headline: groups, wrong clips, folds, costs.

As in `evaluate.tables`, nothing is computed here but percent.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluate.groups import FEWEST_CLIPS
from evaluate.tables import METRIC_NAMES, Table, cells, percent

_COSTS = {
    "epochs": ("epochs", 0),
    "seconds": ("training, s", 1),
    "seconds_per_epoch": ("s per epoch", 2),
    "data_seconds": ("of that waiting for data, s", 1),
    "clips_per_second": ("clips/s", 1),
    "peak_memory_gigabytes": ("peak memory, GB", 2),
    "parameters": ("trained parameters", 0),
}


def worst_groups(runs: Sequence[Mapping[str, Any]]) -> Table:
    """The value of every group on which a run fares worst, beside the whole split; of runs with one headline."""
    rows = []
    for run, name, split in _tested(runs):
        for group, value in split["worst_groups"].items():
            found = split["groups"][group][value]
            whole = percent(split[run["headline"]])
            rows.append([run["label"], name, group, value, percent(found["value"]), whole, str(found["num_clips"])])
    metric = METRIC_NAMES[runs[0]["headline"]]
    return Table(
        columns=["run", "split", "group", "worst", f"{metric}, %", "all clips, %", "clips"],
        rows=rows,
        caption=f"The worst of the values with {FEWEST_CLIPS} clips and more.",
    )


def groups(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Table]]:
    """The headline within every value of a group, worst first.

    Returns:
        Group -> for one run a table with a column per split; for several a table per split with a column per run.
    """
    tested = sorted(_tested(runs), key=lambda cell: cell[1])
    names = dict.fromkeys(group for _, _, split in tested for group in split["groups"])
    found: dict[str, list[Table]] = {}
    for group in names:
        inside = [cell for cell in tested if group in cell[2]["groups"]]
        by_split = [
            [cell for cell in inside if cell[1] == name] for name in dict.fromkeys(name for _, name, _ in inside)
        ]
        found[group] = [_group_table(part, group) for part in ([inside] if len(runs) == 1 else by_split)]
    return found


def _group_table(found: Sequence[tuple[Mapping[str, Any], str, Mapping[str, Any]]], group: str) -> Table:
    """A column per cell; the clips of a split stand before the first run on it."""
    is_one_run = len({run["label"] for run, _, _ in found}) == 1
    columns, scores, counted = [group], [], set[str]()
    for run, name, split in found:
        if name not in counted:
            counted.add(name)
            columns.append(f"{name}: clips" if is_one_run else "clips")
            scores.append((split["groups"][group], "num_clips"))
        columns.append(f"{name}: %" if is_one_run else run["label"])
        scores.append((split["groups"][group], "value"))
    values = dict.fromkeys(value for column, _ in scores for value in column)
    first = found[0][2]["groups"][group]
    rows = []
    for value in sorted(values, key=lambda value: _rank(first.get(value), value)):
        rows.append([value or "unknown", *(_group_cell(column.get(value), key) for column, key in scores)])
    metric = METRIC_NAMES[found[0][0]["headline"]]
    return Table(columns=columns, rows=rows, caption=f"{metric}, %" + ("." if is_one_run else f", on {found[0][1]}."))


def _group_cell(score: Mapping[str, Any] | None, key: str) -> str:
    if key == "num_clips":
        return str(score[key]) if score else "0"
    return percent(score[key] if score else None)


def _rank(score: Mapping[str, Any] | None, value: str) -> tuple[float, str]:
    return (2.0 if score is None or score["value"] is None else score["value"], value)


def belief_texts(clip: Mapping[str, Any]) -> tuple[str, str]:
    """What a clip shows and what it was taken for, each with the model's probability."""
    labels, mistaken = (
        ", ".join(f"{belief['name']} {percent(belief['probability'])} %" for belief in clip[key])
        for key in ("labels", "mistaken")
    )
    more = clip["num_labels"] - len(clip["labels"])
    others = f" and {more} more" if more > 0 else ""
    return (labels + others) or "none of the classes", mistaken or "–"


def clip_caption(clip: Mapping[str, Any]) -> str:
    """One clip in four lines."""
    shows, taken = belief_texts(clip)
    where = ", ".join(f"{group} {value}" for group, value in clip["groups"].items())
    return f"{clip['clip_id']}\nshows: {shows}\ntaken for: {taken}\nerror {clip['error']:.2f}{where and '; '}{where}"


def clips(found: Sequence[Mapping[str, Any]]) -> Table:
    """Clips without pictures."""
    rows = []
    for clip in found:
        where = ", ".join(f"{group} {value}" for group, value in clip["groups"].items())
        rows.append([clip["clip_id"], *belief_texts(clip), f"{clip['error']:.2f}", where])
    return Table(columns=["clip", "shows", "taken for", "error", "groups"], rows=rows)


def over_folds(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """The folds of each configuration and their mean: a table per set of folds."""
    tables: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        tables.setdefault((row["dataset"], *(fold["protocol"] for fold in row["folds"])), []).append(row)
    return [_fold_table(members, folds) for (_, *folds), members in tables.items()]


def _fold_table(rows: Sequence[Mapping[str, Any]], folds: Sequence[str]) -> Table:
    return Table(
        columns=["method", "variant", "task", "split", "metric", *folds, "mean, %", "sd, points", "runs"],
        rows=[
            [
                *(row[key] for key in ("method", "variant", "task", "split")),
                METRIC_NAMES[row["metric"]],
                *(percent(fold["value"]) for fold in row["folds"]),
                percent(row["mean"]),
                percent(row["sd"]),
                ", ".join(label for fold in row["folds"] for label in fold["runs"]),
            ]
            for row in rows
        ],
        caption=f"All {len(folds)} folds. The deviation is one between folds; seeds of a fold count as their mean.",
    )


def costs(runs: Sequence[Mapping[str, Any]]) -> Table:
    """What is known of what each run cost."""
    known = [key for key in _COSTS if any(key in run["costs"] for run in runs)]
    return Table(
        columns=["run", *(_COSTS[key][0] for key in known)],
        rows=[
            [run["label"], *(_cost(run["costs"].get(key), _COSTS[key][1]) for key in known)]
            for run in runs
            if run["costs"]
        ],
        caption="As the runs wrote it down: time of training with its validation, and the weights of the checkpoint.",
    )


def _cost(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _tested(runs: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    return [cell for cell in cells(runs) if not cell[1].startswith("train")]
