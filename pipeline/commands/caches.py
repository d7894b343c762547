"""`status`, `verify`, `drop`: what is in a cache, whether it is right, and what may go."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.errors import ConfigError
from cache.manifest import Dataset
from cache.progress import Progress
from pipeline.commands.options import EXIT_VERIFICATION, PATH, json_option, videos_option
from pipeline.printing import streams_to_json, streams_to_text
from pipeline.tables import format_bytes

if TYPE_CHECKING:
    from cache.comparison import CacheComparison
    from extract.checks.frame_check import FrameReport


@click.command()
@click.argument("cache", type=PATH)
@json_option
def status(cache: Path, as_json: bool) -> None:
    """Count what a cache holds: clips done, failed by code, left, how fast, and disk use."""
    from cache.verify import survey

    reports = survey(cache)
    click.echo(json.dumps(streams_to_json(reports)) if as_json else streams_to_text(reports))


@click.command()
@click.argument("cache", type=PATH)
@click.option("--deep", is_flag=True, help="Hash every file and every row; print each stream's content_sha256.")
@click.option(
    "--frames", "num_clips", type=click.IntRange(min=1), help="Decode so many random clips again, by another decoder."
)
@click.option("--dataset", type=PATH, help="Says where the videos are; needed for --frames.")
@videos_option
@click.option("--seed", default=0, show_default=True, help="Of the choice of clips for --frames.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes for --frames.")
@click.option("--against", type=PATH, metavar="CACHE2", help="Compare the rows with those of another cache.")
@click.option("--atol", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Tolerance of --against.")
@json_option
def verify(
    cache: Path,
    deep: bool,
    num_clips: int | None,
    dataset: Path | None,
    videos: Path | None,
    seed: int,
    workers: int,
    against: Path | None,
    atol: float,
    as_json: bool,
) -> None:
    """Check that a cache is what was committed, that its frames are right, that it equals another one."""
    from cache.verify import verify as check

    if num_clips is None and (dataset is not None or videos is not None):
        raise ConfigError("--dataset and --videos serve --frames N: give both, or none")
    if against is None and atol:
        raise ConfigError("--atol is the tolerance of --against CACHE2: give both, or none")
    if num_clips is not None and dataset is None:
        raise ConfigError("--frames decodes videos again: say where they are with --dataset DATASET [--videos FOLDER]")
    reports = check(cache, deep=deep)
    results: dict[str, Any] = {}
    if num_clips is not None and dataset is not None:
        results["frames"] = _frame_report(cache, Dataset.read(dataset, videos=videos), num_clips, seed, workers)
    if against is not None:
        results["against"] = _comparison(cache, against, atol)
    if as_json:
        body = streams_to_json(reports) | {name: result.to_json() for name, result in results.items()}
        click.echo(json.dumps(body))
    else:
        click.echo("\n".join([streams_to_text(reports), *(result.to_text() for result in results.values())]))
    if any(result.problems for result in (*reports.values(), *results.values())):
        sys.exit(EXIT_VERIFICATION)


@click.command()
@click.argument("cache", type=PATH)
@click.option("--stream", required=True, help="Its name, as `status` prints it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(cache: Path, stream: str, yes: bool) -> None:
    """Remove one stream from a cache; the others stay."""
    from cache.drop import drop as remove
    from cache.drop import stream_bytes

    size = format_bytes(stream_bytes(cache, stream))
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("give --yes: there is no terminal to ask at")
        click.confirm(f"Remove {stream} ({size}) from {cache}?", abort=True)
    remove(cache, stream)
    click.echo(f"{cache}: {stream} is gone, {size} are free")


def _frame_report(cache: Path, dataset: Dataset, num_clips: int, seed: int, workers: int) -> "FrameReport":
    from extract.checks.frame_check import check_frames

    with Progress(num_clips, "frames", unit="clip") as bar:
        return check_frames(cache, dataset, num_clips=num_clips, seed=seed, workers=workers, progress=bar.advance)


def _comparison(cache: Path, other: Path, atol: float) -> "CacheComparison":
    from cache.comparison import compare
    from extract.checks.frame_comparison import unpack_jpeg

    return compare(cache, other, atol=atol, unpack_jpeg=unpack_jpeg)
