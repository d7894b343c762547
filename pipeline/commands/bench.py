"""`bench extract`, `bench evaluate`: how fast a stage is on this machine, against its parts or another implementation.

The texts and JSON stand here; the measurements are in extract/bench and evaluate/bench.py.
"""

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache.progress import Progress
from pipeline.commands.bench_train import train_command
from pipeline.commands.options import PATH, device_option, json_option
from pipeline.datasets.videos import VideoFolder
from pipeline.tables import format_seconds, format_table

if TYPE_CHECKING:
    from evaluate.bench import EvaluateBench, Timing
    from extract.bench.stage import BenchReport
    from extract.config import ExtractConfig

_VIDEOS_PER_WORKER = 8
_QUIET = 0.95


@click.group()
def bench() -> None:
    """Measure how fast a stage is on this machine, against its parts or another implementation."""


bench.add_command(train_command)


@bench.command("extract")
@click.argument("videos", nargs=-1, type=PATH)
@click.option("--num-videos", type=click.IntRange(min=3), help="How many to make, or to take. [8 per worker; all]")
@click.option("--num-frames", type=click.IntRange(min=1), default=16, show_default=True, help="Frames per clip.")
@click.option("--model", default="ViT-B-32", show_default=True, help="Image encoder, in open_clip's words.")
@click.option("--pretrained", default="none", show_default=True, help="Its weights; random ones are as fast.")
@click.option("--streams", default="frames,visual_prompts", show_default=True, help="Also: joints.")
@click.option("--workers", type=click.IntRange(min=1), help="Decode processes. [the number of cores]")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Rounds; medians are shown.")
@click.option("--folder", type=PATH, help="Keep the videos that are made here. [a temporary folder]")
@device_option
@json_option
def extract_command(
    videos: tuple[Path, ...],
    num_videos: int | None,
    num_frames: int,
    model: str,
    pretrained: str,
    streams: str,
    workers: int | None,
    repeats: int,
    folder: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure `extract` on VIDEOS (files or folders), or on videos made for it: ten seconds of 640x360 at 30 fps."""
    from extract.bench.stage import NUM_STEPS, available_cores, bench_extract
    from extract.bench.videos import make_videos

    config = _config(streams, num_frames, model, pretrained)
    workers = workers or available_cores()
    with ExitStack() as stack:
        work = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deconfound-bench-")))
        paths = _files(videos)[:num_videos] or make_videos(work / "videos", num_videos or _VIDEOS_PER_WORKER * workers)
        progress = stack.enter_context(Progress(repeats * NUM_STEPS, "bench extract", unit="step"))
        report = bench_extract(
            paths, config, work, workers=workers, device=device, repeats=repeats, progress=progress.advance
        )
    click.echo(json.dumps(report.to_json()) if as_json else bench_to_text(report))


@bench.command("evaluate")
@click.option("--clips", type=click.IntRange(min=2), default=1863, show_default=True, help="Of the made-up test set.")
@click.option("--classes", type=click.IntRange(min=1), default=157, show_default=True, help="Of its labels.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds; medians are shown.")
@click.option("--resamples", type=click.IntRange(min=1), default=200, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all that is drawn.")
@json_option
def evaluate_command(clips: int, classes: int, repeats: int, resamples: int, seed: int, as_json: bool) -> None:
    """Measure the average precision of all classes, and its bootstrap, against scikit-learn on a made-up test set.

    Timed are: ours; a loop over the classes with scikit-learn's average_precision_score, each given its column; and one
    call of it for all classes (average=None). A bootstrap sorts once for all of its resamples, scikit-learn for each:
    it is given a hundredth of them, and seconds are those of one.
    """
    from evaluate.bench import bench_evaluate

    found = bench_evaluate(num_clips=clips, num_classes=classes, repeats=repeats, num_resamples=resamples, seed=seed)
    click.echo(json.dumps(found.to_json()) if as_json else evaluate_to_text(found))


def evaluate_to_text(found: "EvaluateBench") -> str:
    """Seconds by question, ratios, then how far the values are apart and what was timed."""
    sizes = found.sizes
    questions = {"all classes, once": found.once, f"one resample of {sizes['resamples']}": found.resample}
    seconds = [(title, *_seconds(timing)) for title, timing in questions.items()]
    ratios = [row for title, timing in questions.items() for row in _ratios(title, timing)]
    return "\n".join(
        [
            f"average precision of {sizes['clips']} clips x {sizes['classes']} classes (seed {sizes['seed']})",
            format_table(("ours and scikit-learn's", "seconds", "loop", "one call"), seconds),
            format_table(("how many times as fast", "median", "rounds"), ratios),
            f"largest difference: {found.max_difference:.1g}",
            "ratio_to_scikit_learn: to a loop over the classes with scikit-learn's average_precision_score",
            "ratio_to_scikit_learn_call: to one call of it for all classes (average=None)",
            f"medians of {sizes['repeats']} rounds, every other one in turned order; scikit-learn did "
            f"{sizes['scikit_learn_resamples']} of the resamples",
        ]
    )


def _seconds(timing: "Timing") -> list[str]:
    body = timing.to_json()
    return [f"{body[key]:.3g}" for key in ("seconds", "scikit_learn_seconds", "scikit_learn_call_seconds")]


def _ratios(title: str, timing: "Timing") -> list[tuple[str, str, str]]:
    body = timing.to_json()
    rounds = {"ratio_to_scikit_learn": timing.ratios, "ratio_to_scikit_learn_call": timing.call_ratios}
    return [
        (f"{title}, {key}", f"{body[key]:.1f}", " ".join(f"{ratio:.1f}" for ratio in ratios))
        for key, ratios in rounds.items()
    ]


def bench_to_text(report: "BenchReport") -> str:
    """A row per part and for the whole stage, the ratios of every round, and what they mean."""
    total = sum(report.parts.values(), start=report.stage * 0)
    costs = {**report.parts, "all parts": total, "whole stage": report.stage}
    rows = [
        (name, f"{cost.core_seconds:.3f}", f"{cost.seconds:.3f}", f"{1 / cost.seconds:.3g}")
        for name, cost in costs.items()
    ]
    ratios = [
        (key, _ratio(value), " ".join(_ratio(entry.ratios[key]) for entry in report.rounds))
        for key, value in report.ratios.items()
    ]
    parts = [
        format_table(("per clip, each part alone", "core-seconds", "seconds", "clips/s"), rows),
        format_table(("ratio", "median", "rounds"), ratios),
        _definitions(report),
        ", ".join(f"{key} {_words(value)}" for key, value in report.facts.items()),
    ]
    if report.core_share < _QUIET:
        parts.append(
            f"note: decoding alone had {report.core_share:.0%} of a core, so other programs run here or the disk is "
            "slow: these figures are not the machine's"
        )
    return "\n\n".join(parts)


def _definitions(report: "BenchReport") -> str:
    cores, startup = report.facts["cores"], format_seconds(report.startup.seconds)
    bound = f"core-seconds of all parts / ({cores} cores x seconds of the stage)"
    if report.rounds[0].is_gpu:
        bound = f"the slower of the device and of the {cores} cores, each with its parts alone / seconds of the stage"
    return "\n".join(
        [
            f"ratio_to_bound: {bound}",
            "ratio_to_bound_with_startup: the same, with all seconds of a run over all videos",
            "ratio_to_bare_model: seconds of the models on tensors that lie ready / seconds of the stage",
            "ratio_two_workers: clips that two processes decode while one decodes one clip; nothing else runs",
            f"start-up: {startup} of every run (processes, imports, weights, first and last clips). The stage's row is",
            "without it: what a run over all videos takes more than one over the first few, per clip",
        ]
    )


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _words(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{part}" for part in value.values())
    return "+".join(value) if isinstance(value, list) else str(value)


def _config(streams: str, num_frames: int, model: str, pretrained: str) -> "ExtractConfig":
    from extract.config import ExtractConfig, ImageEncoderConfig, PoseConfig

    names: Sequence[str] = [name.strip() for name in streams.split(",")]
    try:
        return ExtractConfig(
            streams=tuple(names),  # type: ignore[arg-type]  # checked by ExtractConfig
            num_frames=num_frames,
            image_encoder=ImageEncoderConfig(model=model, pretrained=pretrained),
            pose=PoseConfig(weights="none", boxes="whole_frame"),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _files(given: Sequence[Path]) -> list[Path]:
    """Files as they are given; of a folder all that look like videos."""
    found: list[Path] = []
    for path in given:
        found += [path / name for name in sorted(VideoFolder(path).paths)] if path.is_dir() else [path]
    if given and not found:
        raise click.UsageError(f"no videos in {', '.join(str(path) for path in given)}")
    return found
