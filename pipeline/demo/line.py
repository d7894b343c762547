"""Steps of the way from rendered videos to trained runs that the demo and the study share.

A reader will ask why torch gets one thread: models this small finish sooner in two processes of one thread than in one
of two, and on a machine that is shared with others several times sooner.
"""

import functools
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from cache.errors import FailureCode, VideoError
from cache.manifest import Dataset
from cache.progress import Progress
from extract.config import ExtractConfig
from extract.extractor import extract
from extract.launch.child_process import end_with_parent
from pipeline.config import load_recipe
from pipeline.demo.frozen_models import FrozenModels
from train.config import TrainConfig
from train.experiment import Experiment
from train.loop import train


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, as it is sent to a process."""

    dataset_folder: Path
    cache: Path
    run: Path
    config: TrainConfig
    recipe: str


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread inside; the caller's setting is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_notice() -> Iterator[None]:
    """Runs inside do not repeat their notices, the same for all: the page shows them once."""
    training = logging.getLogger("train")
    before = training.level
    training.setLevel(logging.ERROR)
    try:
        yield
    finally:
        training.setLevel(before)


def extract_config(models: FrozenModels) -> ExtractConfig:
    """How the demo's recipes extract, with these models."""
    return load_recipe(
        "demo-cmdcl-activity",
        [
            f"extract.image_encoder.model={json.dumps(str(models.image_encoder_architecture))}",
            f"extract.image_encoder.pretrained={json.dumps(str(models.image_encoder))}",
            f"extract.pose.weights={json.dumps(str(models.pose))}",
        ],
    ).extract


def extract_features(dataset: Dataset, cache: Path, config: ExtractConfig, workers: int) -> None:
    """Extracts what the cache lacks, with a bar.

    Raises:
        VideoError: a video of the world failed, which it never should.
    """
    with ExitStack() as stack:
        bars: list[Progress] = []

        def show(_done: int, failed: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(Progress(total, "extract", unit="video")))
            bars[0].advance(failed=failed)

        summary = extract(dataset, cache, config, workers=workers, retry_failed=True, progress=show)
    codes = [code for stream in summary.streams.values() for code in stream.failed]
    if codes:
        raise VideoError(
            FailureCode(codes[0]),
            f"{summary.num_failed} rows of the demo's own videos failed ({', '.join(sorted(set(codes)))}); "
            f"`deconfound status {cache}` counts them",
        )


def weights_overrides(models: FrozenModels) -> list[str]:
    """Where the frozen models of all methods are; a run remembers those of its own."""
    paths = {
        "train.video_encoder.pretrained": models.video_encoder,
        "train.pevl.clip": models.image_encoder_architecture,
        "train.pevl.pretrained": models.image_encoder,
    }
    return [f"{key}={json.dumps(str(path))}" for key, path in paths.items()]


def compute_tokens(dataset: Dataset, job: Job) -> None:
    """Tokens of a job's frozen video encoder for all its splits, before processes start to wait for each other."""
    config = job.config
    splits = [config.train_split, *filter(None, [config.validation_split]), *config.predict_splits]
    experiment = Experiment.open(dataset, job.cache, config, splits=splits)
    experiment.sources(torch.device("cpu"), progress=True, for_training=False)
    experiment.store.verify_once()


def train_all(jobs: Sequence[Job], workers: int) -> None:
    """Trains what is not finished, in processes of one thread that take jobs in the order given; one worker is us.

    Raises:
        DeconfoundError: a run that stands was made with other settings, or one cannot be trained.
    """
    with Progress(len(jobs), "train", unit="run") as progress:
        processes = min(workers, len(jobs), os.cpu_count() or 1)
        if processes < 2 or all((job.run / "run.json").exists() for job in jobs):  # no process is worth starting
            with one_notice():
                for job in jobs:
                    progress.advance(run=_train_one(job))
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare_process) as pool:
            for future in as_completed([pool.submit(_train_one, job) for job in jobs]):
                progress.advance(run=future.result())


def _prepare_process() -> None:
    end_with_parent()  # a pool's processes would wait for ever for one that was killed
    torch.set_num_threads(1)
    logging.getLogger("train").setLevel(logging.ERROR)  # every run repeats the same notices; the page shows them once


def _train_one(job: Job) -> str:
    run = train(
        _dataset(job.dataset_folder),
        job.dataset_folder,
        job.cache,
        job.run,
        job.config,
        recipe=job.recipe,
        progress=False,
    )
    return run.info.name


@functools.lru_cache(maxsize=4)
def _dataset(folder: Path) -> Dataset:
    """Read once by a process that trains many runs on it."""
    return Dataset.read(folder)
