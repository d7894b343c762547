"""Logits of a trained run: raw, float32, always the test view (segment centres; a centre crop, or PeVL's crops).

A reader may ask which checkpoint: the best one where the run had a validation split, else the last. Nothing else is
chosen here, and predictions of a run that has not finished say so in their notices.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cache.errors import ConfigError, FingerprintMismatch
from cache.fingerprint import Fingerprint
from cache.manifest import Dataset
from cache.predictions import Predictions
from cache.run import Run
from train import checkpoint
from train.checkpoint import Kind, Position
from train.config import (
    FREE_KEYS,
    LOCATION_KEYS,
    TrainConfig,
    differences,
    from_json,
    to_json,
    with_absolute_paths,
)
from train.data import BatchSource
from train.device import memory_advice, resolve_device
from train.divergence import check_finite_logits
from train.experiment import Experiment, chosen_on
from train.explanations.choice import Choice
from train.explanations.making import explain_splits
from train.methods.method import Method
from train.parallel import ALONE, Processes
from train.sampling import batches

logger = logging.getLogger(__name__)

_MEMORY_ADVICE = (
    "Predictions take train.batch_size / train.accumulate clips at a time (PeVL: times its crops): free memory on the "
    "device, or give another --device"
)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model with the weights of a checkpoint: of which one, and how many epochs its run has done by now."""

    model: nn.Module
    position: Position
    epochs_done: int
    device: torch.device
    processes: Processes = ALONE

    def notices(self, split: str, config: TrainConfig) -> Iterator[str]:
        """What a reader of logits of `split` must know about the checkpoint."""
        if config.validation_split:
            epoch = self.position.best_epoch
            yield f"checkpoint: best on {config.validation_split!r}, epoch {epoch} of {config.epochs}"
        if split == config.validation_split:
            yield chosen_on(split)
        if self.epochs_done < config.epochs:
            yield f"checkpoint: unfinished run, {self.epochs_done} of {config.epochs} epochs"


@dataclass(frozen=True, kw_only=True)
class UnlabelledLogits:
    """Logits (n, C) of n clips whose classes nobody knows."""

    clip_ids: tuple[str, ...]
    logits: npt.NDArray[np.float32]


def predict(
    run: Path,
    *,
    split: str | None = None,
    dataset: Path | None = None,
    cache: Path | None = None,
    token_cache: Path | None = None,
    config: TrainConfig | None = None,
    device: str = "cpu",
    explain: Choice | None = None,
    progress: bool = False,
) -> list[Predictions]:
    """Writes RUN/predictions/<split>.h5 from the run's checkpoint, and RUN/explanations/<split>.h5 if asked for.

    Args:
        run: the run directory.
        split: one split; None: all of train.predict_splits.
        dataset: a dataset folder in place of the one that the run was trained on.
        cache: a feature cache in place of the run's, made with the same settings.
        token_cache: folder of frozen tokens; by default CACHE/video_tokens or CACHE/image_tokens.
        config: the run's, with other LOCATION_KEYS or FREE_KEYS.
        device: a torch device.
        explain: the clips of each split whose insides are written too.
        progress: show a progress bar while tokens are computed.

    Raises:
        CacheError: the run has no checkpoint, or the cache was made with other settings than the run's.
        ConfigError: the dataset has other classes, no usable clip in the split, or not the clips to be explained.
    """
    current = Run.open(run)
    config = config_of(current, config)
    kind: Kind = "best" if config.validation_split else "last"
    position = checkpoint.require_position(run / "checkpoints", kind)
    data = Dataset.read(dataset or Path(current.info.dataset_folder))
    splits = config.predict_splits if split is None else (split,)
    _refuse_to_replace(current, splits, data)
    experiment = Experiment.open(
        data,
        cache or Path(current.info.cache_folder),
        config,
        splits=splits,
        token_root=token_cache,
        stored=_stored(position),
    )
    check_unchanged(experiment, position)
    chosen = {} if explain is None else explain.numbers(experiment.clip_sets)
    target = resolve_device(device)
    sources = experiment.sources(target, progress=progress, for_training=False)
    with memory_advice(_MEMORY_ADVICE):
        trained = load_trained(run / "checkpoints", kind, experiment, target)
        predictions = [predict_split(current, experiment, source, trained) for source in sources.values()]
        if chosen:
            explain_splits(current, experiment, sources, trained.model, target, chosen)
        return predictions


