"""`deconfound demo`: the whole line in the controlled world, through the same code as real data.

    FOLDER/videos/, dataset/     the world (world.py)
    FOLDER/weights/              the tiny frozen models as standard files (frozen_models.py)
    FOLDER/cache/                what `extract` makes
    FOLDER/runs/                 a run per method, task and seed
    FOLDER/report/index.html     what was learnt
    FOLDER/summary.json          the same as numbers

Each step reuses what stands. A reader will ask why torch gets one thread: models this small finish sooner in two
processes of one thread than in one of two, and on a machine that is shared with others several times sooner.
"""

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cache import atomic
from cache.errors import FailureCode, VideoError
from cache.manifest import Dataset
from cache.progress import Progress
from cache.run import Run
from evaluate.report import write_report
from extract.config import ExtractConfig
from extract.extractor import extract
from pipeline.config import load_recipe
from pipeline.demo.frozen_models import FrozenModels, unpack
from pipeline.demo.probe import probe
from pipeline.demo.report import write_page
from pipeline.demo.scores import HEADLINE
from pipeline.demo.scripts import WorldConfig
from pipeline.demo.summary import summarise
from pipeline.demo.variants import SHORT_LIST, VARIANTS
from pipeline.demo.world import ACTIVITY, ATOMIC, make_world
from train.config import TrainConfig
from train.experiment import Experiment
from train.loop import train

logger = logging.getLogger(__name__)

