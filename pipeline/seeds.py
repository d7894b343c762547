"""Training with several seeds: `train --seeds` and `ablate` plan, train and average their runs here.

    RUNS/seed<k>/    a run directory each, as `deconfound train --seed <k>` makes them

Finished runs are read, a stopped one continues, so the same command goes on, also with more seeds. The decision to
question: every run that is there already is compared with what is asked for before the first one is trained, because a
refusal after four of five trainings costs the hours of four.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import ConfigError
from cache.manifest import Dataset
from cache.run import Run
from evaluate import tables
from evaluate.across_runs import spread
from evaluate.benchmarks import Rule, judge
from evaluate.coverage import coverage, remarks
from evaluate.metrics import evaluate
from evaluate.tables import METRIC_NAMES, percent
from pipeline.config import load_recipe
from pipeline.tables import format_table
from train import parallel
from train.config import TrainConfig, with_absolute_paths
from train.device import resolve_device
from train.run_directory import existing_run

TrainOne = Callable[[Path, TrainConfig], Run]
"""Trains into a run directory, or continues one."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run that is to be trained; `name` is what an error calls it where there are several."""

    name: str
    path: Path
    config: TrainConfig


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """A trained run with what its predictions say.

    Attributes:
        run: its directory.
        rule: what its predictions are judged by.
        splits: metric values by split; a split without any label has none.
        left_out: by split, the line on coverage and the remarks, in the shape of a summary's split.
    """

    run: Run
    rule: Rule
    splits: Mapping[str, Mapping[str, float]]
    left_out: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, run: Run) -> "ScoredRun":
        """Evaluates the splits that the run's configuration predicts; ConfigError if these are none."""
        if not run.config["train"]["predict_splits"]:
            raise ConfigError(f"{run.path}: train.predict_splits is empty, so there is nothing to evaluate")
        found = {split: run.predictions(split) for split in run.config["train"]["predict_splits"]}
        full = {split: item for split, item in found.items() if item.kind == "single" or bool(item.targets.any())}
        cards = {split: evaluate(item) for split, item in full.items()}
        return cls(
            run=run,
            rule=judge(found)[0],
            splits={
                split: {name: card[name] for name in METRIC_NAMES if name in card} for split, card in cards.items()
            },
            left_out={
                split: {"coverage": coverage(item), "remarks": remarks(cards[split])} for split, item in full.items()
            },
        )


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0-4`, `0,2` or `3` as numbers.

    Raises:
        ConfigError: not of that form, or a seed is named twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        last = int(match[2] or match[1]) if match else -1
        if match is None or last < int(match[1]):
            raise ConfigError(f"--seeds {text!r}: give numbers and ranges, like 0-4 or 0,2")
        seeds += range(int(match[1]), last + 1)
    if len(set(seeds)) != len(seeds):
        raise ConfigError(f"--seeds {text!r}: a seed is named twice")
    return tuple(seeds)


def plan_runs(
    recipe: str, overrides: Sequence[str], path: Path, *, seed: int | None, seeds: str | None
) -> list[PlannedRun]:
    """What `train` is asked to train: one run, or with `seeds` one for each below the path.

    Raises:
        ConfigError: seeds are given twice, the path holds what is not asked for, or the recipe is refused.
    """
    if seeds is None:
        return [_plan_one(recipe, [*overrides, *([] if seed is None else [f"train.seed={seed}"])], path)]
    if seed is not None:
        raise ConfigError(f"--seed {seed} and --seeds {seeds} both say which seeds to train: give one of them")
    return _plan_several(recipe, overrides, path, parse_seeds(seeds))


def _plan_one(recipe: str, overrides: Sequence[str], path: Path) -> PlannedRun:
    config = load_recipe(recipe, overrides).train
    below = sorted(found.parent.name for found in path.glob("seed*/run.json"))
    if below and not (path / "run.json").exists():
        raise ConfigError(
            f"{path} holds the runs of several seeds ({', '.join(below)}): continue them with --seeds, or give one "
            f"run directory, like {path / f'seed{config.seed}'}"
        )
    return PlannedRun(name="", path=path, config=config)


def _plan_several(recipe: str, overrides: Sequence[str], folder: Path, seeds: Sequence[int]) -> list[PlannedRun]:
    if any(override.partition("=")[0].strip() == "train.seed" for override in overrides):
        raise ConfigError("--set train.seed and --seeds both say which seeds to train: give one of them")
    configs = [load_recipe(recipe, [*overrides, f"train.seed={seed}"]).train for seed in seeds]
    if (folder / "run.json").exists():
        raise ConfigError(
            f"{folder} is a run itself: with --seeds, --run names the folder of several; give another one, or move "
            f"this run into it as seed{Run.open(folder).info.seed}"
        )
    return [
        PlannedRun(name=f"seed {config.seed}", path=folder / f"seed{config.seed}", config=config) for config in configs
    ]


def train_all(
    planned: Sequence[PlannedRun], dataset: Dataset, train_one: TrainOne, *, device: str = "cpu"
) -> Iterator[Run]:
    """Trains one run after the other; a finished one comes as it is.

    Args:
        planned: what is to be trained.
        dataset: of all runs.
        train_one: trains one.
        device: the name of the device on which it does.

    Raises:
        ConfigError: one of the runs is there with another configuration (nothing was trained), or cannot be trained
            (those before it stay).
    """
    for plan in planned:
        existing_run(plan.path, with_absolute_paths(plan.config), dataset)
    with parallel.joined(resolve_device(parallel.device_name(device))):
        for plan in planned:
            try:
                run = train_one(plan.path, plan.config)
            except ConfigError as error:
                raise ConfigError(f"{plan.name}: {error}" if plan.name else str(error)) from error
            yield run


def over_runs(runs: Sequence[ScoredRun]) -> dict[str, dict[str, Any]]:
    """Split -> metric -> mean, deviation (None with one run) and the values themselves, in the order of the runs."""
    return {
        split: {metric: _spread([run.splits[split][metric] for run in runs]) for metric in metrics}
        for split, metrics in (runs[0].splits if runs else {}).items()
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {**spread(values), "values": list(values)}


def spread_text(found: Mapping[str, Any] | None) -> str:
    """Mean ± deviation in percent; a dash for none."""
    if found is None:
        return "-"
    return percent(found["mean"]) + ("" if found["sd"] is None else f" ± {percent(found['sd'])}")


def what_they_share(runs: Sequence[ScoredRun]) -> dict[str, Any]:
    """Of runs of one task: where they were trained, what they are judged by, and what stands beside their numbers."""
    info, rule = runs[0].run.info, runs[0].rule
    left_out = [{"label": run.run.path.name, "splits": run.left_out} for run in runs]
    return {
        "dataset": info.dataset,
        "task": info.task,
        "protocol": info.protocol,
        "kind": rule.kind,
        "main_metrics": list(rule.metrics),
        "rule": rule.sentence,
        "notices": list(dict.fromkeys(notice for run in runs for notice in run.run.info.notices)),
        "remarks": tables.remarks(left_out),
    }


def seeds_document(runs: Sequence[ScoredRun]) -> dict[str, Any]:
    """What `train --json` prints: one recipe's runs, one for each seed.

    {"method", "variant", "recipe", "dataset", "task", "protocol", "kind", "main_metrics", "rule", "notices", "remarks",
     "seeds": [seed], "runs": {seed: path}, "splits": {split: {metric: {"mean", "sd", "values": [as in seeds]}}}}
    """
    info = runs[0].run.info
    return {
        **{key: getattr(info, key) for key in ("method", "variant", "recipe")},
        **what_they_share(runs),
        "seeds": [run.run.info.seed for run in runs],
        "runs": {str(run.run.info.seed): str(run.run.path) for run in runs},
        "splits": over_runs(runs),
    }


def seeds_to_text(document: Mapping[str, Any]) -> str:
    """The headline of every seed and split, mean ± deviation below, after the runs' notices."""
    metric, splits, seeds = document["main_metrics"][0], document["splits"], document["seeds"]
    columns = [splits[split][metric] for split in splits]
    rows = [[str(seed), *(percent(column["values"][place]) for column in columns)] for place, seed in enumerate(seeds)]
    if len(seeds) > 1:
        rows.append(["mean ± sd", *map(spread_text, columns)])
    name = " ".join(filter(None, [document["method"], document["variant"]]))
    paths = [Path(path) for path in document["runs"].values()]
    folders = shlex.quote(str(paths[0])) if len(paths) == 1 else f"{shlex.quote(str(paths[0].parent))}/seed*"
    where = f"{document['dataset']}, task {document['task']}, protocol {document['protocol']}"
    return "\n".join(
        [
            *(f"note: {notice}" for notice in document["notices"]),
            f"{name} on {where}: {METRIC_NAMES[metric]}, %",
            format_table(["seed", *splits], rows),
            *document["remarks"],
            *([document["rule"]] if document["rule"] else []),
            f"intervals and a report: deconfound evaluate {folders} --report REPORT",
        ]
    )
