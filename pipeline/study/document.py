"""The study as one JSON document, and its main tables as Markdown: what the page shows, and nothing else."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.demo.probe import ProbeRow
from pipeline.demo.scores import HEADLINE, METRIC_NAMES, points, split_name
from pipeline.demo.scripts import BAG_OF_FRAMES_CEILING, TEST_SPLITS
from pipeline.study.claims import KEY, VERDICTS, Table, probe_sentences
from pipeline.study.claims import tables as claim_tables
from pipeline.study.plan import FIRST_WORLDS, MAIN_STRENGTH, StudyPlan
from pipeline.study.questions import SCENES, differences, having, successes
from pipeline.study.results import Finished
from pipeline.study.scores import FEWEST_WORLDS, Difference, spread
from pipeline.study.tuning import Rates
from pipeline.study.variants import DESIGN, ROWS

Body = dict[str, Any]


def document(
    plan: StudyPlan, rates: Rates, finished: Sequence[Finished], clip_probes: Mapping[int, Sequence[ProbeRow]]
) -> Body:
    """Everything that was learnt so far.

    Args:
        plan: what was asked for.
        rates: the learning rates in use.
        finished: replicates whose runs are there.
        clip_probes: the probe of bias of the image-text encoder, by set of frozen models.
    """
    return {
        "plan": asdict(plan),
        "statement": _statement(plan, finished),
        "rates": rates.to_json(),
        "rows": {
            name: variant.text
            for name, variant in ROWS.items()
            if any(having(finished, place, name) for one in finished for place in one.scores)
        },
        "design": DESIGN,
        "bag_of_frames_ceiling": BAG_OF_FRAMES_CEILING,
        "strengths": [
            _of_strength(strength, members)
            for strength in plan.strengths
            if (members := [one for one in finished if one.replicate.strength == strength])
        ],
        "clip_probe": {str(number): [asdict(row) for row in rows] for number, rows in clip_probes.items()},
    }


def _statement(plan: StudyPlan, finished: Sequence[Finished]) -> str:
    size, sets, asked = plan.size, plan.frozen_sets, len(list(plan.replicates))
    strengths = Counter(one.replicate.strength for one in finished)
    worlds = ", ".join(f"{counted(number, 'world')} at rho {rho:g}" for rho, number in strengths.items())
    frozen = "the shipped frozen models" if sets == 1 else f"one of {sets} sets of frozen models"
    sentences = [
        f"{worlds}, each with {counted(plan.heads, 'training')} of every row and task on {frozen}: {size.num_train} "
        f"training videos, {size.num_test} videos in each of three test splits.",
        "Learning rates were chosen for all rows alike, on i.i.d. videos of "
        f"world {plan.tuning_seed}, which is not among those reported."
        if len(plan.learning_rates) > 1
        else f"The learning rate is {plan.learning_rates[0]:g} for all rows; nothing was tuned.",
        "Intervals and p-values resample worlds and, in each, videos; frozen models are not resampled. With fewer than "
        f"{counted(FEWEST_WORLDS, 'world')} no difference counts as shown.",
    ]
    if having(finished, SCENES, "PeVL"):
        sentences.append(
            f"PeVL, which is slow, is trained at rho {MAIN_STRENGTH:g} alone, once on each of the first "
            f"{counted(FIRST_WORLDS, 'world')}, for fewer epochs."
        )
    if asked > len(finished):
        sentences.append(f"{asked - len(finished)} of {counted(asked, 'replicate')} are still missing.")
    return " ".join(sentences)


def _of_strength(strength: float, finished: Sequence[Finished]) -> Body:
    return {
        "rho": strength,
        "replicates": [asdict(one.replicate) for one in finished],
        "tables": {task: _table(task, finished) for task in HEADLINE},
        "differences": [_flat(one) for one in differences(strength, finished)],
        "success": [
            {"row": one.row, "is_reached": one.is_reached, "scenes": _flat(one.scenes), "labels": _flat(one.labels)}
            for one in successes(strength, finished)
        ],
        "model_probe": _probe_rows(finished),
    }


def _flat(difference: Difference) -> Body:
    return {**asdict(difference), "verdict": difference.verdict}


def _table(task: str, finished: Sequence[Finished]) -> Body:
    """Row -> split -> metric -> spread."""
    table: Body = {}
    for row in ROWS:
        for split in TEST_SPLITS:
            found = [one.scores[task, split].points[row] for one in having(finished, (task, split), row)]
            if found:
                metrics = {name: asdict(spread([each[name] for each in found])) for name in found[0]}
                table.setdefault(row, {})[split] = metrics
    return table


def _probe_rows(finished: Sequence[Finished]) -> list[Body]:
    keys = {key for one in finished for key in one.probes}
    rows = []
    for row, task in sorted(keys, key=lambda key: (list(HEADLINE).index(key[1]), list(ROWS).index(key[0]))):
        probes = [one.probes[row, task] for one in finished if (row, task) in one.probes]
        rows.append(
            {
                "row": row,
                "task": task,
                "score": {name: asdict(spread([probe.score[name] for probe in probes])) for name in probes[0].score},
                "kept": {name: asdict(spread([probe.kept[name] for probe in probes])) for name in probes[0].kept},
            }
        )
    return rows


def cell(spread: Mapping[str, Any]) -> str:
    """Mean and deviation in percent."""
    deviation = "" if spread["deviation"] is None else f" ± {100 * spread['deviation']:.1f}"
    return f"{100 * spread['mean']:.1f}{deviation}"


COLUMNS = (
    ("activity", "test_iid", "acc1"),
    ("activity", "test_counterfactual", "acc1"),
    ("activity", "test_counterfactual", "pair_accuracy"),
    ("activity", "test_counterfactual", "order_accuracy"),
    ("atomic", "test_iid", "map_macro"),
    ("atomic", "test_counterfactual", "map_macro"),
    ("atomic", "test_recombined", "map_macro"),
)
"""Of the main table: task, split, metric."""


def main_table(strength: Mapping[str, Any], tasks: Collection[str] = tuple(HEADLINE)) -> Table:
    """A line per row of one strength; of some tasks alone."""
    columns = [column for column in COLUMNS if column[0] in tasks]
    header = ["row", *(f"{METRIC_NAMES[metric]}, {split_name(split)}" for _, split, metric in columns)]
    lines = []
    for row in ROWS:
        if any(row in strength["tables"][task] for task in tasks):
            tables = [strength["tables"][task].get(row, {}).get(split) for task, split, _ in columns]
            cells = [
                cell(found[metric]) if found else "-" for found, (_, _, metric) in zip(tables, columns, strict=True)
            ]
            lines.append([f"{row}{_fewer(tables, strength)}", *cells])
    return Table(title=", ".join(tasks), header=header, lines=lines)


def _fewer(splits: Sequence[Mapping[str, Any] | None], strength: Mapping[str, Any]) -> str:
    """How many worlds a row has, where it has not all."""
    count = max(len(next(iter(split.values()))["values"]) for split in splits if split)
    return "" if count == len(strength["replicates"]) else f" ({counted(count, 'world')})"


def difference_line(one: Mapping[str, Any]) -> list[str]:
    """A paired difference as cells: what, where, points, interval, worlds in which it is positive, p, verdict."""
    interval = one["interval"]
    positive = sum(value > 0 for value in one["per_world"])
    return [
        f"{one['variant']} minus {one['reference']}",
        f"{one['task']}, {split_name(one['split'])}",
        points(interval["estimate"]),
        f"{points(interval['low'])} to {points(interval['high'])}",
        f"{positive} of {len(one['per_world'])}",
        f"{one['p_holm']:.4f}",
        VERDICTS[one["verdict"]],
    ]


DIFFERENCE_HEADER = ["difference", "where", "points", "95 % interval", "worlds above 0", "p (Holm)", "shown"]


def to_markdown(body: Body) -> str:
    """What the page opens with, and the tables of every strength."""
    lines = ["# The controlled world: a study", "", body["statement"], "", "## What it says about the claims", ""]
    lines += [*(f"* {sentence}" for sentence in probe_sentences(body["clip_probe"])), "", KEY, ""]
    for table in claim_tables(body):
        lines += [f"### {table.title}", "", *_markdown(table.header, table.lines), ""]
        lines += [table.note, ""] if table.note else []
    for strength in body["strengths"]:
        table = main_table(strength)
        lines += [f"## rho {strength['rho']:g}, {counted(len(strength['replicates']), 'world')}", ""]
        lines += [*_markdown(table.header, table.lines), ""]
        lines += [*_markdown(DIFFERENCE_HEADER, [difference_line(one) for one in strength["differences"]]), ""]
    return "\n".join(lines)


def counted(number: int, noun: str) -> str:
    """A number and its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)]
