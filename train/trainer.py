"""The training loop: steps, epochs, checkpoints, and the logits at the end.

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cache.errors import ConfigError
from cache.progress import Progress
from cache.run import Run
from train import checkpoint
from train.checkpoint import Position
from train.data import Batches, BatchSource
from train.divergence import diverged
from train.experiment import Experiment
from train.gradients import Gradients, Shares
from train.optimizer import build_optimizer, learning_rate_at, set_learning_rate
from train.parallel import ALONE, Processes
from train.predict import (
    TrainedModel,
    check_unchanged,
    logits_of,
    predict_again,
    predict_split,
)
from train.random_state import random_states, restore_random_states
from train.sampling import Indices, batches, epoch_order, num_batches
from train.step_clock import StepClock
from train.tensorboard_log import TensorBoardLog
from train.validation import SCORE_NAMES, score

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_SAVES = 2.0
"""Epochs shorter than this share a checkpoint: syncing files would take longer than training heads does."""


class Trainer:
    """A model, its optimiser and how far they are."""

    def __init__(
        self,
        experiment: Experiment,
        run: Run,
        sources: Mapping[str, BatchSource[Any]],
        model: nn.Module,
        device: torch.device,
        processes: Processes = ALONE,
        clock: StepClock | None = None,
        *,
        log: TensorBoardLog | None = None,
    ) -> None:
        self.experiment, self.run, self.sources, self.device = experiment, run, sources, device
        self.config, self.processes, self.clock = experiment.config, processes, clock or StepClock(device)
        self.log = log
        self.folder = run.path / "checkpoints"
        self.model = model.to(device)
        fast, factor = experiment.method.fast_parameters(self.model)
        self.optimizer = build_optimizer(self.model, self.config.optimizer, fast=set(fast), fast_factor=factor)
        self.gradients = Gradients(
            experiment.method, self.model, device, processes=processes, clock=self.clock, autocast=self._autocast
        )
        self.source = sources[self.config.train_split]
        self.steps_per_epoch = num_batches(
            len(self.source.clip_set), self.config.batch_size, smallest=self.config.smallest_batch
        )
        self.position = self._restored()
        processes.share_weights(self.model)
        if self.config.compile:
            self.model.compile()
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        # What every process adds to; the first one has what was counted before.
        counted = self.position.loss_sum if processes.is_first else 0.0
        self._loss_sum = torch.tensor(counted, dtype=exact, device=device)
        self._saved_at = self._counted_at = time.monotonic()

    def _restored(self) -> Position:
        """The state of the last checkpoint put into model, optimiser and generators; a fresh one otherwise."""
        fresh = _fresh_position(self.experiment)
        stored = checkpoint.read_position(self.folder, "last")
        if stored is None:
            self._draw_apart()
            return fresh
        check_unchanged(self.experiment, stored)
        if stored.training_set != fresh.training_set:
            raise ConfigError(
                f"{self.run.path} was begun on other training clips or labels than the dataset and cache have now; "
                "train into a new run directory"
            )
        checkpoint.load_weights(self.folder, "last", self.model)
        self._restore_random(checkpoint.load_optimizer(self.folder, self.model, self.optimizer))
        self.processes.wait()  # before anybody saves
        if self.processes.is_first:
            logger.info("continuing %s after epoch %d, step %d", self.run.path, stored.epoch, stored.step)
        return stored

    def _draw_apart(self) -> None:
        """Dropout of other clips is drawn by another generator in each process."""
        if not self.processes.is_first:
            torch.manual_seed(self.config.seed + self.processes.rank)

    def _restore_random(self, states: list[dict[str, Tensor]]) -> None:
        """This process's generators as they were; others draw on where the run had fewer processes."""
        if len(states) != self.processes.count and self.processes.is_first:
            logger.warning(
                "%s was trained by %d processes and goes on with %d: from here on dropout is drawn differently",
                self.run.path,
                len(states),
                self.processes.count,
            )
        if self.processes.rank < len(states):
            restore_random_states(states[self.processes.rank])
        else:
            self._draw_apart()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

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
        self.processes.wait()  # until the last checkpoint is whole
        if self.config.validation_split:
            position = checkpoint.load_weights(self.folder, "best", self.model)
        trained = TrainedModel(
            model=self.model,
            position=position,
            epochs_done=epochs_done,
            device=self.device,
            processes=self.processes,
        )
        for split in self.config.predict_splits:
            predict_split(self.run, self.experiment, self.sources[split], trained)
        predict_again(self.run, self.experiment, trained, progress=progress)

    def _train_epoch(self, bar: Progress | None) -> None:
        """The steps that are left of the current epoch."""
        config = self.config
        order = epoch_order(len(self.source.clip_set), config.seed, self.position.epoch)
        first, smallest = self.position.step, config.smallest_batch
        self.train_on(self.source, list(batches(order, config.batch_size, first=first, smallest=smallest)), bar)

    def train_on(self, source: Batches[Any], pieces: Sequence[Indices], bar: Progress | None = None) -> None:
        """A step on each piece of clip numbers, of the batches that `source` gives for them."""
        parts = [self.own_parts(piece) for piece in pieces]
        self.model.train()
        with contextlib.closing(source.batches(itertools.chain(*parts), self.position.epoch)) as stream:
            for piece, own in zip(pieces, parts, strict=True):
                self._step(itertools.islice(stream, len(own)), piece)
                if bar is not None:
                    bar.advance()
                is_time = time.monotonic() - self._saved_at > 60 * self.config.checkpoint_minutes
                if self.processes.agree(is_time):
                    self._save()

    def own_parts(self, piece: Indices) -> list[Indices]:
        """This process's clips of a batch, by forward pass; one for company where it has none."""
        own = self.processes.shares(piece)[self.processes.rank]
        most = max(1, len(own) // self.config.smallest_part)
        return np.array_split(own, min(self.config.accumulate, most)) if len(own) else [piece[:1]]

    def _step(self, stream: Iterator[Any], piece: Indices) -> None:
        """One optimiser step over the clips of a piece, of which `stream` gives this process's."""
        counts = [len(share) for share in self.processes.shares(piece)]
        self.optimizer.zero_grad()
        loss = self.gradients.fill(Shares(batches=stream, counts=counts, rank=self.processes.rank))
        self._loss_sum += loss
        with self.clock.time("optimizer"):
            set_learning_rate(self.optimizer, self._learning_rate(self.position.step))
            if self.config.optimizer.grad_clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.grad_clip)
            self.optimizer.step()
        self._advance(step=self.position.step + 1, num_clips=self.position.num_clips + len(piece))

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
            "data_seconds": round(self.position.data_seconds, 3),
            "clips_per_second": round(self.position.num_clips / max(self.position.seconds, 1e-9), 3),
        }
        self._advance(epoch=self.position.epoch + 1, step=0, loss_sum=0.0, num_clips=0, seconds=0.0, data_seconds=0.0)
        self._loss_sum.zero_()
        if self.config.validation_split:
            row |= self._validate()
        if self.processes.is_first:
            self.run.append_metrics(row)
        if self.log is not None:
            self.log.add(row)
        is_last = self.position.epoch == self.config.epochs
        if self.processes.agree(is_last or time.monotonic() - self._saved_at >= SECONDS_BETWEEN_SAVES):
            self._save()
        return row

    def _validate(self) -> dict[str, float]:
        """Scores the validation split and keeps the checkpoint if it is the best so far (the first one of equals)."""
        split, kind = self.config.validation_split, self.experiment.task.kind
        source = self.sources[split]
        logits = logits_of(self.experiment.method, self.model, source, self.config, self.device, self.processes)
        value = score(kind, logits, source.clip_set.targets)
        if self.position.best_score is None or value > self.position.best_score:
            self._advance(best_score=value, best_epoch=self.position.epoch)
            if self.processes.is_first:
                checkpoint.save(self.folder, "best", self.position, self.model, None)
        return {f"{split}.{SCORE_NAMES[kind]}": value}

    def _count(self) -> None:
        """Moves running sums into `position`; refuses a loss that diverged before it reaches a checkpoint."""
        now = time.monotonic()
        self._advance(
            loss_sum=float(self.processes.add(self._loss_sum.clone())),
            seconds=self.position.seconds + now - self._counted_at,
            data_seconds=self.position.data_seconds + self.clock.seconds["data"],
        )
        self.clock.reset()
        self._counted_at = now
        if not math.isfinite(self.position.loss_sum):
            raise diverged(f"the loss is not finite in epoch {self.position.epoch + 1}")

    def _save(self) -> None:
        self._count()
        random = self.processes.gather(random_states())
        if self.processes.is_first:
            checkpoint.save(self.folder, "last", self.position, self.model, self.optimizer, random)
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
