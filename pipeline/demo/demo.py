"""`deconfound demo`: the whole line in the controlled world, through the same code as real data.

    FOLDER/videos/, dataset/     the world (world.py)
    FOLDER/weights/              the tiny frozen models as standard files (frozen_models.py)
    FOLDER/cache/                what `extract` makes
    FOLDER/runs/                 a run per method, task and seed
    FOLDER/report/index.html     what was learnt
    FOLDER/summary.json          the same as numbers

Each step reuses what stands. A reader will ask where the steps are: those that `deconfound study` takes too stand in
`line`.
"""

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache import atomic
from cache.run import Run
from evaluate.report import write_report
from pipeline.config import load_recipe
from pipeline.demo.frozen_models import FrozenModels, unpack
from pipeline.demo.line import (
    Job,
    compute_tokens,
    extract_config,
    extract_features,
    one_thread,
    train_all,
    weights_overrides,
)
from pipeline.demo.probe import probe
from pipeline.demo.report import write_page
from pipeline.demo.scores import HEADLINE
from pipeline.demo.scripts import WorldConfig
from pipeline.demo.summary import summarise
from pipeline.demo.variants import SHORT_LIST, VARIANTS
from pipeline.demo.world import ACTIVITY, ATOMIC, make_world

logger = logging.getLogger(__name__)

_QUICK_VIDEOS = {"num_train": 160, "num_validation": 40, "num_test": 80}
_PROBED_VIDEOS = {False: 80, True: 40}


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
    config = extract_config(models)
    with watch.time("extract"):
        extract_features(dataset, folder / "cache", config, workers)
    jobs = _jobs(folder, dataset_folder, models, quick=quick, seeds=seeds, all_variants=all_variants)
    with watch.time("video_tokens"):
        if not all((job.run / "run.json").exists() for job in jobs):
            compute_tokens(dataset, next(job for job in jobs if job.config.task == ATOMIC.name))  # it reads every split
    with watch.time("train"):
        train_all(_slow_first(jobs), workers)
        runs = [Run.open(job.run) for job in jobs]
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
        *weights_overrides(models),
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
