"""The command `deconfound`: one click group, a short body for every command.

Stages are imported inside the commands: `--help`, `status` and `evaluate` start without torch.
stdout carries the result, stderr logs and progress bars, and the exit code says how it went (see `cache/errors.py`).
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cache.errors import DeconfoundError
from cache.manifest import Dataset
from pipeline.config import load_recipe
from pipeline.printing import (
    ExtractionProgress,
    metrics_to_text,
    plan_to_json,
    plan_to_text,
    streams_to_json,
    streams_to_text,
    summary_to_json,
    summary_to_text,
)
from pipeline.startup import check_packages, configure_logging
from pipeline.tables import format_table

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
EXIT_USAGE, EXIT_FAILED_ITEMS, EXIT_VERIFICATION, EXIT_INTERRUPT = 2, 3, 4, 130

cache_option = click.option("--cache", "cache", type=PATH, required=True, help="Folder of the feature cache.")
videos_option = click.option("--videos", type=PATH, help="Video root on this machine, instead of the stored one.")
set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one recipe key.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
device_option = click.option("--device", default="auto", help="cpu, cuda, cuda:1; auto takes a GPU if there is one.")
token_cache_option = click.option(
    "--token-cache", type=PATH, help="Folder of a frozen video encoder's tokens [CACHE/video_tokens]."
)


def extraction_options(command: Command) -> Command:
    """What `plan` and `extract` both take, in the same words: the one previews the other."""
    for option in (
        set_option,
        videos_option,
        click.option("--shards", help="Part of the work: 17-32 (numbers), or 2/8 (the third of eight)."),
        click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Decode processes."),
        click.option("--streams", help="Comma-separated: frames, visual_prompts, joints, text."),
        click.option("--recipe", help="Recipe whose [extract] section to use."),
        cache_option,
        click.argument("dataset", type=PATH),
    ):
        command = option(command)
    return command


def main() -> None:
    """Runs the command line; the only place that turns errors into exit codes."""
    try:
        check_packages()
        code = cli.main(prog_name="deconfound", standalone_mode=False)
    except DeconfoundError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except OSError as error:
        click.echo(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "), err=True)
        code = EXIT_USAGE
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; the same command continues", err=True)
        code = EXIT_INTERRUPT
    sys.exit(code or 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="deconfound")
@click.option("--verbose", "-v", is_flag=True, help="Log what happens, not only warnings.")
@click.option("--log-file", type=PATH, help="Keep the whole log in this file.")
def cli(verbose: bool, log_file: Path | None) -> None:
    """Recognise long and fine-grained human actions in video, and ask whether for the right reasons."""
    configure_logging(verbose=verbose, log_file=log_file)


@cli.command()
@click.option("--folder", type=PATH, default=Path("deconfound-demo"), show_default=True, help="Where to work.")
@click.option("--quick", is_flag=True, help="Fewer videos and epochs: under one and a half minutes.")
@click.option("--seed", default=0, show_default=True, help="Seed of the heads.")
@click.option(
    "--seeds",
    "num_seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Train every variant with this many seeds.",
)
@click.option("--all-variants", is_flag=True, help="Also train the textual and the visual intervention alone.")
@click.option("--train-frozen-models", is_flag=True, help="Make the tiny frozen models again (minutes), then stop.")
@json_option
def demo(
    folder: Path,
    quick: bool,
    seed: int,
    num_seeds: int,
    all_variants: bool,
    train_frozen_models: bool,
    as_json: bool,
) -> None:
    """The controlled world, from rendered videos to a report: offline, on a CPU, in minutes."""
    if train_frozen_models:
        from pipeline.demo.frozen_models import train_all

        click.echo(f"{train_all(folder)}: checked; the package ships such files in pipeline/demo/weights")
        return
    from pipeline.demo.demo import run_demo

    seeds = tuple(range(seed, seed + num_seeds))
    summary = run_demo(folder, quick=quick, seeds=seeds, all_variants=all_variants)
    click.echo(json.dumps(summary) if as_json else f"report: {folder / 'report' / 'index.html'}")


@cli.group()
def prepare() -> None:
    """Make a dataset (dataset.json and clips.jsonl) from videos and annotations."""


@prepare.command("folder")
@click.option("--videos", type=PATH, required=True, help="Sub-folders are classes; a flat folder is one split.")
@click.option("--out", type=PATH, required=True, help="Dataset folder to write.")
@click.option("--name", help="Name of the dataset [the folder's name].")
@click.option("--prompt", default="{}", show_default=True, help="Text template; {} is the class name.")
@click.option("--test-fraction", default=0.2, show_default=True, help="Share held out where no folder is `test`.")
def prepare_folder_command(videos: Path, out: Path, name: str | None, prompt: str, test_fraction: float) -> None:
    """A folder of videos: DIR/<class>/*.mp4, DIR/<split>/<class>/*.mp4, or DIR/*.mp4 without labels."""
    from pipeline.datasets.folder import prepare_folder

    dataset = prepare_folder(videos, name=name, prompt=prompt, test_fraction=test_fraction)
    dataset.write(out)
    rows = [
        (protocol, split, len(dataset.select(protocol, split)))
        for protocol, splits in dataset.protocols.items()
        for split in splits
    ]
    click.echo(format_table(("protocol", "split", "clips"), rows))
    for task in dataset.tasks:
        click.echo(f"task {task.name}: {task.num_classes} classes, {task.kind} label")


@cli.command()
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


@cli.command()
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


@cli.command()
@click.argument("cache", type=PATH)
@json_option
def status(cache: Path, as_json: bool) -> None:
    """Count what a cache holds: clips done, failed by code, left, and disk use."""
    from cache.verify import survey

    reports = survey(cache)
    click.echo(json.dumps(streams_to_json(reports)) if as_json else streams_to_text(reports))


@cli.command()
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


@cli.command()
@click.argument("dataset", type=PATH)
@cache_option
@click.option("--recipe", required=True, help="A recipe by name, or a path to a .toml file.")
@click.option("--run", "run_folder", type=PATH, required=True, help="Run directory to make or to continue.")
@click.option("--seed", type=int, help="Instead of train.seed.")
@click.option("--no-verify", is_flag=True, help="Do not check the sha256 of the cache's shards.")
@token_cache_option
@device_option
@set_option
def train(
    dataset: Path,
    cache: Path,
    recipe: str,
    run_folder: Path,
    seed: int | None,
    no_verify: bool,
    token_cache: Path | None,
    device: str,
    overrides: tuple[str, ...],
) -> None:
    """Train a recipe's model from the cache and write the logits of its test splits. Continues a stopped run."""
    from train.loop import train as run_training

    config = load_recipe(recipe, [*overrides, *([] if seed is None else [f"train.seed={seed}"])]).train
    run = run_training(
        Dataset.read(dataset),
        dataset,
        cache,
        run_folder,
        config,
        recipe=recipe,
        device=device,
        verify=not no_verify,
        token_cache=token_cache,
    )
    click.echo(f"{run.path}: {run.info.status}; predictions for {', '.join(run.splits)}")


@cli.command()
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.option("--split", help="Split of the run's protocol [the recipe's predict_splits].")
@click.option("--dataset", type=PATH, help="Dataset folder, instead of the one trained on.")
@click.option("--cache", type=PATH, help="Cache folder, instead of the one trained on.")
@token_cache_option
@device_option
def predict(
    run_folder: Path,
    split: str | None,
    dataset: Path | None,
    cache: Path | None,
    token_cache: Path | None,
    device: str,
) -> None:
    """Write raw logits of a split into the run directory."""
    from train.predict import predict as run_prediction

    for predictions in run_prediction(
        run_folder, split=split, dataset=dataset, cache=cache, token_cache=token_cache, device=device
    ):
        click.echo(f"{predictions.split}: {len(predictions.clip_ids)} clips, {len(predictions.skipped)} skipped")


@cli.command()
@click.argument("run_folders", metavar="RUN...", type=PATH, nargs=-1, required=True)
@click.option("--report", type=PATH, help="Folder for index.html, metrics.json, per_class.csv, report.md.")
@click.option("--cluster", help="Resample clips of one group together, for example subject.")
@json_option
def evaluate(run_folders: tuple[Path, ...], report: Path | None, cluster: str | None, as_json: bool) -> None:
    """Turn saved logits into numbers, and into a report."""
    from cache.run import Run
    from evaluate.report import write_report
    from evaluate.summary import summarise

    runs = [Run.open(folder) for folder in run_folders]
    summary = write_report(runs, report, cluster=cluster) if report else summarise(runs, cluster=cluster)
    click.echo(json.dumps(summary) if as_json else metrics_to_text(summary))
    if report and not as_json:
        click.echo(f"report: {report / 'index.html'}")


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Say what this machine has, and what is missing for which command."""
    from pipeline.doctor import examine

    findings = examine()
    click.echo(json.dumps(findings.to_json()) if as_json else findings.to_text())


def _streams_override(streams: str | None) -> list[str]:
    if streams is None:
        return []
    return [f"extract.streams={json.dumps([name.strip() for name in streams.split(',')])}"]
