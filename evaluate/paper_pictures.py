"""The papers' own pictures of one's own runs, beyond tables: co-classification, curves over a setting, the insides.

The report calls `add_paper_pictures` once; each part is absent where there is nothing to draw it from.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cache.run import Run
from evaluate.coclassification import shares
from evaluate.explained_page import add_explanations
from evaluate.figures import learning_curves
from evaluate.heatmaps import Panel, heat_panels
from evaluate.page import Page
from evaluate.tables import METRIC_NAMES, cells, percent

_MOST_MATRICES = 12


def add_paper_pictures(page: Page, runs: Sequence[Run], summary: Mapping[str, Any]) -> None:
    """Adds up to three sections.

    Args:
        page: it grows.
        runs: opened run directories.
        summary: the report's document, whose `runs` are these.
    """
    _sweeps(page, summary["sweeps"])
    _co_classification(page, summary["runs"])
    add_explanations(page, runs, summary["runs"])


def _sweeps(page: Page, sweeps: Sequence[Mapping[str, Any]]) -> None:
    if not sweeps:
        return
    page.section("Against one setting")
    for sweep in sweeps:
        metric = METRIC_NAMES[sweep["metric"]]
        curves = {f"these runs, {sweep['split']}": [(point["x"], 100 * point["mean"]) for point in sweep["points"]]}
        for printed in dict.fromkeys(row["metric"] for row in sweep["published"]):
            rows = [row for row in sweep["published"] if row["metric"] == printed]
            curves[f"CMDCL, printed ({printed})"] = [(row["x"], row["percent"]) for row in rows]
        page.figure(
            learning_curves(curves, y_label=f"{metric}, %", x_label=sweep["label"]),
            caption=f"{metric} against the number of {sweep['label']} (as CMDCL, Fig. 7), task {sweep['task']} of "
            f"{sweep['dataset']}: runs of {sweep['method']} that differ in {sweep['key']} alone, mean over seeds.",
        )
        page.table(
            [sweep["label"], f"{metric}, %", "sd, points", "printed, %", "runs"],
            [
                [
                    str(point["x"]),
                    percent(point["mean"]),
                    percent(point["sd"]),
                    "; ".join(f"{row['percent']:g}" for row in sweep["published"] if row["x"] == point["x"]) or "–",
                    ", ".join(point["runs"]),
                ]
                for point in sweep["points"]
            ],
        )


def _co_classification(page: Page, runs: Sequence[Mapping[str, Any]]) -> None:
    found = [item for item in cells(runs) if "co_classification" in item[2] and not item[1].startswith("train")]
    if not found:
        return
    page.section("Predicted together")
    page.paragraph(
        "Which actions a model predicts together, beside which do occur together (as CMDCL, Fig. 6). A clip's n "
        "classes of highest logit count as predicted, n being how many classes it has."
    )
    page.table(
        ["run", "split", "difference, points"],
        [[run["label"], name, percent(split["co_classification"]["difference"])] for run, name, split in found],
        caption="How far predicted pairs are from those that occur: of the clips with one action, the share that has "
        "another one too, predicted minus true without its sign, mean over all pairs of actions.",
    )
    with page.folded("Pairs that are predicted together too often"):
        page.table(
            ["run", "split", "action", "action", "clips with both", "predicted"],
            [
                [run["label"], name, pair["first"], pair["second"], str(pair["together"]), str(pair["predicted"])]
                for run, name, split in found
                for pair in split["co_classification"]["pairs"]
            ],
            caption="The largest excess first.",
        )
    with page.folded("The matrices"):
        for run, name, split in found[:_MOST_MATRICES]:
            _matrices(page, f"{run['label']} on {name}", split["co_classification"])
        if len(found) > _MOST_MATRICES:
            page.paragraph(f"The first {_MOST_MATRICES} are drawn; metrics.json has all.")


def _matrices(page: Page, what: str, counted: Mapping[str, Any]) -> None:
    counts = {"occur together": np.array(counted["together"]), "are predicted together": np.array(counted["predicted"])}
    panels = [Panel(title=title, values=shares(matrix)) for title, matrix in counts.items()]
    page.figure(
        heat_panels(
            panels,
            rows=counted["classes"],
            columns=counted["classes"],
            x_label="with this one",
            y_label="of clips with",
            per_line=2,
            full=1.0,
        ),
        caption=f"{what}: share of the clips with the action of a row that have the action of a column too "
        f"({counted['num_clips']} clips, their {len(counted['classes'])} most frequent actions).",
    )
