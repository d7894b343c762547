"""A training run from its first check to its predictions; the same command continues a stopped one.

Everything that cannot work is refused before the first step; then the trainer trains, and the run is finished once its
predictions are written. Under torchrun every process goes through all of this, and the first one alone writes.
"""

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cache.errors import ConfigError
from cache.manifest import Dataset
from cache.run import Run
from train import parallel, run_directory
from train.config import TrainConfig, with_absolute_paths
from train.data import BatchSource
from train.device import memory_advice, resolve_device
from train.experiment import Experiment
from train.parallel import Processes
from train.tensorboard_log import TensorBoardLog
from train.trainer import Trainer

logger = logging.getLogger(__name__)


def train(
    dataset: Dataset,
    dataset_folder: Path,
    cache: Path,
    run: Path,
    config: TrainConfig,
    *,
    recipe: str,
    device: str = "cpu",
    verify: bool = True,
    token_cache: Path | None = None,
    tensorboard: bool = False,
    progress: bool = True,
) -> Run:
    """Trains into a run directory, or continues one; a finished run is returned as it is.

    Args:
        dataset: the manifest.
        dataset_folder: where it was read from; remembered for `predict`.
        cache: the feature cache.
        run: the run directory, new or made by the same command.
        config: the configuration.
        recipe: name of the recipe, for reports.
        device: a torch device.
        verify: check the sha256 of every shard, once per cache.
        token_cache: folder of frozen video tokens; by default CACHE/video_tokens.
        tensorboard: also keep the rows of metrics.jsonl as TensorBoard's scalars, in RUN/tensorboard.
        progress: show progress on stderr.

    Returns:
        The finished run.

    Raises:
        DeconfoundError: something does not fit; nothing was trained yet. ConfigError also if training diverges, the
            device runs out of memory, or another process trains into the directory.
    """
    log = TensorBoardLog(run / "tensorboard") if tensorboard and parallel.is_first() else None
    config = with_absolute_paths(config)
    target = resolve_device(parallel.device_name(device))
    current = run_directory.existing_run(run, config, dataset)
    if current is not None and current.info.status == "finished":
        logger.info("%s is finished: nothing to do", run)
        if log is not None:
            log.begin(current.metrics())
        return current
    splits = [config.train_split, *filter(None, [config.validation_split]), *config.predict_splits]
    experiment = Experiment.open(dataset, cache, config, splits=splits, token_root=token_cache)
    with parallel.joined(target) as processes:
        _check_share(config, processes)
        if verify and processes.is_first:
            experiment.store.verify_once()
        progress = progress and processes.is_first
        sources, model = experiment.sources(target, progress=progress), experiment.build_model()
        with run_directory.held(run) if processes.is_first else contextlib.nullcontext():
            current = _begin(experiment, run, dataset_folder, recipe, processes)
            if current.info.status == "running":
                _train(experiment, current, sources, model, target, processes, log=log, progress=progress)
    return Run.open(run)


def _check_share(config: TrainConfig, processes: Processes) -> None:
    if config.batch_size < processes.count:
        raise ConfigError(
            f"batch_size = {config.batch_size} clips for {processes.count} processes: it counts the clips of all of "
            "them, so give each at least one"
        )
    try:
        config.check_parts(processes.count)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    banks = {"cmdcl": config.cmdcl.tci_b, "pcmci": config.pcmci.ich_b}
    if processes.count > 1 and banks.get(config.method) == "marginal":
        raise ConfigError(
            f"a bank of biases (marginal) is filled by one process, and there are {processes.count}: start one, or use "
            "the bias of each video"
        )


def _begin(experiment: Experiment, run: Path, dataset_folder: Path, recipe: str, processes: Processes) -> Run:
    """The run directory, made or opened by the first process, then opened by the others."""
    if processes.is_first:
        run_directory.begin(experiment, run, dataset_folder=dataset_folder, recipe=recipe)
    processes.wait()
    return Run.open(run)


def _train(
    experiment: Experiment,
    run: Run,
    sources: Mapping[str, BatchSource[Any]],
    model: nn.Module,
    device: torch.device,
    processes: Processes,
    *,
    log: TensorBoardLog | None,
    progress: bool,
) -> None:
    """Trains what is left and writes the predictions."""
    for notice in experiment.run_notices if processes.is_first else ():
        logger.warning("%s", notice)
    with memory_advice(experiment.method.advice):
        trainer = Trainer(experiment, run, sources, model, device, processes, log=log)
        trainer.fit(progress=progress)
        trainer.predict(progress=progress)
    if processes.is_first:
        run.update(status="finished")
    processes.wait()
