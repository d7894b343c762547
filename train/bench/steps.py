"""Steps of the real trainer, timed part by part: on a cache, on a batch that lies ready, or on any other source.

A reader may ask why the bare model goes through the trainer too: then forward, backward and optimiser are the same
calls with the same settings, and whatever differs is data. Its seconds are those of these three parts alone. Sources
are read as in the middle of an epoch: batches go on after the last one that is taken, or beside the last steps nothing
would be read. On a GPU the clock waits for the device after each part, so a step here is a
little longer than in a run, where the next one is queued meanwhile.
"""

import contextlib
import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from train import run_directory
from train.data import Batches
from train.experiment import Experiment
from train.sampling import Indices, epoch_order
from train.step_clock import PARTS, Part, StepClock
from train.trainer import Trainer

WARM_UP = 1
"""Steps before those that count: the first one starts threads, finds kernels, and waits for the first batch."""
_MODEL_PARTS: tuple[Part, ...] = ("forward", "backward", "optimizer")


@dataclass(frozen=True, kw_only=True)
class StepSeconds:
    """One step: its parts, and all of it from the end of the step before; bookkeeping is in no part."""

    parts: dict[Part, float]
    whole: float


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Steps in a row, of `num_clips` clips each."""

    steps: tuple[StepSeconds, ...]
    num_clips: int

    @property
    def parts(self) -> dict[Part, float]:
        """Median seconds of a step by part."""
        return {part: median(step.parts[part] for step in self.steps) for part in PARTS}

    @property
    def seconds_per_clip(self) -> float:
        """All of the median step."""
        return median(step.whole for step in self.steps) / self.num_clips

    @property
    def model_seconds_per_clip(self) -> float:
        """Forward, backward and optimiser of the median step."""
        return median(sum(step.parts[part] for part in _MODEL_PARTS) for step in self.steps) / self.num_clips

    @property
    def data_share(self) -> float:
        """The share of the seconds of all steps in which they wait for data; a rare long wait is in it."""
        return sum(step.parts["data"] for step in self.steps) / sum(step.whole for step in self.steps)


@dataclass(frozen=True, kw_only=True)
class LoadingCost:
    """What a clip of a batch costs, where nothing is computed on it: seconds, and processor time of all threads."""

    seconds: float
    core_seconds: float


class StepRecorder(StepClock):
    """A clock that keeps every step."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, synchronise=True)
        self.begin()

    def begin(self) -> None:
        """Forgets all steps; the first one begins now."""
        self.steps: list[StepSeconds] = []
        self.reset()
        self._ended_at = time.perf_counter()

    @contextlib.contextmanager
    def time(self, part: Part) -> Iterator[None]:
        """As StepClock; the optimiser's part ends the step."""
        with super().time(part):
            yield
        if part == "optimizer":
            now = time.perf_counter()
            self.steps.append(StepSeconds(parts=self.seconds, whole=now - self._ended_at))
            self.reset()
            self._ended_at = now


class StepBench:
    """A trainer at its first step, and the sources that it can be run on."""

    def __init__(self, experiment: Experiment, folder: Path, device: torch.device, *, recipe: str) -> None:
        """Builds the model; computes the tokens of a frozen encoder first.

        Args:
            experiment: with the training split opened.
            folder: of a run directory that nobody needs later.
            device: where the model is.
            recipe: its name.
        """
        self._device, self._clock = device, StepRecorder(device)
        self.source = experiment.sources(device, progress=False)[experiment.config.train_split]
        self._num_clips = len(self.source.clip_set)
        run = run_directory.begin(experiment, folder, dataset_folder=folder, recipe=recipe)
        sources = {experiment.config.train_split: self.source}
        self.trainer = Trainer(experiment, run, sources, experiment.build_model(), device, clock=self._clock)

    def train_on(self, source: Batches[Any], num_steps: int) -> Steps:
        """Steps on batches of a source, after WARM_UP others."""
        pieces = self._pieces(WARM_UP + num_steps)
        self._clock.begin()
        self.trainer.train_on(_Endless(source), pieces)
        return Steps(steps=tuple(self._clock.steps[WARM_UP:]), num_clips=len(pieces[0]))

    def bare(self, num_steps: int) -> Steps:
        """Steps on one batch that lies ready on the device."""
        with contextlib.closing(self.source.batches(self.forward_passes(1), epoch=0)) as stream:
            ready = [batch.to(self._device) for batch in stream]
        return self.train_on(_Ready(ready), num_steps)

    def load(self, num_steps: int) -> LoadingCost:
        """The batches of so many steps brought to the device, and nothing else: per clip."""
        parts = self.forward_passes(num_steps)
        started, cores_started = time.perf_counter(), time.process_time()
        with contextlib.closing(self.source.batches(parts, epoch=0)) as stream:
            for batch in stream:
                batch.to(self._device)
        count = sum(map(len, parts))
        return LoadingCost(
            seconds=(time.perf_counter() - started) / count, core_seconds=(time.process_time() - cores_started) / count
        )

    def forward_passes(self, num_steps: int) -> list[Indices]:
        """The clips of each forward pass of so many steps."""
        return list(itertools.chain(*map(self.trainer.own_parts, self._pieces(num_steps))))

    def _pieces(self, count: int) -> list[Indices]:
        """Batches of full size, of the clips in random order, again and again as often as needed."""
        config = self.trainer.config
        order = epoch_order(self._num_clips, config.seed, epoch=0)
        return list(np.resize(order, (count, config.batch_size)))


class _Endless:
    """A source whose batches go on from the beginning; whoever takes them stops."""

    def __init__(self, source: Batches[Any]) -> None:
        self._source = source

    def batches(self, pieces: Iterable[Indices], epoch: int | None) -> Generator[Any]:
        """See BatchSource."""
        with contextlib.closing(self._source.batches(itertools.cycle(pieces), epoch)) as stream:
            yield from stream


class _Ready:
    """A source whose batches are there already, and come again and again."""

    def __init__(self, ready: Sequence[Any]) -> None:
        self._ready = ready

    def batches(self, pieces: Iterable[Indices], epoch: int | None) -> Generator[Any]:  # noqa: ARG002
        """See BatchSource."""
        for _, batch in zip(pieces, itertools.cycle(self._ready), strict=False):
            yield batch