_QUICK_VIDEOS = {"num_train": 160, "num_validation": 40, "num_test": 80}
_PROBED_VIDEOS = {False: 80, True: 40}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, as it is sent to a process."""

    dataset_folder: Path
    cache: Path
    run: Path
    config: TrainConfig
    recipe: str


@dataclass
class Stopwatch:
    """Seconds per step, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Measures what happens inside the `with`."""
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread inside; the caller's setting is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def run_demo(
    folder: Path, *, quick: bool = False, seeds: Sequence[int] = (0,), all_variants: bool = False, workers: int = 2
) -> dict[str, Any]:
    """Makes the world, extracts, trains, evaluates and writes the report.

    Args:
        folder: where everything goes; what stands there already is reused.
        quick: fewer videos and epochs.
        seeds: of what is trained; every variant is trained with each.
        all_variants: also CMDCL's textual and visual intervention alone.
        workers: processes for rendering, decoding and training.

    Returns:
        The content of summary.json.

    Raises:
        DeconfoundError: a step cannot work; says why.
    """
    folder = folder.resolve()
    watch = Stopwatch()
    world = WorldConfig(**_QUICK_VIDEOS) if quick else WorldConfig()
    dataset_folder = folder / ("dataset-quick" if quick else "dataset")
    with watch.time("videos"):
        dataset = make_world(folder, world, name=dataset_folder.name, workers=workers)
    with watch.time("weights"):
        models = unpack(folder)
    config = _extract_config(models)
    with watch.time("extract"):
        _extract(dataset, folder / "cache", config, workers)
    jobs = _jobs(folder, dataset_folder, models, quick=quick, seeds=seeds, all_variants=all_variants)
    with watch.time("video_tokens"):
        _compute_tokens(dataset, jobs)
    with watch.time("train"):
        runs = _train_all(jobs, workers)
    with _standard_reports(folder / "report", runs, workers) as finish_reports:
        with watch.time("probe"):
            probe_rows = probe(config.image_encoder, world, num_videos=_PROBED_VIDEOS[quick])
        with watch.time("evaluate"):
            summary = summarise(runs, world, dataset, probe_rows, quick=quick)
        with watch.time("report"):
            write_page(folder / "report", summary, world, dataset)
            finish_reports()
    summary.timings.update(watch.seconds, total=round(sum(watch.seconds.values()), 2))
    atomic.write_json(folder / "summary.json", summary.to_json())
    return summary.to_json()


def _extract_config(models: FrozenModels) -> ExtractConfig:
    return load_recipe(
        "demo-cmdcl-activity",
        [
            f"extract.image_encoder.model={json.dumps(str(models.image_encoder_architecture))}",
            f"extract.image_encoder.pretrained={json.dumps(str(models.image_encoder))}",
            f"extract.pose.weights={json.dumps(str(models.pose))}",
        ],
    ).extract


def _extract(dataset: Dataset, cache: Path, config: ExtractConfig, workers: int) -> None:
    with ExitStack() as stack:
        bars: list[Progress] = []

        def show(_done: int, failed: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(Progress(total, "extract", unit="video")))
            bars[0].advance(failed=failed)

        summary = extract(dataset, cache, config, workers=workers, progress=show)
    codes = [code for stream in summary.streams.values() for code in stream.failed]
    if codes:
        raise VideoError(
            FailureCode(codes[0]),
            f"{summary.num_failed} rows of the demo's own videos failed ({', '.join(sorted(set(codes)))}); "
            f"`deconfound status {cache}` counts them",
        )


def _jobs(
    folder: Path,
    dataset_folder: Path,
    models: FrozenModels,
    *,
    quick: bool,
    seeds: Sequence[int],
    all_variants: bool,
) -> list[Job]:
    """One training per variant, task and seed, in the order in which the page shows them."""
    names = tuple(VARIANTS) if all_variants else SHORT_LIST
    return [
        _job(folder, dataset_folder, models, name, task, seed, quick=quick)
        for task in (ATOMIC.name, ACTIVITY.name)
        for seed in seeds
        for name in names
        if task in VARIANTS[name].tasks
    ]


def _job(
    folder: Path, dataset_folder: Path, models: FrozenModels, name: str, task: str, seed: int, *, quick: bool
) -> Job:
    variant = VARIANTS[name]
    recipe = f"demo-{variant.method}-{task}"
    overrides = [
        *_weights(models),
        f'train.variant="{name}"',
        f"train.seed={seed}",
        *variant.overrides(),
        *([f"train.epochs={variant.quick_epochs}"] if quick else []),
    ]
    run = f"{'quick-' if quick else ''}{name.lower()}-{task}-seed{seed}"
    return Job(
        dataset_folder=dataset_folder,
        cache=folder / "cache",
        run=folder / "runs" / run,
        config=load_recipe(recipe, overrides).train,
        recipe=recipe,
    )


def _weights(models: FrozenModels) -> list[str]:
    """Where the frozen models of all methods are; a run remembers those of its own."""
    paths = {
        "train.video_encoder.pretrained": models.video_encoder,
        "train.pevl.clip": models.image_encoder_architecture,
        "train.pevl.pretrained": models.image_encoder,
    }
    return [f"{key}={json.dumps(str(path))}" for key, path in paths.items()]


def _compute_tokens(dataset: Dataset, jobs: Sequence[Job]) -> None:
    """Tokens of the frozen video encoder for all splits, once, before processes start to wait for each other."""
    job = next(job for job in jobs if job.config.task == ATOMIC.name)  # it reads every split
    if all((other.run / "run.json").exists() for other in jobs):
        return
    config = job.config
    splits = [config.train_split, *filter(None, [config.validation_split]), *config.predict_splits]
    experiment = Experiment.open(dataset, job.cache, config, splits=splits)
    experiment.sources(torch.device("cpu"), progress=True, for_training=False)
    experiment.store.verify_once()


def _train_all(jobs: Sequence[Job], workers: int) -> list[Run]:
    processes = min(workers, len(jobs), os.cpu_count() or 1)
    with Progress(len(jobs), "train", unit="run") as progress:
        if all((job.run / "run.json").exists() for job in jobs):
            for job in jobs:
                _train_one(job)
                progress.advance()
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare_process) as pool:
                for future in as_completed([pool.submit(_train_one, job) for job in _slow_first(jobs)]):
                    progress.advance(run=future.result())
    return [Run.open(job.run) for job in jobs]


def _slow_first(jobs: Sequence[Job]) -> list[Job]:
    """The order of training: a long job that starts last keeps one process waiting for the other."""
    return sorted(jobs, key=lambda job: not VARIANTS[job.config.variant].is_slow)


@contextmanager
def _standard_reports(folder: Path, runs: Sequence[Run], workers: int) -> Iterator[Callable[[], None]]:
    """Writes the report of each task in a process of its own while the `with` goes on; yields a function that waits."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(HEADLINE)), mp_context=context) as pool:
        pending = [
            pool.submit(write_report, [run for run in runs if run.info.task == task], folder / task)
            for task in HEADLINE
        ]

        def finish() -> None:
            for report in pending:
                report.result()

        yield finish


def _prepare_process() -> None:
    torch.set_num_threads(1)
    logging.getLogger("train").setLevel(logging.ERROR)  # every run repeats the same notices; the page shows them once


def _train_one(job: Job) -> str:
    run = train(
        Dataset.read(job.dataset_folder),
        job.dataset_folder,
        job.cache,
        job.run,
        job.config,
        recipe=job.recipe,
        progress=False,
    )
    return run.info.name
