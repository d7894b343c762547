"""The tables of a report, as text: the page and the Markdown print the same ones.

Fractions become percent with one decimal here; nothing is computed. The decision to question: an interval stands in the
same cell as its estimate, so that nobody quotes one without the other.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluate.uncertainty import LEVEL_TEXT

METRIC_NAMES = {
    "acc1": "Acc@1",
    "acc5": "Acc@5",
    "mean_class_accuracy": "mean class accuracy",
    "mean_class_accuracy_mmaction2": "mean class accuracy, mmaction2",
    "map_macro": "mAP, macro",
    "map_micro": "mAP, micro",
    "map_weighted": "mAP, weighted",
    "map_macro_all_zero": "mAP, absent classes as 0",
    "map_charades": "mAP, Charades rule",
    "map_macro_without_sil": "mAP, macro without SIL",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns and rows of text; `emphasis` holds the numbers of bold rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    emphasis: Sequence[int] = field(default=())


def percent(value: float | None) -> str:
    """A fraction in percent with one decimal; a dash for none."""
    return "–" if value is None else f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def p_text(value: float) -> str:
    """A p-value in two digits."""
    return f"{value:.2g}"


def interval_text(split: Mapping[str, Any], metric: str) -> str:
    """The two ends in percent, "88.0 to 94.1"; nothing where there is no interval."""
    edges = split["intervals"].get(metric)
    return f"{percent(edges['low'])} to {percent(edges['high'])}" if edges else ""


def with_interval(split: Mapping[str, Any], metric: str) -> str:
    """The estimate with its interval in brackets."""
    edges = interval_text(split, metric)
    return percent(split[metric]) + (f" ({edges})" if edges else "")


def cells(runs: Iterable[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    """(run, split name, split) of everything that was evaluated."""
    return [(run, name, split) for run in runs for name, split in run["splits"].items()]


def results(runs: Sequence[Mapping[str, Any]], *, every_metric: bool = False) -> Table:
    """The main metrics by the rule of their benchmark, or every one, of all runs and splits of one task."""
    found = cells(runs)
    main = found[0][0]["main_metrics"]
    others = [name for name in METRIC_NAMES if name not in main] if every_metric else []
    metrics = [name for name in (*main, *others) if any(name in split for _, _, split in found)]
    rows = [
        [run["label"], name, *(with_interval(split, metric) for metric in metrics), f"{split['num_clips']:.0f}"]
        for run, name, split in found
    ]
    return Table(
        columns=["run", "split", *(METRIC_NAMES[metric] for metric in metrics), "clips"],
        rows=rows,
        caption=f"In percent, {LEVEL_TEXT} intervals in brackets; the headline metric is {METRIC_NAMES[metrics[0]]}.",
    )


def remarks(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for what a split's numbers leave out (clips, classes) and for ties; once where all runs agree."""
    labels: dict[tuple[str, str], list[str]] = {}
    for run, name, split in cells(runs):
        for text in filter(None, [split["coverage"], *split["remarks"]]):
            labels.setdefault((name, text), []).append(run["label"])
    return [
        f"{name}{'' if len(inside) == len(runs) else ' of ' + ', '.join(inside)}: {text}"
        for (name, text), inside in labels.items()
    ]


