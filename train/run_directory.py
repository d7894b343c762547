"""The run directory of a training run: found or made, compared with what is asked for, and held by one process.

A reader may ask why a run is not made first: whatever does not fit is refused before anything is written, so a wrong
option leaves no folder behind.
"""

import contextlib
import logging
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from cache import atomic
from cache.errors import ConfigError
from cache.file_lock import locked
from cache.manifest import Dataset
from cache.run import Run, RunInfo
from cache.store import stream_settings
from train import checkpoint
from train.config import TrainConfig, differences, to_json
from train.experiment import Experiment

logger = logging.getLogger(__name__)


def existing_run(path: Path, config: TrainConfig, dataset: Dataset) -> Run | None:
    """The run of that directory, if there is one.

    Raises:
        ConfigError: it was made with another configuration or dataset; lists the differences.
    """
    if not (path / "run.json").exists():
        return None
    run = Run.open(path)
    lines = differences(run.config["train"], to_json(config))
    if lines:
        listing = "\n  ".join(lines)
        raise ConfigError(
            f"{path} is a run with another configuration:\n  {listing}\n"
            "Use its configuration to continue it, or another run directory"
        )
    _check_dataset(run, dataset)
    return run


def _check_dataset(run: Run, dataset: Dataset) -> None:
    """The same configuration on another dataset is another run."""
    position = checkpoint.read_position(run.path / "checkpoints", "last")
    classes = dataset.task(run.info.task).class_names
    has_other_classes = position is not None and tuple(position.class_names) != classes
    if run.info.dataset != dataset.name or has_other_classes:
        what = f"another version of {dataset.name!r}" if run.info.dataset == dataset.name else f"{run.info.dataset!r}"
        raise ConfigError(
            f"{run.path} is a run on {what}, with other classes or videos than {dataset.name!r} has: use another run "
            "directory"
        )


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Keeps every other process from training into the directory.

    Raises:
        ConfigError: another process does.
    """
    path.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path / "lock", wait=False))
        except BlockingIOError:
            raise ConfigError(
                f"{path} is being trained by another process: wait for it or stop it, or use another run directory"
            ) from None
        yield


def begin(experiment: Experiment, path: Path, *, dataset_folder: Path, recipe: str) -> Run:
    """Makes the run, or opens the one that is there to be continued; the directory is held.

    What earlier processes left half written is removed, and settings that may change (FREE_KEYS) are stored.
    """
    asked = {"train": to_json(experiment.config), "streams": stream_settings(experiment.store.folder)}
    run, info = (
        existing_run(path, experiment.config, experiment.dataset),
        _info(experiment, path, dataset_folder, recipe),
    )
    if run is None:
        return Run.create(path, info, asked)
    for folder in (path, path / "checkpoints", path / "predictions"):
        atomic.sweep(folder)
    if run.info.status == "running" and run.config != asked:
        run.replace_config(asked)
    if run.info.status == "running" and checkpoint.read_position(path / "checkpoints", "last") is None:
        run.update(**vars(info))  # nothing is trained yet: it begins on what there is now
    return run


def _info(experiment: Experiment, path: Path, dataset_folder: Path, recipe: str) -> RunInfo:
    config = experiment.config
    return RunInfo(
        name=path.resolve().name,
        method=config.method,
        variant=config.variant,
        task=config.task,
        dataset=experiment.dataset.name,
        protocol=config.protocol,
        seed=config.seed,
        recipe=recipe,
        dataset_folder=str(dataset_folder.resolve()),
        cache_folder=str(experiment.store.folder.resolve()),
        notices=experiment.run_notices,
        fingerprints={stream: mark.sha256 for stream, mark in experiment.fingerprints.items()},
        versions={
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
    )
