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

from cache import atomic
from cache.run import Run
from evaluate import detail_tables, figures, report_text, tables
from evaluate.across_runs import families, family_name, question
from evaluate.clusters import AUTO
from evaluate.folds import fold_number
from evaluate.page import Page
from evaluate.paper_pictures import add_paper_pictures
from evaluate.pictures import Pictures
from evaluate.report_details import (
    add,
    add_notices,
    classes_section,
    groups_section,
    small_print,
    wrong_clips_section,
)
from evaluate.summary import summarise
from evaluate.tables import METRIC_NAMES, percent
from evaluate.uncertainty import LEVEL_TEXT

_FIRST_KEYS = ("epoch", "loss")  # of a row of metrics.jsonl; the others are folded away


def write_report(
    runs: Sequence[Run],
    folder: Path,
    *,
    cluster: str | None = AUTO,
    num_resamples: int = 1000,
    seed: int = 0,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Evaluates runs and writes the four files; equal runs give equal files.

    Args:
        runs: opened run directories, in the order in which they are shown; the first of a task is the reference.
        folder: where to write; made if it is absent.
        cluster: a group (e.g. "subject") whose clips are resampled together; None for each clip alone, `AUTO` for
            subjects where predictions know five and more.
        num_resamples: of every bootstrap.
        seed: of every bootstrap.
        cache: where the frames of the clips are, instead of the folder that the runs remember.

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
    _page(summary, runs, cache).write(folder / "index.html")
    return summary


def _page(summary: Mapping[str, Any], runs: Sequence[Run], cache: Path | None) -> Page:
    page = Page(report_text.title(summary), lead=report_text.lead(summary))
    add_notices(page, summary)
    tasks = report_text.runs_by_task(summary)
    if len(tasks) == 1:
        _tiles(page, tasks[0])
    for members in tasks:
        _task_section(page, members, summary)
    _folds_section(page, summary["over_folds"])
    _curves_section(page, summary["runs"])
    groups_section(page, tasks)
    _runs_sections(page, runs, summary["runs"], cache)
    classes_section(page, summary["runs"])
    add_paper_pictures(page, runs, summary)
    small_print(page, summary)
    return page


def _runs_sections(page: Page, runs: Sequence[Run], bodies: Sequence[Mapping[str, Any]], cache: Path | None) -> None:
    """What is told of one run after the other, and takes more than the document: pictures out of the cache."""
    wrong_clips_section(page, [(body, Pictures.of(run, cache)) for run, body in zip(runs, bodies, strict=True)])


def _folds_section(page: Page, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        page.section("Over folds")
    for table in detail_tables.over_folds(rows):
        add(page, table)


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
    fold = f", {protocol}" if fold_number(protocol) else ""
    page.section(f"Results: {task}{fold}")
    page.paragraph(f"Dataset {dataset}, task {task} ({runs[0]['kind']} label), protocol {protocol}.")
    _paragraphs(page, report_text.rules(runs))
    add(page, tables.results(runs))
    _paragraphs(page, tables.remarks(runs))
    if len(tables.cells(runs)) > 1:
        caption = f"{METRIC_NAMES[metric]} by test split, with {LEVEL_TEXT} intervals."
        svg = figures.split_comparison(_points(runs, metric), x_label=f"{METRIC_NAMES[metric]}, %")
        page.figure(svg, caption=caption, alt=f"{caption} The numbers are those of the table above.")
    with page.folded("Every metric"):
        add(page, tables.results(runs, every_metric=True))
    labels = {run["label"] for run in runs}
    compared = [row for row in summary["comparisons"] if row["first"] in labels]
    refused = [row for row in summary["not_compared"] if row["first"] in labels]
    if compared:
        page.heading("Paired differences")
        add(page, tables.differences(compared, runs[0]["main_metrics"]))
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
        add(page, tables.over_seeds(seeds))
    paper = tables.published(runs)
    if paper.rows:
        page.heading("Beside the papers")
        add(page, paper)


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