def differences(comparisons: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> Table:
    """Second run minus first, in points, on the same clips.

    Args:
        comparisons: pairs of runs of one task.
        metrics: the main metrics of the task; the first of them is the headline.
    """
    counted = any(row["p_value"] is not None for row in comparisons)
    metrics = [name for name in metrics if any(name in row["differences"] for row in comparisons)]
    by_headline = metrics[0] != "acc1"
    rows = []
    for row in comparisons:
        line = [row["second"], row["first"], row["split"]]
        line += [_difference(row["differences"].get(metric)) for metric in metrics]
        line += _p_texts(row["differences"].get(metrics[0], {})) if by_headline else []
        line += _paired_test(row) if counted else []
        rows.append(line)
    tested = [f"p of {METRIC_NAMES[metrics[0]]}", "p, Holm"] if by_headline else []
    tested += ["only this right", "only that right", count_test(comparisons) + " p", "p, Holm"] if counted else []
    return Table(
        columns=["run", "minus", "split", *(METRIC_NAMES[metric] for metric in metrics), *tested],
        rows=rows,
        caption=" ".join(_about_differences(comparisons, metrics, counted=counted)),
    )


def count_test(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """What the exact test of the clips that only one gets right is called."""
    return "sign-flip" if any(row["cluster"] for row in comparisons) else "McNemar"


def _about_differences(
    comparisons: Sequence[Mapping[str, Any]], metrics: Sequence[str], *, counted: bool
) -> Iterator[str]:
    yield f"Percentage points with {LEVEL_TEXT} intervals over the same resamples."
    groups = dict.fromkeys(row["cluster"] for row in comparisons if row["cluster"])
    if counted and groups:
        yield (
            f"The sign-flip test is exact and over {', '.join(groups)} groups: McNemar's would take the clips of one "
            "group for independent."
        )
    if metrics[0] != "acc1":
        yield f"The p-value of {METRIC_NAMES[metrics[0]]} is by the same resamples (Student's t)."
        if counted:
            yield f"The other test counts clips that are right: it is one of Acc@1, not of {METRIC_NAMES[metrics[0]]}."
    yield "Holm's p-values hold for all comparisons of this report together."


def _p_texts(item: Mapping[str, Any]) -> list[str]:
    return ["–" if item.get(key) is None else p_text(item[key]) for key in ("p_value", "p_value_holm")]


def _difference(item: Mapping[str, Any] | None) -> str:
    if item is None:
        return "–"
    edges = f" ({points(item['low'])} to {points(item['high'])})" if item["low"] < item["high"] else ""
    return points(item["estimate"]) + edges


def _paired_test(row: Mapping[str, Any]) -> list[str]:
    if row["p_value"] is None:
        return ["–"] * 4
    return [str(row["only_second_right"]), str(row["only_first_right"]), *_p_texts(row)]


def not_compared(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence per pair that cannot be compared clip by clip."""
    return [f"{row['second']} and {row['first']} on {row['split']}: {row['reason']}" for row in rows]


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Mean and standard deviation where one configuration was trained with several seeds."""
    return Table(
        columns=["method", "variant", "task", "split", "metric", "seeds", "mean, %", "sd, points", "runs"],
        rows=[
            [
                *(row[key] for key in ("method", "variant", "task", "split")),
                METRIC_NAMES[row["metric"]],
                str(row["num_seeds"]),
                percent(row["mean"]),
                percent(row["sd"]),
                ", ".join(row["runs"]),
            ]
            for row in rows
        ],
        caption="How much training again changes a number; this comes on top of the interval over clips.",
    )


def published(runs: Sequence[Mapping[str, Any]]) -> Table:
    """The papers' figures beside the runs' own, where dataset, method and metric are the same."""
    rows = []
    for run, name, split in cells(runs):
        if name.startswith("train"):
            continue
        for item in run["published"]:
            ours = "; ".join(
                f"{METRIC_NAMES[metric]} {percent(split[metric])}" for metric in item["compare_with"] if metric in split
            )
            where = f"{item['paper']}, table {item['table']}" + (
                f" ({item['source']})" if item["source"] != "paper" else ""
            )
            printed = f"{item['percent']:g}"
            rows.append([run["label"], name, ours or "–", printed, item["method"], item["metric"], where])
    return Table(
        columns=["run", "split", "this run, %", "printed, %", "method", "metric", "where"],
        rows=rows,
        caption="Printed by the papers for the full method. They do not say how mAP is averaged: see each.",
    )


def skipped(runs: Sequence[Mapping[str, Any]]) -> Table:
    """How many clips have no logits, and why."""
    rows = [
        [run["label"], name, reason, str(count)]
        for run, name, split in cells(runs)
        for reason, count in split["skipped"].items()
    ]
    return Table(columns=["run", "split", "reason", "clips"], rows=rows)


def per_class(run: Mapping[str, Any]) -> Table:
    """Average precision (and recall) of every class on every split of one run; the caption says by which rule."""
    splits = run["splits"]
    single = run["kind"] == "single"
    columns = ["class"]
    for name in splits:
        columns += [f"{name}: AP, %", *([f"{name}: recall, %"] if single else []), f"{name}: clips"]
    rows = []
    for number, first in enumerate(next(iter(splits.values()))["per_class"]):
        line = [first["name"]]
        for split in splits.values():
            row = split["per_class"][number]
            line += [percent(row["average_precision"]), *([percent(row["recall"])] if single else [])]
            line.append(str(row["num_positives"]))
        rows.append(line)
    return Table(
        columns=columns, rows=rows, caption=f"The mean of AP over the classes is {METRIC_NAMES[class_mean(run)]}."
    )


def class_mean(run: Mapping[str, Any]) -> str:
    """The metric that the average precisions of a run's classes average to."""
    return "map_charades" if run["headline"] == "map_charades" else "map_macro"


def provenance(runs: Sequence[Mapping[str, Any]]) -> Table:
    """What each run is made of: recipe, seed, fingerprints, versions."""
    rows = []
    for run in runs:
        facts = {
            key: run[key] for key in ("method", "variant", "dataset", "task", "protocol", "recipe", "seed", "status")
        }
        facts |= {f"fingerprint of {stream}": digest for stream, digest in run["fingerprints"].items()}
        facts |= {f"version of {name}": version for name, version in run["versions"].items()}
        rows += [[run["label"], name, str(value)] for name, value in facts.items()]
    return Table(columns=["run", "fact", "value"], rows=rows)


def config_text(run: Mapping[str, Any]) -> str:
    """The resolved configuration as indented JSON."""
    return json.dumps(run["config"], indent=2, ensure_ascii=False, sort_keys=True)
