"""`evaluate`, `compare`: from logits to numbers and pages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.commands.options import PATH, json_option
from pipeline.printing import comparison_to_text, metrics_to_text

report_option = click.option(
    "--report", type=PATH, help="Folder for index.html, metrics.json, per_class.csv, report.md."
)
cluster_option = click.option(
    "--cluster", default="auto", help="Draw clips of one group together; none: each alone. [subject, if known]"
)
pictures_option = click.option(
    "--cache", type=PATH, help="Where the frames of the pictures are, instead of the cache trained on."
)


@click.command()
@click.argument("run_folders", metavar="RUN...", type=PATH, nargs=-1, required=True)
@report_option
@cluster_option
@pictures_option
@json_option
def evaluate(
    run_folders: tuple[Path, ...], report: Path | None, cluster: str, cache: Path | None, as_json: bool
) -> None:
    """Turn saved logits into numbers, and into a report."""
    from cache.run import Run
    from evaluate.report import write_report
    from evaluate.summary import summarise

    runs = [Run.open(folder) for folder in run_folders]
    group = _group(cluster)
    summary = write_report(runs, report, cluster=group, cache=cache) if report else summarise(runs, cluster=group)
    _say(summary, metrics_to_text, report, as_json=as_json)


@click.command()
@click.argument("run_folders", metavar="RUN_A RUN_B...", type=PATH, nargs=-1, required=True)
@click.option("--split", "splits", multiple=True, help="Compare this split alone; may be repeated. [all]")
@report_option
@cluster_option
@pictures_option
@json_option
def compare(
    run_folders: tuple[Path, ...],
    splits: tuple[str, ...],
    report: Path | None,
    cluster: str,
    cache: Path | None,
    as_json: bool,
) -> None:
    """What runs gain over the first one on the same clips, and whether it could be chance."""
    from cache.run import Run
    from evaluate.comparison_report import summarise_comparison, write_comparison

    runs = [Run.open(folder) for folder in run_folders]
    options: dict[str, Any] = {"splits": splits or None, "cluster": _group(cluster)}
    summary = (
        write_comparison(runs, report, cache=cache, **options) if report else summarise_comparison(runs, **options)
    )
    _say(summary, comparison_to_text, report, as_json=as_json)


def _group(cluster: str) -> str | None:
    return None if cluster == "none" else cluster


def _say(
    summary: dict[str, Any], to_text: Callable[[dict[str, Any]], str], report: Path | None, *, as_json: bool
) -> None:
    click.echo(json.dumps(summary) if as_json else to_text(summary))
    if report and not as_json:
        click.echo(f"report: {report / 'index.html'}")
