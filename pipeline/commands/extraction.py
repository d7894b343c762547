"""`plan`, `extract`, `status`, `verify`: a dataset to a cache, and what is in it."""

import json
import sys
from pathlib import Path

import click

from cache.manifest import Dataset
from pipeline.commands.options import (
    EXIT_FAILED_ITEMS,
    EXIT_VERIFICATION,
    PATH,
    device_option,
    extraction_options,
    json_option,
)
from pipeline.config import load_recipe
from pipeline.printing import (
    ExtractionProgress,
    plan_to_json,
    plan_to_text,
    streams_to_json,
    streams_to_text,
    summary_to_json,
    summary_to_text,
)


@click.command()
@extraction_options
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda: what to estimate for.")
@json_option
def plan(
    dataset: Path,
    cache: Path,
    recipe: str | None,
    streams: str | None,
    workers: int,
    shards: str | None,
    device: str,
    overrides: tuple[str, ...],
    videos: Path | None,
    as_json: bool,
) -> None:
    """Say what `extract` would do: counts, missing files, disk and hours. Nothing is loaded or written."""
    from extract.estimate import plan as estimate

    config = load_recipe(recipe, [*_streams_override(streams), *overrides]).extract
    result = estimate(
        Dataset.read(dataset, videos=videos), cache, config, workers=workers, shards=shards, device=device
    )
    click.echo(json.dumps(plan_to_json(result)) if as_json else plan_to_text(result))


@click.command()
@extraction_options
@click.option("--retry-failed", is_flag=True, help="Also decode the clips again that failed before.")
@device_option
@json_option
def extract(
    dataset: Path,
    cache: Path,
    recipe: str | None,
    streams: str | None,
    workers: int,
    shards: str | None,
    retry_failed: bool,
    device: str,
    overrides: tuple[str, ...],
    videos: Path | None,
    as_json: bool,
) -> None:
    """Run the frozen models over all videos, into the cache. The same command continues or does nothing."""
    from extract.extractor import extract as run

    config = load_recipe(recipe, [*_streams_override(streams), *overrides]).extract
    data = Dataset.read(dataset, videos=videos)
    with ExtractionProgress() as progress:
        summary = run(
            data,
            cache,
            config,
            workers=workers,
            shards=shards,
            device=device,
            retry_failed=retry_failed,
            progress=progress,
        )
    click.echo(json.dumps(summary_to_json(summary)) if as_json else summary_to_text(summary))
    if summary.num_failed:
        sys.exit(EXIT_FAILED_ITEMS)


@click.command()
@click.argument("cache", type=PATH)
@json_option
def status(cache: Path, as_json: bool) -> None:
    """Count what a cache holds: clips done, failed by code, left, and disk use."""
    from cache.verify import survey

    reports = survey(cache)
    click.echo(json.dumps(streams_to_json(reports)) if as_json else streams_to_text(reports))


@click.command()
@click.argument("cache", type=PATH)
@click.option("--deep", is_flag=True, help="Hash every file and every row; print each stream's content_sha256.")
@json_option
def verify(cache: Path, deep: bool, as_json: bool) -> None:
    """Check that a cache is what was committed."""
    from cache.verify import verify as check

    reports = check(cache, deep=deep)
    click.echo(json.dumps(streams_to_json(reports)) if as_json else streams_to_text(reports))
    if any(report.problems for report in reports.values()):
        sys.exit(EXIT_VERIFICATION)


def _streams_override(streams: str | None) -> list[str]:
    if streams is None:
        return []
    return [f"extract.streams={json.dumps([name.strip() for name in streams.split(',')])}"]
