"""`bench train`: the steps of training from a cache, against the bare model and against decoding the videos again.

The texts stand here; the measurements are in pipeline/training_bench and train/bench.
"""

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cache.errors import ConfigError
from cache.progress import Progress
from pipeline.commands.options import PATH, device_option, json_option, set_option
from pipeline.config import Recipe, load_recipe
from pipeline.tables import format_bytes, format_seconds, format_table

if TYPE_CHECKING:
    from pipeline.training_bench.report import TrainingReport

_MOST_FRAMES = 16
_QUIET = 0.95


@click.command("train")
@click.argument("recipe")
@click.option("--frames", type=click.IntRange(min=1), help="Frames used per clip. [16, or the recipe's if fewer]")
@click.option("--batch-size", type=click.IntRange(min=1), help="Clips per step. [the recipe's]")
@click.option("--classes", type=click.IntRange(min=2), help="Number of classes. [that of the recipe's dataset]")
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True, help="Steps measured in a round.")
@click.option(
    "--decoding-steps", type=click.IntRange(min=1), default=3, show_default=True, help="The same, of decoding again."
)
@click.option("--num-videos", type=click.IntRange(min=1), default=8, show_default=True, help="How many to make.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Rounds; medians are shown.")
@click.option("--folder", type=PATH, help="Keep the videos that are made here. [a temporary folder]")
@device_option
@set_option
@json_option
def train_command(
    recipe: str,
    frames: int | None,
    batch_size: int | None,
    classes: int | None,
    steps: int,
    decoding_steps: int,
    num_videos: int,
    repeats: int,
    folder: Path | None,
    device: str,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure training by RECIPE from a cache of made videos: ten seconds of 640x360 at 30 fps.

    In each round, in turn: the loader alone; steps from the cache; steps on a batch that lies ready on the device;
    decoding and the frozen models, each alone; and training without a cache, which decodes the videos and runs the
    frozen models again in every step. Models are the recipe's with random weights, which are as fast.
    """
    from extract.bench.videos import make_videos
    from pipeline.training_bench.bench import NUM_LEGS, BenchSizes, bench_train

    loaded = _recipe(recipe, overrides, frames, batch_size)
    sizes = BenchSizes(
        steps=steps, decoding_steps=decoding_steps, repeats=repeats, num_classes=_classes(loaded, classes)
    )
    with ExitStack() as stack:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deconfound-bench-", dir=folder)))
        videos = make_videos((folder or work) / "videos", num_videos)
        progress = stack.enter_context(Progress(repeats * NUM_LEGS, "bench train", unit="leg"))
        report = bench_train(loaded, videos, work, sizes, device=device, progress=progress.advance)
    click.echo(json.dumps(report.to_json()) if as_json else report_to_text(report))


def _recipe(name: str, overrides: tuple[str, ...], frames: int | None, batch_size: int | None) -> Recipe:
    """The recipe with its changes. Frames are 16 unless somebody says otherwise; a forward pass keeps its clips."""
    ours = ["extract.pose.boxes=whole_frame"]  # nobody is in these videos
    ours += [] if frames is None else [f"train.num_frames={frames}"]
    before = load_recipe(name, [*overrides, *ours]).train
    if frames is None and not _is_set("train.num_frames", overrides):
        ours.append(f"train.num_frames={min(_MOST_FRAMES, before.num_frames)}")
    if batch_size is not None:
        ours.append(f"train.batch_size={batch_size}")
        if not _is_set("train.accumulate", overrides):
            clips_per_pass = before.batch_size // before.accumulate
            ours.append(f"train.accumulate={max(1, batch_size // clips_per_pass)}")
    return load_recipe(name, [*overrides, *ours])


def _is_set(key: str, overrides: tuple[str, ...]) -> bool:
    return any(override.partition("=")[0].strip() == key for override in overrides)


def _classes(recipe: Recipe, given: int | None) -> int:
    from pipeline.costs import classes_of

    found = given or classes_of(recipe.name, recipe.train.task)
    if found is None:
        raise ConfigError(f"the number of classes is not known for recipe {recipe.name}: give --classes")
    return found


def report_to_text(report: "TrainingReport") -> str:
    """Where a step's seconds go, the ways to train, what each part costs alone, the ratios, and what they mean."""
    facts = {key: value for key, value in report.facts.items() if key != "cache_seconds_per_clip"}
    parts = [
        format_table(("a step from the cache", "seconds", "share"), _step_rows(report)),
        format_table(("way to train", "seconds per clip", "clips/s"), _way_rows(report)),
        format_table(("alone, per clip", "core-seconds", "seconds"), _part_rows(report)),
        format_table(("ratio", "median", "rounds"), _ratio_rows(report)),
        "\n".join(_definitions(report)),
        _memory(report),
        ", ".join(f"{key} {_words(value)}" for key, value in facts.items()),
    ]
    if report.core_share < _QUIET:
        parts.append(
            f"note: decoding alone had {report.core_share:.0%} of a core, so other programs run here or the disk is "
            "slow: these figures are not the machine's"
        )
    return "\n\n".join(parts)


def _step_rows(report: "TrainingReport") -> list[tuple[str, str, str]]:
    step = report.step
    return [(part, f"{seconds:.4g}", f"{seconds / step['whole']:.2%}") for part, seconds in step.items()]


def _way_rows(report: "TrainingReport") -> list[tuple[str, str, str]]:
    return [
        (way.replace("_", " "), f"{seconds:.4g}", f"{1 / seconds:.4g}")
        for way, seconds in report.seconds_per_clip.items()
    ]


def _part_rows(report: "TrainingReport") -> list[tuple[str, str, str]]:
    loading = report.loading
    costs = {"loading from the cache": (loading.core_seconds, loading.seconds)}
    costs |= {part: (cost.core_seconds, cost.seconds) for part, cost in report.parts.items()}
    return [(part, f"{cores:.4g}", f"{seconds:.4g}") for part, (cores, seconds) in costs.items()]


def _ratio_rows(report: "TrainingReport") -> list[tuple[str, str, str]]:
    return [
        (key, _ratio(value), " ".join(_ratio(entry.ratios[key]) for entry in report.rounds))
        for key, value in report.ratios.items()
    ]


def _definitions(report: "TrainingReport") -> list[str]:
    cores = report.facts["cores"]
    total = f"bare model + frozen models + decoding on one thread / {cores} cores"
    if report.rounds[0].is_gpu:
        total = f"the slower of bare model + frozen models, and decoding on one thread / {cores} cores"
    lines = [
        "bare model: forward, backward and optimiser on a batch that lies ready on the device",
        "decoding: in every step videos are decoded on all cores, ahead of it, and the frozen models run again",
        "ratio_to_bare_model: clips/s from the cache / clips/s of the bare model",
        "data_share: share of the step in which it waits for data",
        "ratio_to_decoding: seconds per clip of decoding / from the cache, that is how many times as fast an epoch is",
        f"bound: ({total}), each alone, / bare model",
        "ratio_to_bound: ratio_to_decoding / bound",
        "decoding_to_its_parts: the same sum / decoding; 1 where the baseline loses nothing",
    ]
    if report.rounds[0].with_tokens is not None:
        lines.insert(
            5, "ratio_to_decoding_with_tokens: the same where decoding, too, takes frozen tokens from the cache"
        )
    once = format_seconds(report.facts["cache_seconds_per_clip"])
    return [*lines, f"the cache itself took {once} a clip, once, with start-up; frozen tokens not counted"]


def _memory(report: "TrainingReport") -> str:
    memory = report.memory
    if memory.peak is None:
        return f"peak memory: {memory.what}"
    before = "" if memory.before is None else f"; {format_bytes(memory.before)} before the first step"
    return f"peak memory of training from the cache: {format_bytes(memory.peak)} {memory.what}{before}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _words(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    if isinstance(value, dict):
        return " ".join(f"{key} {_words(part)}" for key, part in value.items())
    return "+".join(value) if isinstance(value, list) else str(value)
