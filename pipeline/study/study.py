"""`deconfound study`: the controlled world's experiment, whole and resumable.

    OUT/sizes.json      how much is filmed and trained; a folder of other sizes is refused
    OUT/study.json      every number of the page, and of study.md
    OUT/index.html      tables, paired tests, figures, what they say about each claim
    OUT/study.md        the main tables, to be quoted
    OUT/worlds, OUT/runs, OUT/frozen-<k>     see `worlds`

The decision to question: the document is written after every world, so that a study that is stopped leaves a whole
table of fewer worlds, and says so. A later call with more worlds, strengths, heads or rows adds to it.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache import atomic
from cache.errors import ConfigError
from cache.manifest import Dataset
from cache.run import Run
from evaluate.uncertainty import Interval
from pipeline.demo.line import Job, extract_config, one_thread, train_all
from pipeline.demo.probe import ProbeRow, probe
from pipeline.demo.variants import Variant
from pipeline.study import results
from pipeline.study.document import document, to_markdown
from pipeline.study.page import write_page
from pipeline.study.plan import FIRST_WORLDS, MAIN_STRENGTH, Replicate, StudyPlan
from pipeline.study.results import Finished
from pipeline.study.tuning import Rates, read_rates
from pipeline.study.variants import ROWS
from pipeline.study.worlds import Place, add_joints, prepare


@one_thread()
def run_study(out: Path, plan: StudyPlan, *, workers: int = 2) -> dict[str, Any]:
    """Makes what is missing and writes the document after every world.

    Args:
        out: folder of everything.
        plan: what to repeat.
        workers: processes of one thread each.

    Returns:
        The content of study.json.

    Raises:
        DeconfoundError: a step cannot work, or OUT holds a study of other sizes.
    """
    out = out.resolve()
    _claim(out, plan)
    rates = _tune(out, plan, workers)
    finished: list[Finished] = []
    probes: dict[int, tuple[ProbeRow, ...]] = {}
    body: dict[str, Any] = {}
    for replicate in plan.replicates:
        place, dataset = prepare(out, replicate, plan.world(replicate), workers=workers)
        jobs = list(_jobs(place, plan, rates))
        _train(place, dataset, jobs, workers)
        finished.append(results.read(replicate, [Run.open(job.run) for job in jobs], place.clip_alone(dataset)))
        if replicate.frozen_set not in probes:
            probes[replicate.frozen_set] = _clip_probe(place, plan)
        body = document(plan, rates, finished, probes)
        _write(out, body)
    return body


def _claim(out: Path, plan: StudyPlan) -> None:
    """Keeps one folder to one set of sizes: runs of others would be refused one by one, or counted together."""
    sizes = asdict(plan.size) | {"learning_rates": list(plan.learning_rates), "tuning_seed": plan.tuning_seed}
    if atomic.create_bytes(out / "sizes.json", atomic.encode_json(sizes)):
        return
    stored = atomic.read_json(out / "sizes.json")
    if stored != sizes:
        lines = "; ".join(
            f"{key}: there {stored.get(key)}, asked for {sizes[key]}" for key in sizes if stored.get(key) != sizes[key]
        )
        raise ConfigError(f"{out} holds a study of other sizes ({lines}): choose another folder")


def _tune(out: Path, plan: StudyPlan, workers: int) -> Rates:
    """Trains every row with every learning rate on the tuning world and reads the scores; one rate needs neither."""
    if len(plan.learning_rates) == 1:
        return Rates(scores={}, only=plan.learning_rates[0])
    place, dataset = prepare(out, plan.tuning, plan.world(plan.tuning), workers=workers)
    jobs = [
        place.job(row, task, head, rate, plan.size, tuning=True)
        for row, variant in _rows(plan, plan.tuning)
        for task in variant.tasks
        for rate in plan.learning_rates
        for head in range(1 if variant.is_slow else plan.tuning_heads)
    ]
    _train(place, dataset, jobs, workers)
    return read_rates([Run.open(job.run) for job in jobs])


def _jobs(place: Place, plan: StudyPlan, rates: Rates) -> Iterator[Job]:
    """One training per row, task and head."""
    for row, variant in _rows(plan, place.replicate):
        for task in variant.tasks:
            for head in place.replicate.head_seeds[: 1 if variant.is_slow else None]:
                yield place.job(row, task, head, rates.of(row, task), plan.size, tuning=False)


def _rows(plan: StudyPlan, replicate: Replicate) -> Iterator[tuple[str, Variant]]:
    """The rows of a replicate: slow ones where learning rates are tuned, and on the first worlds at that strength."""
    is_first = replicate.seed in (plan.tuning_seed, *plan.seeds[:FIRST_WORLDS])
    takes_slow = replicate.strength == MAIN_STRENGTH and is_first
    for name, variant in ROWS.items():
        if (not plan.rows or name in plan.rows) and (takes_slow or not variant.is_slow):
            yield name, variant


def _train(place: Place, dataset: Dataset, jobs: list[Job], workers: int) -> None:
    """Trains, the fast rows first: they need no joints."""
    fast = [job for job in jobs if job.config.method != "pevl"]
    slow = [job for job in jobs if job.config.method == "pevl"]
    train_all(fast, workers)
    if slow:
        add_joints(place, dataset, workers=workers)
        train_all(slow, workers)


def _clip_probe(place: Place, plan: StudyPlan) -> tuple[ProbeRow, ...]:
    """The probe of bias of the replicate's image-text encoder; kept beside its world."""
    path = place.folder / "probe.json"
    try:
        rows = atomic.read_json(path)["rows"]
    except FileNotFoundError:
        world = plan.world(place.replicate)
        found = probe(extract_config(place.models).image_encoder, world, num_videos=plan.size.num_probes)
        atomic.write_json(path, {"rows": [asdict(row) for row in found]})
        return found
    intervals = ("top1", "score", "kept")
    return tuple(ProbeRow(**{**row, **{name: Interval(**row[name]) for name in intervals}}) for row in rows)


def _write(out: Path, body: dict[str, Any]) -> None:
    atomic.write_json(out / "study.json", body)
    atomic.write_bytes(out / "study.md", to_markdown(body).encode())
    write_page(out / "index.html", body)
