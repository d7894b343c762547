"""The papers' claims, each with the differences that test it; every sentence about an outcome is made from numbers.

A claim is not called true or false here: under it stand the tests, with what each one shows at each strength.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.demo.scores import points, split_name
from pipeline.demo.variants import BASELINE, CONTROL
from pipeline.study.questions import LABELS, SCENES, Place
from pipeline.study.variants import CENTRED_CONTROL, CLIP_CONTROL, EVIDENCE, EXCHANGE, MARGINAL, SEE

Body = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim and the differences (row, reference, place) that test it."""

    title: str
    tests: tuple[tuple[str, str, Place], ...]


CLAIMS = (
    Claim(
        title="CMDCL: the textual intervention (TCI, back-door) takes the bias out of the texts",
        tests=(
            ("TCI", BASELINE, SCENES),
            ("TCI", BASELINE, LABELS),
            ("TCI", CLIP_CONTROL, LABELS),
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
    ),
    Claim(
        title="A back-door adjustment is an expectation over biases (ours: TCI with a bank of biases)",
        tests=((MARGINAL, "TCI", SCENES), (MARGINAL, CONTROL, SCENES), (MARGINAL, "TCI", LABELS)),
    ),
    Claim(
        title="Scenes can be exchanged and evidence told apart from them (ours: SEE)",
        tests=(
            (SEE, CONTROL, SCENES),
            (SEE, "TCI", SCENES),
            (SEE, BASELINE, LABELS),
            (SEE, "TCI", LABELS),
            (EXCHANGE, CONTROL, SCENES),
            (EXCHANGE, CENTRED_CONTROL, SCENES),
            (SEE, EXCHANGE, LABELS),
            (SEE, EVIDENCE, SCENES),
        ),
    ),
)


def claims(body: Body) -> dict[str, list[str]]:
    """Claim -> sentences, one for each of its tests at each strength; claims without any test are left out."""
    found = {"The image-text encoder follows the scene": list(_probe_sentences(body["clip_probe"]))}
    found |= {claim.title: list(_sentences(claim, body)) for claim in CLAIMS}
    found["The bar that was fixed beforehand"] = list(_success_sentences(body))
    return {title: sentences for title, sentences in found.items() if sentences}


def _sentences(claim: Claim, body: Body) -> Iterator[str]:
    for row, reference, (task, split) in claim.tests:
        for strength in body["strengths"]:
            for one in strength["differences"]:
                if (one["variant"], one["reference"], one["task"], one["split"]) == (row, reference, task, split):
                    yield f"rho {strength['rho']:g}: {difference_sentence(one)}"


def difference_sentence(one: Body) -> str:
    """What a difference shows."""
    interval, worlds = one["interval"], len(one["per_world"])
    positive = sum(value > 0 for value in one["per_world"])
    amount = f"{points(interval['estimate'])} points ({points(interval['low'])} to {points(interval['high'])})"
    verdict = {
        "more": "better",
        "less": "worse",
        "open": "no difference that these worlds can show",
    }[one["verdict"]]
    return (
        f"{one['variant']} minus {one['reference']}, {one['task']}, {split_name(one['split'])}: {amount}, above zero "
        f"in {positive} of {worlds} worlds, p {one['p_holm']:.3f}: {verdict}."
    )


def _success_sentences(body: Body) -> Iterator[str]:
    for strength in body["strengths"]:
        for one in strength["success"]:
            reached = "reached" if one["is_reached"] else "not reached"
            yield (
                f"rho {strength['rho']:g}, {one['row']}: {reached}. {difference_sentence(one['scenes'])} "
                f"{difference_sentence(one['labels'])}"
            )


def _probe_sentences(probes: Body) -> Iterator[str]:
    for number, rows in probes.items():
        for row in rows:
            if row["condition"] == "cause covered":
                top, kept = row["top1"], row["kept"]
                yield (
                    f"Frozen models {number}, {row['question']}, person and object covered: "
                    f"{100 * top['estimate']:.1f} % of frames still match their own text best, and "
                    f"{100 * kept['estimate']:.1f} % [{100 * kept['low']:.1f}, {100 * kept['high']:.1f}] of the "
                    "matching score is left."
                )
