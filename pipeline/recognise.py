"""`deconfound recognise`: the classes of new videos, from the videos alone.

A run remembers how the features it was trained on were made, so the same settings extract the new videos into a
temporary cache, and what comes of them is compared with the run's fingerprints before any video is decoded. A reader
may ask why not into the run's own cache: a cache belongs to a dataset's plan, and somebody may be training on it.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import ConfigError, FingerprintMismatch
from cache.fingerprint import Fingerprint
from cache.manifest import Clip, Dataset, Task
from cache.rows import TOKEN_STREAMS, Failure
from cache.run import Run
from cache.store import FeatureStore
from extract.config import ExtractConfig
from extract.extractor import extract
from extract.streams import Resolver
from pipeline.config import Recipe, apply_overrides, load_recipe, run_recipe
from pipeline.tables import format_table
from train import checkpoint
from train.checkpoint import Kind, Position
from train.config import TrainConfig
from train.experiment import require_weights
from train.predict import config_of, predict_videos

_SPLIT = "videos"


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """One video: its top classes with scores, the best first, or why there are none.

    Scores are probabilities: they sum to 1 over the classes of a single-label task, and are independent for each class
    of a multi-label one.
    """

    video: Path
    classes: tuple[tuple[str, float], ...] = ()
    failure: Failure | None = None

    def to_json(self) -> dict[str, Any]:
        """As `recognise --json` prints it."""
        failure = None if self.failure is None else {"code": self.failure.code.value, "message": self.failure.message}
        classes = [{"class": name, "score": score} for name, score in self.classes]
        return {"video": str(self.video), "classes": classes, "failure": failure}


def recognise(
    run: Path,
    videos: Sequence[Path],
    *,
    top: int = 5,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    workers: int = 2,
    device: str = "auto",
) -> list[Recognition]:
    """The most probable classes of each video.

    Args:
        run: a trained run.
        videos: video files.
        top: number of classes to name, at most C.
        recipe: whose [extract] section to use in place of the settings that the run remembers.
        overrides: `extract.key=value` or `train.key=value`, for example where a weights file has moved.
        workers: decode processes.
        device: where the models run.

    Raises:
        FingerprintMismatch: these settings do not give the features that the run was trained on.
        ConfigError: the run remembers no settings, or was trained on imported joints, or a file is not there.
    """
    absent = [str(video) for video in videos if not video.is_file()]
    if absent:
        raise ConfigError(f"not a file: {', '.join(absent[:5])}; give paths of video files")
    current = Run.open(run)
    train_config = config_of(
        current, run_recipe(current, [text for text in overrides if text.startswith("train.")]).train
    )
    require_weights(train_config)
    kind: Kind = "best" if train_config.validation_split else "last"
    position = checkpoint.require_position(run / "checkpoints", kind)
    config = _extract_config(current, position, recipe, [text for text in overrides if not text.startswith("train.")])
    dataset = _dataset(train_config, position, videos)
    with tempfile.TemporaryDirectory(prefix="deconfound-recognise-") as folder:
        cache = Path(folder) / "cache"
        _check_settings(Resolver(config, cache).marks(), position)
        summary = extract(dataset, cache, config, workers=workers, device=device)
        failures = _failures(FeatureStore.open(cache), config) if summary.num_failed else {}
        found = {}
        if len(failures) < len(videos):
            result = predict_videos(run, dataset, _SPLIT, cache, config=train_config, device=device)
            found = dict(zip(result.clip_ids, result.logits, strict=True))
    task = dataset.task(train_config.task)
    return [
        Recognition(video=video, classes=_best(found[clip.id], task, top))
        if clip.id in found
        else Recognition(video=video, failure=failures[clip.id])
        for video, clip in zip(videos, dataset.clips, strict=True)
    ]


def recognitions_to_text(recognitions: Sequence[Recognition]) -> str:
    """A line per video and class."""
    rows = []
    for found in recognitions:
        if found.failure is not None:
            rows.append((str(found.video), "-", f"{found.failure.code.value}: {found.failure.message}"))
        for rank, (name, score) in enumerate(found.classes):
            rows.append((str(found.video) if rank == 0 else "", f"{100 * score:.1f} %", name))
    return format_table(("video", "score", "class"), rows)


def _extract_config(run: Run, position: Position, recipe: str | None, overrides: Sequence[str]) -> ExtractConfig:
    """The settings of the streams that the run was trained on, and of the texts."""
    _refuse_imported(run, position)
    asked = {"frames" if stream in TOKEN_STREAMS else stream for stream in position.fingerprints}
    streams = [stream for stream in ("frames", "visual_prompts", "joints", "text") if stream in asked]
    if recipe is not None:
        values = dict(load_recipe(recipe).values.get("extract", {}))
    else:
        values = _remembered(run.config.get("streams", {}), streams, run.path)
    settings: dict[str, Any] = {"extract": values | {"streams": streams}}
    apply_overrides(settings, overrides)
    return Recipe("recognise", settings).extract


def _refuse_imported(run: Run, position: Position) -> None:
    model = position.fingerprints.get("joints", {}).get("model", {})
    if model.get("name") == "imported":
        raise ConfigError(
            f"{run.path} was trained on joints imported from files of {model.get('format')}: new videos need joints of "
            "the same tool, and recognise cannot make them. Import the tool's joints of these videos into a cache of "
            "their own with `deconfound joints import` and use `deconfound predict`"
        )


def _remembered(settings: Mapping[str, Any], streams: Sequence[str], run: Path) -> dict[str, Any]:
    absent = [stream for stream in streams if stream not in settings]
    if absent:
        raise ConfigError(
            f"{run} does not remember how {', '.join(absent)} were extracted: give the recipe with --recipe NAME, and "
            "what differed from it with --set"
        )
    values: dict[str, Any] = {}
    for stream in ("text", *streams):  # the image encoder of the visual prompts decides, where there are any
        values |= settings[stream]
    return values


def _check_settings(marks: Mapping[str, Fingerprint], position: Position) -> None:
    lines: list[str] = []
    for stream, mark in marks.items():
        if stream in position.fingerprints:
            lines += mark.difference(Fingerprint.from_json(position.fingerprints[stream]))
    if lines:
        raise FingerprintMismatch(
            'the settings do not give the features that the run was trained on ("asked for" is the run\'s):\n  '
            + "\n  ".join(lines)
            + "\nChange them with --set extract.KEY=VALUE"
        )


def _dataset(config: TrainConfig, position: Position, videos: Sequence[Path]) -> Dataset:
    """The videos as clips of one split, and the run's task."""
    root = Path(videos[0].resolve().anchor)
    task = Task(
        name=config.task,
        kind="multi" if position.task_kind == "multi" else "single",
        class_names=tuple(position.class_names),
        prompts=tuple(position.prompts),
    )
    clips = tuple(
        Clip(
            id=f"{number:04d}-{video.name}",
            video=video.resolve().relative_to(root).as_posix(),
            splits={"default": _SPLIT},
        )
        for number, video in enumerate(videos)
    )
    return Dataset(
        name="recognise",
        version="1",
        tasks=(task,),
        protocols={"default": (_SPLIT,)},
        clips=clips,
        video_root=root,
    )


def _failures(store: FeatureStore, config: ExtractConfig) -> dict[str, Failure]:
    """Clip id -> why a stream has no rows of it."""
    failures: dict[str, Failure] = {}
    for stream in config.streams:
        if stream != "text":
            failures |= store.stream(stream).failures
    return failures


def _best(logits: npt.NDArray[np.float32], task: Task, top: int) -> tuple[tuple[str, float], ...]:
    values = logits.astype(np.float64)
    if task.kind == "single":
        values = np.exp(values - values.max())
        scores = values / values.sum()
    else:
        scores = 1 / (1 + np.exp(-values))
    order = np.argsort(-scores, kind="stable")[:top]
    return tuple((task.class_names[index], float(scores[index])) for index in order)
