"""A report without its page: Markdown for a pull request, CSV for a spreadsheet, the sentences that all forms share.

The decision to question: Markdown cells are escaped in full, so that a class name like `<b>|x` stays a class name.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from evaluate import tables
from evaluate.across_runs import question
from evaluate.tables import Table
from evaluate.uncertainty import LEVEL_TEXT


def title(summary: Mapping[str, Any]) -> str:
    """What the report is about: data sets and tasks."""
    questions = list(dict.fromkeys(question(run) for run in summary["runs"]))
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in questions))
    names = list(dict.fromkeys(task for _, task, _ in questions))
    return f"{', '.join(datasets)}: {', '.join(names)}"


def lead(summary: Mapping[str, Any]) -> str:
    """One sentence: which runs, which splits."""
    runs = summary["runs"]
    splits = list(dict.fromkeys(name for run in runs for name in run["splits"]))
    what = runs[0]["label"] if len(runs) == 1 else f"{len(runs)} runs"
    return f"{what}, evaluated on {', '.join(splits)} from the stored logits."


def notices(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """Notice -> the runs that it is about."""
    found: dict[str, list[str]] = {}
    for run in summary["runs"]:
        for notice in run["notices"]:
            found.setdefault(notice, []).append(run["label"])
    return found


def runs_by_task(summary: Mapping[str, Any]) -> list[list[Mapping[str, Any]]]:
    """The evaluated runs, together where they answer the same question and are judged by the same metrics."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for run in summary["runs"]:
        if run["splits"]:
            found.setdefault((*question(run), *run["main_metrics"]), []).append(run)
    return list(found.values())


def rules(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rule of every benchmark that the runs are on, in a sentence each."""
    return list(dict.fromkeys(run["benchmark"]["rule"] for run in runs if run["benchmark"]))


def interval_sentence(summary: Mapping[str, Any]) -> str:
    """What the intervals are and what they are not."""
    unit = f"all clips of one {summary['cluster']}" if summary["cluster"] else "clips"
    accuracy = "" if summary["cluster"] else "Wilson's score interval for Acc@1 and Acc@5; otherwise the "
    return (
        f"Intervals, {LEVEL_TEXT}: {accuracy}basic bootstrap over {summary['num_resamples']} resamples of {unit} "
        f"(seed {summary['seed']}); classes that a resample leaves without positives are left out of it. "
        "They hold for other clips of this kind, not for training again. With about ten positive clips a class, mAP "
        "itself is too high and its interval holds the true value less often than it says. Where every resample gives "
        f"the same value, no interval is printed.{beside_sentence(_intervals(summary))}"
    )


def beside_sentence(intervals: Sequence[tuple[float, float, float]]) -> str:
    """Why some of (low, estimate, high) do not hold their own estimate; empty where all do."""
    beside = sum(not low <= estimate <= high for low, estimate, high in intervals)
    if not beside:
        return ""
    return (
        f" {beside} of {len(intervals)} intervals lie beside their own estimate: repeated clips rank together, so that "
        "mAP is higher on resamples, and the interval is moved by as much the other way."
    )


def _intervals(summary: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """(low, estimate, high) of every metric and every difference."""
    found = [
        (edges["low"], split[metric], edges["high"])
        for _, _, split in tables.cells(summary["runs"])
        for metric, edges in split["intervals"].items()
    ]
    gains = [item for row in summary["comparisons"] for item in row["differences"].values()]
    return [*found, *((item["low"], item["estimate"], item["high"]) for item in gains)]


def markdown(summary: Mapping[str, Any]) -> str:
    """The report as Markdown: notices first, then the main tables."""
    lines = [f"# {_plain(title(summary))}", "", _plain(lead(summary)), ""]
    for text, labels in notices(summary).items():
        lines += [f"> **{_plain(text)}** ({_plain(', '.join(labels))})", ""]
    for runs in runs_by_task(summary):
        lines += [f"## {_plain(runs[0]['task'])}", "", *_markdown_paragraphs(rules(runs))]
        lines += [*_markdown_table(tables.results(runs)), *_markdown_paragraphs(tables.remarks(runs))]
        inside = {run["label"] for run in runs}
        compared = [row for row in summary["comparisons"] if row["first"] in inside]
        if compared:
            table = tables.differences(compared, runs[0]["main_metrics"], cluster=summary["cluster"])
            lines += ["### Paired differences", "", *_markdown_table(table)]
    sections = {
        "Over seeds": tables.over_seeds(summary["over_seeds"]),
        "Beside the papers": tables.published(summary["runs"]),
        "What was skipped": tables.skipped(summary["runs"]),
    }
    for heading, table in sections.items():
        if table.rows:
            lines += [f"## {heading}", "", *_markdown_table(table)]
    return "\n".join([*lines, interval_sentence(summary), ""])


def _markdown_table(table: Table) -> list[str]:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    body = ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows]
    return [*body, "", *([table.caption, ""] if table.caption else [])]


def _markdown_paragraphs(texts: Sequence[str]) -> list[str]:
    return [line for text in texts for line in (_plain(text), "")]


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\|*_`[]#" else letter for letter in flat)


def per_class_csv(summary: Mapping[str, Any]) -> str:
    """One row per run, split and class."""
    text = io.StringIO()
    keys = ["num_positives", "average_precision", "recall", "num_predicted"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "split", "class", *keys])
    for run, name, split in tables.cells(summary["runs"]):
        for row in split["per_class"]:
            writer.writerow([run["label"], name, row["name"], *(row[key] for key in keys)])
    return text.getvalue()
