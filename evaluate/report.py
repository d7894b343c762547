"""One folder per evaluation: a page for people, JSON and CSV for programs, Markdown for a pull request.

    index.html      self-contained: figures inline, no script, no network
    metrics.json    every number that the page shows (evaluate/summary.py has its shape)
    per_class.csv   run, split, class, num_positives, average_precision (by the headline's rule), recall, num_predicted
    report.md       notices and the main tables

The decision to question: notices (random weights, unfinished runs, a checkpoint chosen on test) stand above the first
number and cannot be switched off, because numbers travel without the page's small print.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache import atomic
from cache.run import Run
from evaluate import figures, report_text, tables
from evaluate.across_runs import families, family_name, question
from evaluate.page import Page
from evaluate.paper_pictures import add_paper_pictures
from evaluate.summary import summarise
from evaluate.tables import METRIC_NAMES, Table, percent
from evaluate.uncertainty import LEVEL_TEXT

_MOST_FIGURES = 24
_FIRST_KEYS = ("epoch", "loss")  # of a row of metrics.jsonl; the others are folded away
_METHOD = [
    "Every number is computed in float64 from the raw float32 logits that the run stored.",
    "mAP, macro: average precision per class (ties enter together, as in scikit-learn), averaged over the classes that "
    "have a positive clip. Micro: one ranking of all decisions. Weighted: by the number of positives.",
    "mAP, Charades rule: macro, and clips without any label rank last, whatever their scores; where this stands first, "
    "they do so in the AP of every class too.",
    "Mean class accuracy: recall averaged over the classes present in the targets; in the mmaction2 form classes that "
    "are only predicted count 0.",
    "A tie for the first places counts by its chance.",
]


def write_report(
    runs: Sequence[Run],
    folder: Path,
    *,
    cluster: str | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluates runs and writes the four files; equal runs give equal files.

    Args:
        runs: opened run directories, in the order in which they are shown; the first of a task is the reference.
        folder: where to write; made if it is absent.
        cluster: a group (e.g. "subject") whose clips are resampled together.
        num_resamples: of every bootstrap.
        seed: of every bootstrap.

    Returns:
        What metrics.json holds.

    Raises:
        ConfigError: no runs, no predictions, or an unknown group.
        StorageError: the disk refused.
    """
    summary = summarise(runs, cluster=cluster, num_resamples=num_resamples, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / "metrics.json", summary)
    atomic.write_bytes(folder / "per_class.csv", report_text.per_class_csv(summary).encode())
    atomic.write_bytes(folder / "report.md", report_text.markdown(summary).encode())
    _page(summary, runs).write(folder / "index.html")
    return summary


def _page(summary: Mapping[str, Any], runs: Sequence[Run]) -> Page:
    page = Page(report_text.title(summary), lead=report_text.lead(summary))
    for text, labels in report_text.notices(summary).items():
        everyone = len(labels) == len(summary["runs"])
        page.note(text, kind="warning", title="Warning" if everyone else f"Warning: {', '.join(labels)}")
    tasks = report_text.runs_by_task(summary)
    if len(tasks) == 1:
        _tiles(page, tasks[0])
    for of_task in tasks:
        _task_section(page, of_task, summary)
    _curves_section(page, summary["runs"])
    _classes_section(page, summary["runs"])
    add_paper_pictures(page, runs, summary)
    _small_print(page, summary)
    return page


def _tiles(page: Page, runs: Sequence[Mapping[str, Any]]) -> None:
    found = [cell for cell in tables.cells(runs) if not cell[1].startswith("train")]
    if not 1 <= len(found) <= 6:
        return
    metric = runs[0]["headline"]
    items = []
    for run, name, split in found:
        edges = tables.interval_text(split, metric)
        label = f"{METRIC_NAMES[metric]}, {name}" + (f", {run['label']}" if len(runs) > 1 else "")
        items.append((label, f"{percent(split[metric])} %", f"{LEVEL_TEXT} interval {edges}" if edges else ""))
    page.tiles(items)