def predict_videos(
    run: Path, dataset: Dataset, split: str, cache: Path, *, config: TrainConfig | None = None, device: str
) -> UnlabelledLogits:
    """Logits of clips without labels, of a cache made with the run's settings; nothing is written into the run.

    Args:
        run: the run directory.
        dataset: a manifest with the run's task.
        split: of the dataset's one protocol.
        cache: the features; tokens of a frozen encoder are added to it.
        config: the run's, with other LOCATION_KEYS or FREE_KEYS.
        device: a torch device.

    Raises:
        CacheError: the run has no checkpoint, or the cache was made with other settings than the run's.
        ConfigError: no clip has features.
    """
    config = config_of(Run.open(run), config)
    kind: Kind = "best" if config.validation_split else "last"
    position = checkpoint.require_position(run / "checkpoints", kind)
    (protocol,) = dataset.protocols
    experiment = Experiment.open(
        dataset,
        cache,
        replace(config, protocol=protocol, train_split=split, predict_splits=(split,), validation_split=""),
        splits=(split,),
        stored=_stored(position),
        labelled=False,
    )
    check_unchanged(experiment, position)
    target = resolve_device(device)
    source = experiment.sources(target, progress=False, for_training=False)[split]
    with memory_advice(_MEMORY_ADVICE):
        trained = load_trained(run / "checkpoints", kind, experiment, target)
        logits = logits_of(experiment.method, trained.model, source, config, target)
    return UnlabelledLogits(clip_ids=tuple(clip.id for clip in source.clip_set.clips), logits=logits)


def _refuse_to_replace(run: Run, splits: Sequence[str], dataset: Dataset) -> None:
    """Predictions of one dataset are not written over those of another."""
    for split in set(splits) & set(run.splits):
        other = run.predictions(split).dataset
        if other != dataset.name:
            raise ConfigError(
                f"{run.predictions_path(split)} holds predictions of dataset {other!r}, not of {dataset.name!r}: move "
                "that file away first, or predict another split"
            )


def config_of(run: Run, given: TrainConfig | None) -> TrainConfig:
    """The run's configuration, or the given one if it differs in nothing that the logits depend on."""
    if given is None:
        return from_json(run.config["train"])
    config = with_absolute_paths(given)
    lines = differences(run.config["train"], to_json(config), free=LOCATION_KEYS | FREE_KEYS)
    if lines:
        listing = "\n  ".join(lines)
        raise ConfigError(
            f"{run.path} was trained with another configuration:\n  {listing}\nFor predictions only these may be set: "
            f"{', '.join(sorted(LOCATION_KEYS | FREE_KEYS))}"
        )
    return config


def _stored(position: Position) -> dict[str, Fingerprint]:
    return {stream: Fingerprint.from_json(body) for stream, body in position.fingerprints.items()}


def load_trained(folder: Path, kind: Kind, experiment: Experiment, device: torch.device) -> TrainedModel:
    """The model of a checkpoint folder, with its weights, on the device."""
    model = experiment.build_model()
    position = checkpoint.load_weights(folder, kind, model)
    last = checkpoint.read_position(folder, "last") or position  # best may be saved before the first last is
    done = max(position.epoch, last.epoch)
    return TrainedModel(model=model.to(device), position=position, epochs_done=done, device=device)


def predict_again(run: Run, experiment: Experiment, trained: TrainedModel, *, progress: bool) -> None:
    """Predicts the splits beside train.predict_splits that have predictions of an earlier checkpoint of the run."""
    splits = []
    for split in set(run.splits) - set(experiment.config.predict_splits):
        if _is_of(run, split, experiment):
            splits.append(split)
        else:
            logger.warning("%s is of another dataset and stays as it is", run.predictions_path(split))
    if splits:
        wider = experiment.of_splits(sorted(splits))
        for source in wider.sources(trained.device, progress=progress, for_training=False).values():
            predict_split(run, wider, source, trained)


