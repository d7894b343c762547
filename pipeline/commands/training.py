"""`train`, `predict`, `recognise`, `ablate`, `cost`: from a cache to logits, and what a model takes."""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import click

from cache.manifest import Dataset
from pipeline.commands.options import (
    EXIT_FAILED_ITEMS,
    PATH,
    cache_option,
    device_option,
    json_option,
    set_option,
    token_cache_option,
)
from pipeline.config import load_recipe, run_recipe


@click.command()
@click.argument("dataset", type=PATH)
@cache_option
@click.option("--recipe", required=True, help="A recipe by name, or a path to a .toml file.")
@click.option("--run", "run_folder", type=PATH, required=True, help="Run directory to make or to continue.")
@click.option("--seed", type=int, help="Instead of train.seed.")
@click.option("--seeds", help="0-4, 0,2 or 3: a run for each, in RUN/seed0, RUN/seed1, ..., and their mean.")
@click.option(
    "--tensorboard", is_flag=True, help="Write metrics.jsonl also as TensorBoard's scalars [RUN/tensorboard]."
)
@click.option("--no-verify", is_flag=True, help="Do not check the sha256 of the cache's shards.")
@token_cache_option
@device_option
@set_option
@json_option
def train(
    dataset: Path,
    cache: Path,
    recipe: str,
    run_folder: Path,
    seed: int | None,
    seeds: str | None,
    tensorboard: bool,
    no_verify: bool,
    token_cache: Path | None,
    device: str,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a recipe's model from the cache and write the logits of its test splits. Continues stopped runs."""
    from pipeline.seeds import ScoredRun, plan_runs, seeds_document, seeds_to_text, train_all
    from train import parallel
    from train.loop import train as run_training

    planned = plan_runs(recipe, overrides, run_folder, seed=seed, seeds=seeds)
    loaded = Dataset.read(dataset)
    options: dict[str, Any] = {"recipe": recipe, "device": device, "token_cache": token_cache}
    options |= {"verify": not no_verify, "tensorboard": tensorboard}
    train_one = functools.partial(run_training, loaded, dataset, cache, **options)
    runs = list(train_all(planned, loaded, train_one, device=device))
    if not parallel.is_first():
        return
    if seeds is None and not as_json:
        click.echo("\n".join(f"{run.path}: {run.info.status}; predictions for {', '.join(run.splits)}" for run in runs))
        return
    document = seeds_document([ScoredRun.of(run) for run in runs])
    click.echo(json.dumps(document) if as_json else seeds_to_text(document))


@click.command()
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.option("--split", help="Split of the run's protocol [the recipe's predict_splits].")
@click.option("--dataset", type=PATH, help="Dataset folder, instead of the one trained on.")
@click.option("--cache", type=PATH, help="Cache folder, instead of the one trained on.")
@click.option(
    "--explain",
    type=click.IntRange(min=1),
    is_flag=False,
    flag_value=8,
    metavar="[N]",
    help="Also store what the model does inside with N clips of each split [8], for the report.",
)
@click.option("--clip", "clip_ids", multiple=True, metavar="ID", help="Explain this clip; can be given several times.")
@token_cache_option
@device_option
@set_option
def predict(
    run_folder: Path,
    split: str | None,
    dataset: Path | None,
    cache: Path | None,
    explain: int | None,
    clip_ids: tuple[str, ...],
    token_cache: Path | None,
    device: str,
    overrides: tuple[str, ...],
) -> None:
    """Write raw logits of a split into the run directory; with --explain also what led to them."""
    from cache.run import Run
    from train.explanations.choice import choice_of
    from train.predict import predict as run_prediction

    config = run_recipe(Run.open(run_folder), overrides).train if overrides else None
    choice = choice_of(explain, clip_ids)
    for predictions in run_prediction(
        run_folder,
        split=split,
        dataset=dataset,
        cache=cache,
        token_cache=token_cache,
        config=config,
        device=device,
        explain=choice,
    ):
        click.echo(f"{predictions.split}: {len(predictions.clip_ids)} clips, {len(predictions.skipped)} skipped")
    if choice:
        click.echo(f"explained: {run_folder / 'explanations'}")


@click.command()
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.argument("videos", metavar="VIDEO...", type=PATH, nargs=-1, required=True)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes to name.")
@click.option("--recipe", help="Recipe whose [extract] section to use, where the run remembers none.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Decode processes.")
@device_option
@set_option
@json_option
def recognise(
    run_folder: Path,
    videos: tuple[Path, ...],
    top: int,
    recipe: str | None,
    workers: int,
    device: str,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Name the most probable classes of new videos, with a trained run."""
    from pipeline.recognise import recognise as run_recognition
    from pipeline.recognise import recognitions_to_text

    found = run_recognition(
        run_folder, videos, top=top, recipe=recipe, overrides=overrides, workers=workers, device=device
    )
    result = {"run": str(run_folder), "videos": [one.to_json() for one in found]}
    click.echo(json.dumps(result) if as_json else recognitions_to_text(found))
    if any(one.failure for one in found):
        sys.exit(EXIT_FAILED_ITEMS)


@click.command()
@click.argument("dataset", type=PATH)
@cache_option
@click.option("--recipe", required=True, help="A recipe by name, or a path to a .toml file.")
@click.option("--table", required=True, help="cmdcl-3, pevl-4, ...; an unknown name lists all.")
@click.option("--out", type=PATH, required=True, help="Folder for the table and its runs.")
@click.option("--seeds", default="0", show_default=True, help="0-4, 0,2 or 3.")
@click.option("--no-verify", is_flag=True, help="Do not check the sha256 of the cache's shards.")
@token_cache_option
@device_option
@set_option
@json_option
def ablate(
    dataset: Path,
    cache: Path,
    recipe: str,
    table: str,
    out: Path,
    seeds: str,
    no_verify: bool,
    token_cache: Path | None,
    device: str,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train the rows of a paper's table, and show them beside the printed figures. Continues what was stopped."""
    from pipeline.ablate import ablate as run_ablation
    from pipeline.ablate import table_to_text
    from pipeline.ablations import find_ablation
    from pipeline.seeds import parse_seeds

    result = run_ablation(
        Dataset.read(dataset),
        dataset,
        cache,
        recipe,
        find_ablation(table),
        out,
        seeds=parse_seeds(seeds),
        overrides=overrides,
        device=device,
        verify=not no_verify,
        token_cache=token_cache,
    )
    click.echo(json.dumps(result) if as_json else table_to_text(result))


@click.command()
@click.argument("recipe")
@click.option("--frames", type=click.IntRange(min=1), help="Instead of train.num_frames.")
@click.option("--classes", type=click.IntRange(min=1), help="Number of classes [that of the recipe's dataset].")
@set_option
@json_option
def cost(recipe: str, frames: int | None, classes: int | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Count parameters and multiply-accumulates of a recipe's model, part by part, beside the papers' figures."""
    from pipeline.costs import count_costs

    loaded = load_recipe(recipe, [*overrides, *([] if frames is None else [f"train.num_frames={frames}"])])
    report = count_costs(loaded, num_classes=classes)
    click.echo(json.dumps(report.to_json()) if as_json else report.to_text())
