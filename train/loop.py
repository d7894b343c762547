"""The training loop: check everything, train, keep a checkpoint, write predictions. The same command continues.

A continued run equals an uninterrupted one, on the CPU bit for bit: order, instants and augmentation are pure functions
of seed, epoch and clip; the learning rate is one of the step; weights, optimiser and torch's generators are in the
checkpoint. So a finished epoch is never repeated and none is trained twice on other draws. On a GPU the same holds up
to rounding: some of its kernels add in an order that changes from run to run.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cache.errors import ConfigError
from cache.manifest import Dataset
from cache.progress import Progress
from cache.run import Run
from train import checkpoint, run_directory
from train.checkpoint import Position
from train.config import TrainConfig, with_absolute_paths
from train.data import BatchSource
from train.device import memory_advice, refuse_distributed, resolve_device
from train.divergence import diverged
from train.experiment import Experiment
from train.optimizer import build_optimizer, learning_rate_at, set_learning_rate
from train.predict import (
    TrainedModel,
    check_unchanged,
    logits_of,
    predict_again,
    predict_split,
)
from train.sampling import batches, epoch_order, num_batches
from train.tensorboard_log import TensorBoardLog
from train.validation import SCORE_NAMES, score

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_SAVES = 2.0
"""Epochs shorter than this share a checkpoint: syncing files would take longer than training heads does."""


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
    refuse_distributed()
    log = TensorBoardLog(run / "tensorboard") if tensorboard else None
    config = with_absolute_paths(config)
    target = resolve_device(device)
    current = run_directory.existing_run(run, config, dataset)
    if current is not None and current.info.status == "finished":
        logger.info("%s is finished: nothing to do", run)
        if log is not None:
            log.begin(current.metrics())
        return current
    splits = [config.train_split, *filter(None, [config.validation_split]), *config.predict_splits]
    experiment = Experiment.open(dataset, cache, config, splits=splits, token_root=token_cache)
    if verify:
        experiment.store.verify_once()
    sources, model = experiment.sources(target, progress=progress), experiment.build_model()
    with run_directory.held(run):
        current = run_directory.begin(experiment, run, dataset_folder=dataset_folder, recipe=recipe)
        if current.info.status == "running":
            _train(experiment, current, sources, model, target, log=log, progress=progress)
    return current


def _train(
    experiment: Experiment,
    run: Run,
    sources: Mapping[str, BatchSource[Any]],
    model: nn.Module,
    device: torch.device,
    *,
    log: TensorBoardLog | None,
    progress: bool,
) -> None:
    """Trains what is left and writes the predictions."""
    for notice in experiment.run_notices:
        logger.warning("%s", notice)
    with memory_advice(experiment.method.advice):
        trainer = Trainer(experiment, run, sources, model, device, log=log)
        trainer.fit(progress=progress)
        trainer.predict(progress=progress)
    run.update(status="finished")


class Trainer:
    """A model, its optimiser and how far they are."""

    def __init__(
        self,
        experiment: Experiment,
        run: Run,
        sources: Mapping[str, BatchSource[Any]],
        model: nn.Module,
        device: torch.device,
        *,
        log: TensorBoardLog | None = None,
    ) -> None:
        self.log = log
        self.experiment, self.run, self.sources, self.device = experiment, run, sources, device
        self.config = experiment.config
        self.folder = run.path / "checkpoints"
        self.model = model.to(device)
        fast, factor = experiment.method.fast_parameters(self.model)
        self.optimizer = build_optimizer(self.model, self.config.optimizer, fast=set(fast), fast_factor=factor)
        self.source = sources[self.config.train_split]
        self.steps_per_epoch = num_batches(
            len(self.source.clip_set), self.config.batch_size, smallest=self.config.smallest_batch
        )
        self.position = self._restored()
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self._loss_sum = torch.tensor(self.position.loss_sum, dtype=exact, device=device)
        self._saved_at = self._counted_at = time.monotonic()

    def _restored(self) -> Position:
        """The state of the last checkpoint put into model, optimiser and generators; a fresh one otherwise."""
        fresh = _fresh_position(self.experiment)
        stored = checkpoint.read_position(self.folder, "last")
        if stored is None:
            return fresh
        check_unchanged(self.experiment, stored)
        if stored.training_set != fresh.training_set:
            raise ConfigError(
                f"{self.run.path} was begun on other training clips or labels than the dataset and cache have now; "
                "train into a new run directory"
            )
        checkpoint.load_weights(self.folder, "last", self.model)
        checkpoint.load_optimizer(self.folder, self.optimizer)
        logger.info("continuing %s after epoch %d, step %d", self.run.path, stored.epoch, stored.step)
        return stored

    def fit(self, *, progress: bool) -> None:
        """Trains the epochs that are left."""
        done = self.position.epoch * self.steps_per_epoch + self.position.step
        total = self.config.epochs * self.steps_per_epoch
        if self.log is not None:
            self.log.begin(row for row in self.run.metrics() if row["epoch"] <= self.position.epoch)
        shown = Progress(total, self.run.info.name, unit="step", done=done) if progress else contextlib.nullcontext()
        with shown as bar:
            for _ in range(self.position.epoch, self.config.epochs):
                self._train_epoch(bar)
                row = self._finish_epoch()
                if bar is not None:
                    bar.advance(0, **_facts(row))

    def predict(self, *, progress: bool) -> None:
        """Writes the predictions of every split asked for, from the best checkpoint if there is one.

        Splits that `deconfound predict` wrote while the run was unfinished are predicted again.
        """
        position, epochs_done = self.position, self.position.epoch
        if self.config.validation_split:
            position = checkpoint.load_weights(self.folder, "best", self.model)
        trained = TrainedModel(model=self.model, position=position, epochs_done=epochs_done, device=self.device)
        for split in self.config.predict_splits:
            predict_split(self.run, self.experiment, self.sources[split], trained)
        predict_again(self.run, self.experiment, trained, progress=progress)

    def _train_epoch(self, bar: Progress | None) -> None:
        """The steps that are left of the current epoch."""
        config, epoch = self.config, self.position.epoch
        order = epoch_order(len(self.source.clip_set), config.seed, epoch)
        pieces = list(batches(order, config.batch_size, first=self.position.step, smallest=config.smallest_batch))
        parts = [np.array_split(piece, min(config.accumulate, len(piece))) for piece in pieces]
        self.model.train()
        with contextlib.closing(self.source.batches(itertools.chain(*parts), epoch)) as stream:
            for piece, shares in zip(pieces, parts, strict=True):
                self._step(itertools.islice(stream, len(shares)), len(piece))
                if bar is not None:
                    bar.advance()
                if time.monotonic() - self._saved_at > 60 * config.checkpoint_minutes:
                    self._save()

    def _step(self, shares: Iterator[Any], num_clips: int) -> None:
        """One optimiser step over `num_clips` clips, in as many forward passes as there are shares."""
        config = self.config
        set_learning_rate(self.optimizer, self._learning_rate(self.position.step))
        self.optimizer.zero_grad()
        for share in shares:
            batch = share.to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                loss = self.experiment.method.loss(self.model, batch) * len(batch.targets)
            (loss / num_clips).backward()
            self._loss_sum += loss.detach()
        if config.optimizer.grad_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.grad_clip)
        self.optimizer.step()
        self._advance(step=self.position.step + 1, num_clips=self.position.num_clips + num_clips)

    def _learning_rate(self, step: int) -> float:
        return learning_rate_at(
            self.position.epoch * self.steps_per_epoch + step,
            num_steps=self.config.epochs * self.steps_per_epoch,
            steps_per_epoch=self.steps_per_epoch,
            config=self.config.optimizer,
        )

    def _finish_epoch(self) -> dict[str, Any]:
        """Validates, logs and saves; returns the row of metrics.jsonl."""
        self._count()
        row = {
            "epoch": self.position.epoch + 1,
            "loss": self.position.loss_sum / self.position.num_clips,
            "learning_rate": self._learning_rate(self.steps_per_epoch - 1),
            "seconds": round(self.position.seconds, 3),
        }
        self._advance(epoch=self.position.epoch + 1, step=0, loss_sum=0.0, num_clips=0, seconds=0.0)
        self._loss_sum.zero_()
        if self.config.validation_split:
            row |= self._validate()
        self.run.append_metrics(row)
        if self.log is not None:
            self.log.add(row)
        is_last = self.position.epoch == self.config.epochs
        if is_last or time.monotonic() - self._saved_at >= SECONDS_BETWEEN_SAVES:
            self._save()
        return row

    def _validate(self) -> dict[str, float]:
        """Scores the validation split and keeps the checkpoint if it is the best so far (the first one of equals)."""
        split, kind = self.config.validation_split, self.experiment.task.kind
        source = self.sources[split]
        logits = logits_of(self.experiment.method, self.model, source, self.config, self.device)
        value = score(kind, logits, source.clip_set.targets)
        if self.position.best_score is None or value > self.position.best_score:
            self._advance(best_score=value, best_epoch=self.position.epoch)
            checkpoint.save(self.folder, "best", self.position, self.model, None)
        return {f"{split}.{SCORE_NAMES[kind]}": value}

    def _count(self) -> None:
        """Moves running sums into `position`; refuses a loss that diverged before it reaches a checkpoint."""
        now = time.monotonic()
        self._advance(loss_sum=float(self._loss_sum), seconds=self.position.seconds + now - self._counted_at)
        self._counted_at = now
        if not math.isfinite(self.position.loss_sum):
            raise diverged(f"the loss is not finite in epoch {self.position.epoch + 1}")

    def _save(self) -> None:
        self._count()
        checkpoint.save(self.folder, "last", self.position, self.model, self.optimizer)
        self._saved_at = time.monotonic()

    def _advance(self, **changes: Any) -> None:  # noqa: ANN401 (the fields of Position)
        self.position = replace(self.position, **changes)


def _facts(row: Mapping[str, Any]) -> dict[str, object]:
    """What the progress line shows of a row of metrics.jsonl: epoch, loss, validation score."""
    scores = {key: f"{value:.4f}" for key, value in row.items() if "." in key}
    return {"epoch": row["epoch"], "loss": f"{row['loss']:.4f}", **scores}


def _fresh_position(experiment: Experiment) -> Position:
    clip_set = experiment.clip_sets[experiment.config.train_split]
    content = [[clip.id for clip in clip_set.clips], clip_set.targets.tolist()]
    return Position(
        training_set=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        task_kind=experiment.task.kind,
        class_names=experiment.task.class_names,
        prompts=experiment.task.prompts,
        fingerprints={stream: mark.to_json() for stream, mark in experiment.fingerprints.items()},
    )