def _is_of(run: Run, split: str, experiment: Experiment) -> bool:
    """Whether the predictions of a split are of the experiment's dataset."""
    dataset = experiment.dataset
    known = split in dataset.protocols[experiment.config.protocol]
    return known and run.predictions(split).dataset == dataset.name


def predict_split(run: Run, experiment: Experiment, source: BatchSource[Any], trained: TrainedModel) -> Predictions:
    """Logits of one split, written into the run.

    Raises:
        ConfigError: the logits are NaN or infinite.
    """
    clip_set, task, config = source.clip_set, experiment.task, experiment.config
    logits = logits_of(experiment.method, trained.model, source, config, trained.device, trained.processes)
    predictions = Predictions(
        clip_ids=tuple(clip.id for clip in clip_set.clips),
        logits=logits,
        targets=clip_set.targets,
        task=task.name,
        kind=task.kind,
        class_names=task.class_names,
        dataset=experiment.dataset.name,
        protocol=config.protocol,
        split=clip_set.split,
        run_name=run.info.name,
        fingerprints={stream: mark.sha256 for stream, mark in experiment.fingerprints.items()},
        groups=clip_set.groups,
        skipped=clip_set.skipped,
        num_official=experiment.dataset.official_counts.get(config.protocol, {}).get(clip_set.split),
        notices=tuple(dict.fromkeys([*experiment.notices, *trained.notices(clip_set.split, config)])),
    )
    if trained.processes.is_first:
        predictions.write(run.predictions_path(clip_set.split))
    return predictions


def logits_of(
    method: Method[Any],
    model: nn.Module,
    source: BatchSource[Any],
    config: TrainConfig,
    device: torch.device,
    processes: Processes = ALONE,
) -> npt.NDArray[np.float32]:
    """(n, C) raw logits of all clips of a source, in fp32 and in every process; each computes its share of them.

    Raises:
        ConfigError: one is NaN or infinite.
    """
    own = processes.shares(np.arange(len(source.clip_set), dtype=np.int64))[processes.rank]
    size = -(-config.batch_size // config.accumulate)
    model.eval()
    with torch.inference_mode():
        predict_batch = method.predictor(model)
        rows = [predict_batch(batch.to(device)).float().cpu() for batch in source.batches(batches(own, size), None)]
    parts = processes.gather(torch.cat(rows).numpy() if rows else None)
    logits = np.concatenate([part for part in parts if part is not None])
    check_finite_logits(logits, source.clip_set.split)
    return logits


def check_unchanged(experiment: Experiment, trained: Position) -> None:
    """Refuses classes or features that are not those of the checkpoint.

    Raises:
        ConfigError: the task has other classes.
        FingerprintMismatch: a stream was made with other settings; lists them.
    """
    if experiment.task.class_names != tuple(trained.class_names):
        raise ConfigError(
            f"the run was trained on {len(trained.class_names)} classes of task {experiment.task.name!r} that are not "
            f"the {experiment.task.num_classes} classes of dataset {experiment.dataset.name!r}; give the "
            "dataset of the run"
        )
    if experiment.task.prompts != tuple(trained.prompts):
        raise ConfigError(
            f"the run was trained on other prompts of task {experiment.task.name!r} than dataset "
            f"{experiment.dataset.name!r} has now: give the dataset of the run"
        )
    lines: list[str] = []
    for stream, body in trained.fingerprints.items():
        if stream in experiment.fingerprints:
            lines += experiment.fingerprints[stream].difference(Fingerprint.from_json(body))
    if lines:
        raise FingerprintMismatch(
            f'{experiment.store.folder} is not what the run was trained on ("asked for" is the run\'s):\n  '
            + "\n  ".join(lines)
            + "\nUse the run's cache, or train a new run on this one"
        )
