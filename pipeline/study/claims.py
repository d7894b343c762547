"""The papers' claims, each with the differences that test it; every word about an outcome is made from numbers.

A claim is not called true or false here: under it stand the tests, with what each one shows at each strength.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.demo.scores import points, split_name
from pipeline.demo.variants import BASELINE, CONTROL
from pipeline.study.plan import MAIN_STRENGTH
from pipeline.study.questions import LABELS, SCENES, Place
from pipeline.study.variants import (
    CENTRED_CONTROL,
    CLIP_ALONE,
    CLIP_CONTROL,
    DESIGN,
    EVIDENCE,
    EXCHANGE,
    MARGINAL,
    ROWS,
    SEE,
)

Body = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim and the differences (row, reference, place) that test it."""

    title: str
    tests: tuple[tuple[str, str, Place], ...]
    note: str = ""
    """What a reader must know beside the numbers."""


CLAIMS = (
    Claim(
        title="CMDCL: the textual intervention (TCI, back-door) takes the bias out of the texts",
        tests=(
            ("TCI", BASELINE, SCENES),
            ("TCI", BASELINE, LABELS),
            ("TCI", CLIP_CONTROL, LABELS),
            ("TCI", CLIP_ALONE, LABELS),
        ),
    ),
    Claim(
        title="CMDCL: the visual intervention (VCI, front-door) takes the bias out of the video",
        tests=(("VCI", BASELINE, SCENES), ("VCI", CONTROL, SCENES), ("VCI", CONTROL, LABELS)),
    ),
    Claim(
        title="CMDCL: both together are better than either",
        tests=(("CMDCL", "TCI", SCENES), ("CMDCL", "VCI", SCENES), ("CMDCL", "TCI", LABELS)),
    ),
    Claim(
        title="PCMCI: transport, relations and a textual mediator go further",
        tests=(
            ("PCMCI", BASELINE, SCENES),
            ("PCMCI", CONTROL, SCENES),
            ("PCMCI", "CMDCL", SCENES),
            ("PCMCI", "CMDCL", LABELS),
        ),
    ),
    Claim(
        title="PCMCI: every stage helps, in this order",
        tests=(
            ("PCMCI: ICH", BASELINE, LABELS),
            ("PCMCI: ICH, ICI", "PCMCI: ICH", LABELS),
            ("PCMCI", "PCMCI: ICH, ICI", LABELS),
            ("PCMCI", "PCMCI: ICH, ICI", SCENES),
            ("PCMCI: IVC", CONTROL, SCENES),
            ("PCMCI: ICI, ICH, IVC", "PCMCI", LABELS),
            ("PCMCI: IVC, ICH, ICI", "PCMCI", SCENES),
        ),
    ),
    Claim(
        title="PeVL: pose and adapters find the action, whatever the scene",
        tests=(("PeVL", BASELINE, SCENES),),
        note=ROWS["PeVL"].caveat,
    ),
    Claim(
        title="A back-door adjustment is an expectation over biases (ours: TCI with a bank of biases)",
        tests=((MARGINAL, "TCI", SCENES), (MARGINAL, CONTROL, SCENES), (MARGINAL, "TCI", LABELS)),
    ),
    Claim(
        title="Scenes can be exchanged and evidence told apart from them (ours: SEE)",
        tests=(
            (SEE, "TCI", SCENES),
            (SEE, "TCI", LABELS),
            (SEE, BASELINE, LABELS),
            (EXCHANGE, CONTROL, SCENES),
            (EXCHANGE, CENTRED_CONTROL, SCENES),
            (SEE, EVIDENCE, SCENES),
            (SEE, EXCHANGE, SCENES),
            (SEE, EXCHANGE, LABELS),
            (SEE, CLIP_ALONE, LABELS),
        ),
        note=DESIGN,
    ),
)


VERDICTS = {"more": "better", "less": "worse", "open": "not shown"}
"""What a corrected test shows, in words."""
_MARKS = {"more": " ↑", "less": " ↓", "open": ""}
KEY = "Points and 95 % interval; ↑ better, ↓ worse by the corrected test, unmarked: not shown."
"""How to read the cells of a claim's table."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells under a title."""

    title: str
    header: list[str]
    lines: list[list[str]]
    note: str = ""


def tables(body: Body) -> list[Table]:
    """A table for each claim: its tests, and what they show at each strength; then the bar. Empty ones are left out."""
    strengths = body["strengths"]
    header = ["difference", *(f"rho {strength['rho']:g}" for strength in strengths)]
    found = [
        Table(title=claim.title, header=header, lines=list(_lines(claim, strengths)), note=claim.note)
        for claim in CLAIMS
    ]
    return [table for table in [*found, _bar(strengths)] if table.lines]


def _lines(claim: Claim, strengths: Sequence[Body]) -> Iterator[list[str]]:
    for row, reference, (task, split) in claim.tests:
        key = (row, reference, task, split)
        cells = [_found(strength["differences"], key) for strength in strengths]
        if any(cells):
            yield [f"{row} minus {reference}, {task}, {split_name(split)}", *(cell or "-" for cell in cells)]


def _found(differences: Sequence[Body], key: tuple[str, str, str, str]) -> str:
    keys = ("variant", "reference", "task", "split")
    return next((difference_cell(one) for one in differences if tuple(one[name] for name in keys) == key), "")


def difference_cell(one: Body) -> str:
    """Points, interval and what they show; see KEY."""
    interval = one["interval"]
    edges = f"{points(interval['low'])} to {points(interval['high'])}"
    return f"{points(interval['estimate'])} ({edges}){_MARKS[one['verdict']]}"


def _bar(strengths: Sequence[Body]) -> Table:
    lines = [
        [
            f"{one['row']}, rho {strength['rho']:g}",
            f"{test['reference']}, {test['task']}, {split_name(test['split'])}",
            difference_cell(test),
            f"{sum(value > 0 for value in test['per_world'])} of {len(test['per_world'])}",
            f"{test['p_holm']:.4f}",
            "reached" if one["is_reached"] else "not reached",
        ]
        for strength in strengths
        for one in strength["success"]
        for test in (one["scenes"], one["labels"])
    ]
    return Table(
        title="The bar that was fixed beforehand",
        header=["row", "minus", "points", "worlds above 0", "p (Holm)", "both tests"],
        lines=lines,
        note=f"Judged at rho {MAIN_STRENGTH:g}; other strengths stand beside.",
    )


def probe_sentences(probes: Body) -> list[str]:
    """What is left of the image-text encoder's matches when person and object are covered."""
    return [
        f"Frozen models {number}, {row['question']}: {100 * row['top1']['estimate']:.1f} % of frames still match their "
        f"own text best, and {100 * row['kept']['estimate']:.1f} % [{100 * row['kept']['low']:.1f}, "
        f"{100 * row['kept']['high']:.1f}] of the matching score is left."
        for number, rows in probes.items()
        for row in rows
        if row["condition"] == "cause covered"
    ]
