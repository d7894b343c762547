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
from cache.run import Run, RunInfo
from cache.store import stream_settings
from train.config import TrainConfig, differences, to_json
from train.experiment import Experiment
from train.file_lock import locked

logger = logging.getLogger(__name__)


def existing_run(path: Path, config: TrainConfig) -> Run | None:
    """The run of that directory, if there is one.

    Raises:
        ConfigError: it was made with another configuration; lists the differences.
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
    return run


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
    run = existing_run(path, experiment.config)
    if run is None:
        return Run.create(path, _info(experiment, path, dataset_folder, recipe), asked)
    for folder in (path, path / "checkpoints", path / "predictions"):
        atomic.sweep(folder)
    if run.info.status == "running" and run.config != asked:
        run.replace_config(asked)
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
