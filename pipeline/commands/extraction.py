"""`plan` and `extract`: a dataset to a cache."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache.errors import ConfigError
from cache.manifest import Dataset
from pipeline.commands.options import (
    EXIT_FAILED_ITEMS,
    extraction_options,
    json_option,
)
from pipeline.config import load_recipe
from pipeline.printing import (
    ExtractionProgress,
    plan_to_json,
    plan_to_text,
    summary_to_json,
    summary_to_text,
)

if TYPE_CHECKING:
    from extract.config import ExtractConfig


@click.command()
@extraction_options
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda: what to estimate for.")
@json_option
def plan(
    dataset: Path,
    cache: Path,
    recipe: str | None,
    streams: str | None,
    people: Sequence[str],
    workers: int,
    shards: str | None,
    device: str,
    overrides: tuple[str, ...],
    videos: Path | None,
    allow_outside: bool,
    as_json: bool,
) -> None:
    """Say what `extract` would do: counts, missing files, disk and hours. Nothing is loaded or written."""
    from extract.estimate import plan as estimate

    config = _config(recipe, streams, people, overrides)
    result = estimate(
        Dataset.read(dataset, videos=videos),
        cache,
        config,
        workers=workers,
        shards=_explained(shards),
        device=device,
        allow_outside=allow_outside,
    )
    click.echo(json.dumps(plan_to_json(result)) if as_json else plan_to_text(result))


@click.command()
@extraction_options
@click.option("--retry-failed", is_flag=True, help="Also decode the clips again that failed before.")
@click.option("--overwrite", is_flag=True, help="Make streams with other settings, and changed videos, again.")
@click.option("--max-failures", metavar="N|P%", help="Stop when more clips fail [more than half of the first 20].")
@click.option("--fail-fast", is_flag=True, help="Stop at the first clip that fails: --max-failures 0.")
@click.option("--ray", metavar="ADDRESS", help="Work on a Ray cluster: auto, local, or HOST:PORT of its head.")
@click.option(
    "--device", default="auto", help="cpu, cuda, cuda:0,cuda:1 (a process each), all (every GPU); auto takes one GPU."
)
@json_option
def extract(
    dataset: Path,
    cache: Path,
    recipe: str | None,
    streams: str | None,
    people: Sequence[str],
    workers: int,
    shards: str | None,
    retry_failed: bool,
    overwrite: bool,
    max_failures: str | None,
    fail_fast: bool,
    ray: str | None,
    device: str,
    overrides: tuple[str, ...],
    videos: Path | None,
    allow_outside: bool,
    as_json: bool,
) -> None:
    """Run the frozen models over all videos, into the cache. The same command continues or does nothing."""
    from extract.extractor import extract as run
    from extract.launch.failure_policy import FailureLimit

    if fail_fast and max_failures is not None:
        raise ConfigError("--fail-fast is --max-failures 0: give one of them")
    limit = "0" if fail_fast else max_failures
    config = _config(recipe, streams, people, overrides)
    data = Dataset.read(dataset, videos=videos)
    with ExtractionProgress() as progress:
        summary = run(
            data,
            cache,
            config,
            workers=workers,
            shards=_explained(shards),
            device=device,
            retry_failed=retry_failed,
            overwrite=overwrite,
            allow_outside=allow_outside,
            max_failures=FailureLimit.parse(limit) if limit is not None else None,
            ray=ray,
            progress=progress,
        )
    click.echo(json.dumps(summary_to_json(summary)) if as_json else summary_to_text(summary))
    if summary.num_failed:
        sys.exit(EXIT_FAILED_ITEMS)


def _explained(shards: str | None) -> str | None:
    """The choice of shards; what `auto` was taken for is said on stderr."""
    if shards != "auto":
        return shards
    from extract.shards.choice import inferred_choice

    choice, because = inferred_choice()
    click.echo(f"--shards auto: {choice} (counted from 0), from {because}", err=True)
    return choice


def _config(
    recipe: str | None, streams: str | None, people: Sequence[str], overrides: Sequence[str]
) -> "ExtractConfig":
    """The recipe's [extract] with what the options change; `--set` has the last word."""
    config = load_recipe(recipe, [*_streams_override(streams), *people, *overrides]).extract
    if people and "joints" not in config.streams:
        raise ConfigError(
            "--whole-frame, --boxes, --detector, --codec and --flip-test are for the stream joints, which is not asked "
            f"for: say --streams {','.join([*config.streams, 'joints'])}"
        )
    return config


def _streams_override(streams: str | None) -> list[str]:
    if streams is None:
        return []
    return [f"extract.streams={json.dumps([name.strip() for name in streams.split(',')])}"]
