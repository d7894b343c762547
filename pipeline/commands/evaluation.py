"""`evaluate`: from logits to numbers and pages."""

import json
from pathlib import Path

import click

from pipeline.commands.options import PATH, json_option
from pipeline.printing import metrics_to_text


@click.command()
@click.argument("run_folders", metavar="RUN...", type=PATH, nargs=-1, required=True)
@click.option("--report", type=PATH, help="Folder for index.html, metrics.json, per_class.csv, report.md.")
@click.option(
    "--cluster", default="auto", help="Draw clips of one group together; none: each alone. [subject, if known]"
)
@click.option("--cache", type=PATH, help="Where the frames of the pictures are, instead of the cache trained on.")
@json_option
def evaluate(
    run_folders: tuple[Path, ...], report: Path | None, cluster: str, cache: Path | None, as_json: bool
) -> None:
    """Turn saved logits into numbers, and into a report."""
    from cache.run import Run
    from evaluate.report import write_report
    from evaluate.summary import summarise

    runs = [Run.open(folder) for folder in run_folders]
    group = None if cluster == "none" else cluster
    summary = write_report(runs, report, cluster=group, cache=cache) if report else summarise(runs, cluster=group)
    click.echo(json.dumps(summary) if as_json else metrics_to_text(summary))
    if report and not as_json:
        click.echo(f"report: {report / 'index.html'}")