def _task_section(page: Page, runs: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    dataset, task, protocol = question(runs[0])
    metric = runs[0]["headline"]
    page.section(f"Results: {task}")
    page.paragraph(f"Dataset {dataset}, task {task} ({runs[0]['kind']} label), protocol {protocol}.")
    _paragraphs(page, report_text.rules(runs))
    _add(page, tables.results(runs))
    _paragraphs(page, tables.remarks(runs))
    if len(tables.cells(runs)) > 1:
        caption = f"{METRIC_NAMES[metric]} by test split, with {LEVEL_TEXT} intervals."
        svg = figures.split_comparison(_points(runs, metric), x_label=f"{METRIC_NAMES[metric]}, %")
        page.figure(svg, caption=caption, alt=f"{caption} The numbers are those of the table above.")
    with page.folded("Every metric"):
        _add(page, tables.results(runs, every_metric=True))
    labels = {run["label"] for run in runs}
    compared = [row for row in summary["comparisons"] if row["first"] in labels]
    refused = [row for row in summary["not_compared"] if row["first"] in labels]
    if compared:
        page.heading("Paired differences")
        _add(page, tables.differences(compared, runs[0]["main_metrics"], cluster=summary["cluster"]))
    if refused:
        page.paragraph("Not compared clip by clip, because the runs saw different data:")
        page.bullets(tables.not_compared(refused))
    seeds = [
        row
        for row in summary["over_seeds"]
        if (row["dataset"], row["task"], row["protocol"], row["metric"]) == (*question(runs[0]), metric)
    ]
    if seeds:
        page.heading("Over seeds")
        _add(page, tables.over_seeds(seeds))
    paper = tables.published(runs)
    if paper.rows:
        page.heading("Beside the papers")
        _add(page, paper)
    for group, table in tables.groups(runs).items():
        with page.folded(f"By {group}"):
            _add(page, table)


def _paragraphs(page: Page, texts: Sequence[str]) -> None:
    for text in texts:
        page.paragraph(text)


def _points(runs: Sequence[Mapping[str, Any]], metric: str) -> dict[str, dict[str, figures.Point]]:
    points: dict[str, dict[str, figures.Point]] = {}
    for run, name, split in tables.cells(runs):
        edges = split["intervals"].get(metric)
        interval = (100 * edges["low"], 100 * edges["high"]) if edges else None
        points.setdefault(run["label"], {})[name] = figures.Point(value=100 * split[metric], interval=interval)
    return points


def _curves_section(page: Page, runs: Sequence[Mapping[str, Any]]) -> None:
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for run in (run for run in runs if run["curves"]):
        tasks.setdefault(run["task"], []).append(run)
    if tasks:
        page.section("Learning curves")
    if any(len(family) > 1 for inside in tasks.values() for family in families(inside)):
        page.paragraph("Thin lines are runs that differ in their seed alone; the thick one is their mean.")
    for task, inside in tasks.items():
        if len(tasks) > 1:
            page.heading(task)
        _task_curves(page, inside)


def _task_curves(page: Page, runs: Sequence[Mapping[str, Any]]) -> None:
    if losses := _curves(runs, "loss"):
        svg = figures.learning_curves(losses, y_label="training loss")
        page.figure(svg, caption="Training loss, mean of each epoch.")
    keys = dict.fromkeys(key for run in runs for row in run["curves"] for key in row)
    for key in (key for key in keys if "." in key):
        split, metric = key.split(".", 1)
        if metric in METRIC_NAMES and (lines := _curves(runs, key, 100.0)):
            svg = figures.learning_curves(lines, y_label=f"{METRIC_NAMES[metric]}, %")
            page.figure(svg, caption=f"{METRIC_NAMES[metric]} on {split} after each epoch.")
    others = {key.replace("_", " "): _curves(runs, key) for key in keys if "." not in key and key not in _FIRST_KEYS}
    others = {name: lines for name, lines in others.items() if lines}
    if others:
        with page.folded(f"Other curves: {', '.join(others)}"):
            for name, lines in others.items():
                page.figure(figures.learning_curves(lines, y_label=name), caption=f"{name.capitalize()} of each epoch.")


def _curves(runs: Sequence[Mapping[str, Any]], key: str, scale: float = 1.0) -> dict[str, list[figures.Line]]:
    """A line per run, together where runs differ in their seed alone; without those that have no such values."""
    found = {
        family_name(family): [line for line in (_curve(run, key, scale) for run in family) if line]
        for family in families(runs)
    }
    return {name: lines for name, lines in found.items() if lines}


def _curve(run: Mapping[str, Any], key: str, scale: float) -> figures.Line:
    rows = [(row["epoch"], row.get(key)) for row in run["curves"]]
    return [(float(epoch), scale * value) for epoch, value in rows if isinstance(value, int | float)]


def _classes_section(page: Page, runs: Sequence[Mapping[str, Any]]) -> None:
    page.section("Classes")
    drawn = 0
    for run in (run for run in runs if run["splits"]):
        with page.folded(f"{run['label']}: every class"):
            for name, split in run["splits"].items():
                if drawn < _MOST_FIGURES and not name.startswith("train"):
                    _class_figures(page, run, name, split)
                    drawn += 1
            _add(page, tables.per_class(run))
    if len(tables.cells(runs)) > drawn:
        page.paragraph("Training splits, and splits beyond the first 24, have their classes in per_class.csv alone.")


def _class_figures(page: Page, run: Mapping[str, Any], name: str, split: Mapping[str, Any]) -> None:
    rows = [row for row in split["per_class"] if row["average_precision"] is not None]
    ordered = sorted(rows, key=lambda row: (-row["average_precision"], row["name"]))
    bars = {row["name"]: 100 * row["average_precision"] for row in ordered}
    mean = tables.class_mean(run)
    svg = figures.class_bars(bars, x_label="average precision, %", mean=100 * split[mean])
    what = f"average precision of the {len(bars)} classes with a positive; their mean is {METRIC_NAMES[mean]}"
    page.figure(svg, caption=f"{run['label']} on {name}: {what}.")
    if "confusion" in split:
        names = [row["name"] for row in split["per_class"]]
        svg = figures.confusion(np.array(split["confusion"], dtype=np.int64), names)
        page.figure(svg, caption=f"{run['label']} on {name}: predicted class in percent of the clips of each target.")


def _small_print(page: Page, summary: Mapping[str, Any]) -> None:
    page.section("What was skipped")
    skipped = tables.skipped(summary["runs"])
    if skipped.rows:
        _add(page, skipped)
    else:
        page.paragraph("Nothing: every clip of every split has logits.")
    page.section("How the numbers were made")
    page.bullets([*_METHOD, report_text.interval_sentence(summary)])
    with page.folded("Recipes, fingerprints and versions"):
        _add(page, tables.provenance(summary["runs"]))
    for run in summary["runs"]:
        page.details(f"Resolved configuration of {run['label']}", tables.config_text(run))


def _add(page: Page, table: Table) -> None:
    page.table(table.columns, table.rows, caption=table.caption, emphasis=table.emphasis)
