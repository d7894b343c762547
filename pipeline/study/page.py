"""The study's page: main tables, paired tests, figures, the probe of bias, and what was tuned. No number of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluate.figures import Point, split_comparison
from evaluate.page import Page
from pipeline.demo.scores import HEADLINE, METRIC_NAMES, split_name
from pipeline.study.claims import KEY, probe_sentences, tables
from pipeline.study.document import DIFFERENCE_HEADER, cell, counted, difference_line, main_table

Body = Mapping[str, Any]


def write_page(path: Path, body: Body) -> None:
    """Writes the page of a document."""
    page = Page("Which causal claims hold where the truth is known?", lead="A study in the controlled world.")
    page.note(body["statement"])
    _claims(page, body)
    for strength in body["strengths"]:
        _strength(page, strength, body)
    if len(body["strengths"]) > 1:
        _over_strengths(page, body["strengths"])
    _clip_probe(page, body["clip_probe"])
    _about(page, body)
    page.write(path)


def _claims(page: Page, body: Body) -> None:
    page.section("What it says about the claims")
    page.heading("The image-text encoder follows the scene")
    page.paragraph("Person and object are covered, the scene is left:")
    page.bullets(probe_sentences(body["clip_probe"]))
    for table in tables(body):
        page.heading(table.title)
        page.table(table.header, table.lines, caption=KEY)
        if table.note:
            page.paragraph(table.note)


def _strength(page: Page, strength: Body, body: Body) -> None:
    page.section(f"Confounders at rho {strength['rho']:g}")
    worlds = counted(len(strength["replicates"]), "world")
    for task, metric in HEADLINE.items():
        if strength["tables"][task]:
            table = main_table(strength, [task])
            page.table(table.header, table.lines, caption=f"In percent; mean and standard deviation over {worlds}.")
            page.figure(
                split_comparison(
                    _points(strength["tables"][task], metric),
                    x_label=f"{METRIC_NAMES[metric]}, %",
                    references={"no order": 100 * body["bag_of_frames_ceiling"]} if task == "activity" else None,
                ),
                caption=f"{METRIC_NAMES[metric]}, {task}: mean, and one standard deviation over {worlds} to each side.",
            )
    with page.folded("All paired differences"):
        page.table(DIFFERENCE_HEADER, [difference_line(one) for one in strength["differences"]])
    if strength["model_probe"]:
        _model_probe(page, strength["model_probe"])


def _points(table: Body, metric: str) -> dict[str, dict[str, Point]]:
    """Split -> row -> point: the rows, which are many, go down the side of the figure."""
    splits = dict.fromkeys(split for found in table.values() for split in found)
    return {
        split_name(split): {row: _point(found[split][metric]) for row, found in table.items() if split in found}
        for split in splits
    }


def _point(spread: Body) -> Point:
    mean, deviation = 100 * spread["mean"], spread["deviation"]
    edges = None if deviation is None else (mean - 100 * deviation, mean + 100 * deviation)
    return Point(value=mean, interval=edges)


def _model_probe(page: Page, rows: Sequence[Body]) -> None:
    page.heading("The probe of bias on trained models")
    page.paragraph(
        "The same videos with person and object covered (the scene stays), and before a grey wall (the cause stays). "
        "Kept is the share of the model's evidence, true classes minus others, that is left: a model that reads causes "
        "keeps nothing when they are covered, and the box that covers them is strange to every model."
    )
    conditions = list(rows[0]["score"])
    header = ["row", "task", *(f"score, {name}" for name in conditions), *(f"kept, {name}" for name in conditions[1:])]
    lines = [
        [
            one["row"],
            one["task"],
            *(cell(one["score"][name]) for name in conditions),
            *(cell(one["kept"][name]) for name in conditions[1:]),
        ]
        for one in rows
    ]
    page.table(header, lines, caption="In percent.")


def _over_strengths(page: Page, strengths: Sequence[Body]) -> None:
    page.section("From weak to strong confounders")
    ordered = sorted(strengths, key=lambda strength: strength["rho"])
    for task, split, metric in (
        ("activity", "test_counterfactual", "acc1"),
        ("atomic", "test_recombined", "map_macro"),
    ):
        names = [row for row in ordered[0]["tables"][task] if all(row in one["tables"][task] for one in ordered)]
        lines = [[row, *(cell(one["tables"][task][row][split][metric]) for one in ordered)] for row in names]
        header = ["row", *(f"rho {one['rho']:g}" for one in ordered)]
        page.table(header, lines, caption=f"{METRIC_NAMES[metric]}, {task}, {split_name(split)}, %.")


def _clip_probe(page: Page, probes: Body) -> None:
    if not probes:
        return
    page.section("The probe of bias on the image-text encoder")
    header = ["frozen models", "question", "condition", "zero-shot accuracy, %", "share of the score kept, %"]
    lines = [
        [number, row["question"], row["condition"], _interval(row["top1"]), _interval(row["kept"])]
        for number, rows in probes.items()
        for row in rows
    ]
    page.table(header, lines)


def _interval(interval: Body) -> str:
    return f"{100 * interval['estimate']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _about(page: Page, body: Body) -> None:
    page.section("Rows and learning rates")
    page.bullets([f"{name}: {text}." for name, text in body["rows"].items()])
    if body["rates"]:
        page.table(
            ["row", "task", "learning rate", "i.i.d. validation, by rate"], [_rate(one) for one in body["rates"]]
        )


def _rate(one: Body) -> list[str]:
    tried = ", ".join(f"{rate:g}: {100 * value:.1f}" for rate, value in one["validation"])
    return [one["row"], one["task"], f"{one['chosen']:g}", tried]
