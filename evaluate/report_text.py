"""A report without its page: Markdown for a pull request, CSV for a spreadsheet, the sentences that all forms share.

The decision to question: Markdown cells are escaped in full, so that a class name like `<b>|x` stays a class name.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from evaluate import detail_tables, tables
from evaluate.across_runs import question
from evaluate.clusters import AUTO, FEWEST_SUBJECTS
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


def interval_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What the intervals are, what was drawn, and what they are not."""
    return [
        f"Intervals, {LEVEL_TEXT}: Student's t on the standard error of {summary['num_resamples']} bootstrap resamples "
        f"(seed {summary['seed']}); Wilson's score interval for Acc@1 and Acc@5 where clips are drawn one by one. "
        "Classes that a resample leaves without positives are left out of it. Where every resample gives the same "
        "value, no interval is printed.",
        drawn_sentence(summary),
        "They hold for other clips of this kind, not for training again. An interval of mAP reaches down to what is "
        "estimated for endless clips: with few positives mAP itself is too high, the more so the fewer they are.",
    ]


def drawn_sentence(summary: Mapping[str, Any]) -> str:
    """What was drawn, on which splits, and by which rule where nothing was asked for."""
    found: dict[str, dict[str, list[str]]] = {}
    for run, name, split in tables.cells(summary["runs"]):
        group = split["cluster"]
        what = f"all clips of one {group} together (of {split['num_clusters']})" if group else "each clip alone"
        found.setdefault(what, {}).setdefault(name, []).append(run["label"])
    parts = [what if len(found) == 1 else f"{what} on {_places(splits, found)}" for what, splits in found.items()]
    rule = f" By default subjects are drawn whole where predictions know {FEWEST_SUBJECTS} of them or more."
    return f"Resamples draw {'; '.join(parts)}.{rule if summary['cluster'] == AUTO else ''}"


def _places(splits: Mapping[str, Sequence[str]], found: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """Split names, with the runs where those of one split do not agree."""
    shared = {name for name in splits if sum(name in others for others in found.values()) > 1}
    return ", ".join(f"{name} of {', '.join(runs)}" if name in shared else name for name, runs in splits.items())


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
            table = tables.differences(compared, runs[0]["main_metrics"])
            lines += ["### Paired differences", "", *_markdown_table(table)]
        worst = detail_tables.worst_groups(runs)
        if worst.rows:
            lines += ["### Worst groups", "", *_markdown_table(worst)]
    sections = {
        "Over seeds": [tables.over_seeds(summary["over_seeds"])],
        "Over folds": detail_tables.over_folds(summary["over_folds"]),
        "Beside the papers": [tables.published(summary["runs"])],
        "What was skipped": [tables.skipped(summary["runs"])],
        "Costs": [detail_tables.costs(summary["runs"])],
    }
    for heading, found in sections.items():
        body = [line for table in found if table.rows for line in _markdown_table(table)]
        lines += [f"## {heading}", "", *body] if body else []
    return "\n".join([*lines, " ".join(interval_sentences(summary)), ""])


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
