"""`bench extract`: how fast extraction is on this machine, against its parts and the bare model.

The texts and JSON stand here; the measurement is in extract/bench.
"""

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache.progress import Progress
from pipeline.commands.options import PATH, device_option, json_option
from pipeline.datasets.videos import VideoFolder
from pipeline.tables import format_seconds, format_table

if TYPE_CHECKING:
    from extract.bench.stage import BenchReport
    from extract.config import ExtractConfig

_VIDEOS_PER_WORKER = 8
_QUIET = 0.95


@click.command("extract")
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
