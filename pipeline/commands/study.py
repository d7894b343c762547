"""`study`: the controlled world's experiment with several worlds, heads and strengths."""

import json
from pathlib import Path

import click

from pipeline.commands.options import PATH, json_option


@click.command()
@click.option("--out", type=PATH, default=Path("deconfound-study"), show_default=True, help="Where to work.")
@click.option("--quick", is_flag=True, help="Two small worlds, one strength, one training of each row: minutes.")
@click.option("--seeds", help="Worlds that are reported: 33-38, 33,35 or 33  [33-38].")
@click.option("--strengths", help="Of the confounders, the main one first  [0.7,0.5,0.9].")
@click.option("--heads", type=click.IntRange(min=1), help="Trainings of each row on each world  [1].")
@click.option(
    "--frozen-sets",
    type=click.IntRange(min=1),
    help="Sets of frozen models that take turns over the worlds; each but the shipped one is trained first  [3].",
)
@click.option("--rows", help="Only these rows of the table, with semicolons; the rest can follow later.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes.")
@json_option
def study(
    out: Path,
    quick: bool,
    seeds: str | None,
    strengths: str | None,
    heads: int | None,
    frozen_sets: int | None,
    rows: str | None,
    workers: int,
    as_json: bool,
) -> None:
    """Which causal claims hold where the truth is known? Hours in full; the same command goes on where it stopped."""
    from pipeline.study.plan import plan_of
    from pipeline.study.study import run_study

    plan = plan_of(quick=quick, seeds=seeds, strengths=strengths, heads=heads, frozen_sets=frozen_sets, rows=rows)
    body = run_study(out, plan, workers=workers)
    click.echo(json.dumps(body) if as_json else f"report: {out / 'index.html'}")
