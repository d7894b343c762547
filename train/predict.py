"""Logits of a trained run: raw, float32, always the test view (segment centres, centre crop).

A reader may ask which checkpoint: the best one where the run had a validation split, else the last. Nothing else is
chosen here, and predictions of a run that has not finished say so in their notices.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache.errors import ConfigError, FingerprintMismatch
from cache.fingerprint import Fingerprint
from cache.manifest import Dataset
from cache.predictions import Predictions
from cache.run import Run
from train import checkpoint
from train.checkpoint import Kind, Position
from train.config import TrainConfig, from_json
from train.data import Batch, Source
from train.experiment import Experiment
from train.frames import normalise
from train.sampling import batches


def predict(
    run: Path,
    *,
    split: str | None = None,
    dataset: Path | None = None,
    cache: Path | None = None,
    token_cache: Path | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> list[Predictions]:
    """Writes RUN/predictions/<split>.h5 from the run's checkpoint.

    Args:
        run: the run directory.
        split: one split; None: all of train.predict_splits.
        dataset: a dataset folder in place of the one that the run was trained on.
        cache: a feature cache in place of the run's, made with the same settings.
        token_cache: folder of frozen video tokens; by default CACHE/video_tokens.
        device: a torch device.
        progress: show a progress bar while tokens are computed.

    Raises:
        CacheError: the run has no checkpoint, or the cache was made with other settings than the run's.
        ConfigError: the dataset has other classes, or no usable clip in the split.
    """
    current = Run.open(run)
    config = from_json(current.config["train"])
    kind: Kind = "best" if config.validation_split else "last"
    trained = checkpoint.require_position(run / "checkpoints", kind)
    experiment = Experiment.open(
        Dataset.read(dataset or Path(current.info.dataset_folder)),
        cache or Path(current.info.cache_folder),
        config,
        splits=config.predict_splits if split is None else (split,),
        token_root=token_cache,
        encoder=Fingerprint.from_json(trained.fingerprints["video_encoder"]),
    )
    check_unchanged(experiment, trained)
    target = resolve_device(device)
    sources = experiment.sources(target, progress=progress)
    model = experiment.build_model()
    checkpoint.load_weights(run / "checkpoints", kind, model)
    return [
        predict_split(current, experiment, model.to(target), source, trained, target) for source in sources.values()
    ]


def predict_split(
    run: Run,
    experiment: Experiment,
    model: nn.Module,
    source: Source,
    trained: Position,
    device: torch.device,
) -> Predictions:
    """Logits of one split, written into the run."""
    clip_set, task = source.clip_set, experiment.task
    logits = logits_of(model, source, experiment.config, device)
    if not np.isfinite(logits).all():
        raise ConfigError(
            f"{run.path}: the model's logits are NaN or infinite: training diverged; lower "
            "train.optimizer.learning_rate and train into a new run directory"
        )
    predictions = Predictions(
        clip_ids=tuple(clip.id for clip in clip_set.clips),
        logits=logits,
        targets=clip_set.targets,
        task=task.name,
        kind=task.kind,
        class_names=task.class_names,
        dataset=experiment.dataset.name,
        protocol=experiment.config.protocol,
        split=clip_set.split,
        run_name=run.info.name,
        fingerprints={stream: mark.sha256 for stream, mark in experiment.fingerprints.items()},
        groups=clip_set.groups,
        skipped=clip_set.skipped,
        notices=tuple(dict.fromkeys([*experiment.notices, *_unfinished(trained, experiment.config)])),
    )
    predictions.write(run.predictions_path(clip_set.split))
    return predictions


def logits_of(model: nn.Module, source: Source, config: TrainConfig, device: torch.device) -> npt.NDArray[np.float32]:
    """(n, C) raw logits of all clips of a source, in fp32."""
    order = np.arange(len(source.clip_set), dtype=np.int64)
    size = -(-config.batch_size // config.accumulate)
    model.eval()
    with torch.inference_mode():
        rows = [
            run_model(model, batch.to(device), config).float().cpu()
            for batch in source.batches(batches(order, size), None)
        ]
    return torch.cat(rows).numpy()


def run_model(model: nn.Module, batch: Batch, config: TrainConfig) -> Tensor:
    """Logits (n, C) of one batch; frames are normalised here, on the device."""
    if batch.frames is None:
        return model(batch.visual_prompts, frame_tokens=batch.frame_tokens)
    encoder = config.video_encoder
    return model(batch.visual_prompts, frames=normalise(batch.frames, encoder.mean, encoder.std))


def resolve_device(name: str) -> torch.device:
    """A torch device that exists here; `auto` is a GPU if there is one.

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is unknown; give cpu, cuda, cuda:0 or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} is not here: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


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


def _unfinished(trained: Position, config: TrainConfig) -> Sequence[str]:
    epoch = trained.best_epoch if config.validation_split else trained.epoch
    if config.validation_split:
        return [f"checkpoint: best on {config.validation_split!r}, epoch {epoch} of {config.epochs}"]
    if trained.epoch < config.epochs:
        return [f"checkpoint: unfinished run, {trained.epoch} of {config.epochs} epochs"]
    return []
