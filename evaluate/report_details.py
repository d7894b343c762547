"""The sections of a report below its headline: groups, wrong clips, classes, costs, what was skipped, how it was made.

The decision to question: pictures are shown for the first twelve splits of a page, and the other splits list the same
clips in tables: a page of fifty runs must still open on a phone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from evaluate import detail_tables, figures, report_text, tables
from evaluate.page import Page
from evaluate.pictures import Pictures
from evaluate.tables import METRIC_NAMES, Table
from evaluate.wrong_clips import DEFINITIONS

_MOST_FIGURES = 24
_MOST_PICTURED = 12
_SHORT_TABLE = 12  # rows
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


def add(page: Page, table: Table) -> None:
    """Adds a table to the page; a first column that names one and the same run in every row is left out."""
    is_about_one = table.columns[0] == "run" and len({row[0] for row in table.rows}) == 1
    first = 1 if is_about_one and "minus" not in table.columns else 0
    rows = [row[first:] for row in table.rows]
    page.table(table.columns[first:], rows, caption=table.caption, emphasis=table.emphasis)


def add_notices(page: Page, summary: Mapping[str, Any]) -> None:
    """What a reader must not miss, and of which runs."""
    for text, labels in report_text.notices(summary).items():
        everyone = len(labels) == len(summary["runs"])
        page.note(text, kind="warning", title="Warning" if everyone else f"Warning: {', '.join(labels)}")


def groups_section(page: Page, tasks: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Per-group results of every task, the worst value of each group first."""
    if not any(split["groups"] for runs in tasks for _, _, split in tables.cells(runs)):
        return
    page.section("Groups")
    for runs in tasks:
        if len(tasks) > 1:
            page.heading(f"Task {runs[0]['task']}")
        worst = detail_tables.worst_groups(runs)
        if len(worst.rows) > _SHORT_TABLE:
            with page.folded("The worst value of every group"):
                add(page, worst)
        elif worst.rows:
            add(page, worst)
        page.paragraph("Worst first. Few clips are little evidence, and mAP of few clips is too high.")
        for group, found in detail_tables.groups(runs).items():
            with page.folded(f"By {group}"):
                for table in found:
                    add(page, table)


def wrong_clips_section(page: Page, runs: Sequence[tuple[Mapping[str, Any], Pictures]]) -> None:
    """The clips that went most wrong, of every run on every test split."""
    runs = [(run, pictures) for run, pictures in runs if run["splits"]]
    page.section("Clips that went most wrong")
    for kind in dict.fromkeys(run["kind"] for run, _ in runs):
        page.paragraph(DEFINITIONS[kind])
    page.paragraph("The percentages are the model's own probabilities, which nobody has calibrated.")
    for problem in dict.fromkeys(pictures.problem for _, pictures in runs if pictures.problem):
        page.note(problem)
    pictured = iter(range(_MOST_PICTURED))
    for run, pictures in runs:
        with page.folded(run["label"]) if len(runs) > 1 else nullcontext():
            _wrong_clips_of(page, run, pictures, pictured)
    if next(pictured, None) is None:
        page.paragraph(f"Pictures stand beside the clips of the first {_MOST_PICTURED} splits.")


def _wrong_clips_of(page: Page, run: Mapping[str, Any], pictures: Pictures, pictured: Iterator[int]) -> None:
    for name, split in run["splits"].items():
        if name.startswith("train"):
            continue
        page.heading(f"{run['label']} on {name}")
        if run["kind"] == "single":
            page.paragraph(f"{split['num_wrong']} of {split['num_clips']:.0f} clips are wrong.")
        show_pictures = not pictures.problem and next(pictured, None) is not None
        add_clips(page, split["worst_clips"], pictures if show_pictures else None)


def add_clips(page: Page, found: Sequence[Mapping[str, Any]], pictures: Pictures | None) -> None:
    """Clips with their pictures, and in a table those that have none; nothing for no clips."""
    strips = {clip["clip_id"]: pictures.three_frames(clip["clip_id"]) if pictures else None for clip in found}
    page.images(
        [(jpeg, detail_tables.clip_caption(clip)) for clip in found if (jpeg := strips[clip["clip_id"]])], wide=True
    )
    rest = [clip for clip in found if not strips[clip["clip_id"]]]
    if rest:
        add(page, detail_tables.clips(rest))


def classes_section(page: Page, runs: Sequence[Mapping[str, Any]]) -> None:
    """Average precision of every class, sorted, and the confusion matrix."""
    page.section("Classes")
    runs = [run for run in runs if run["splits"]]
    drawn = 0
    for run in runs:
        with page.folded(f"{run['label']}: every class") if len(runs) > 1 else nullcontext():
            for name, split in run["splits"].items():
                if drawn < _MOST_FIGURES and not name.startswith("train"):
                    _class_figures(page, run, name, split)
                    drawn += 1
            add(page, tables.per_class(run))
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


def small_print(page: Page, summary: Mapping[str, Any]) -> None:
    """What was skipped, what it cost, how the numbers were made, and what each run is made of."""
    page.section("What was skipped")
    skipped = tables.skipped(summary["runs"])
    if skipped.rows:
        add(page, skipped)
    else:
        page.paragraph("Nothing: every clip of every split has logits.")
    spent = detail_tables.costs(summary["runs"])
    if spent.rows:
        page.section("Costs")
        add(page, spent)
    page.section("How the numbers were made")
    page.bullets([*_METHOD, *report_text.interval_sentences(summary)])
    with page.folded("Recipes, fingerprints and versions"):
        add(page, tables.provenance(summary["runs"]))
    for run in summary["runs"]:
        page.details(f"Resolved configuration of {run['label']}", tables.config_text(run))
