"""One replicate on disk: its videos, its frozen models, its cache with tokens, and the trainings on it.

    OUT/frozen-<k>/frozen-models/          sets of frozen models beside the shipped one
    OUT/worlds/<replicate>/                videos, dataset, weights, cache
    OUT/runs/<replicate>/<row>-<task>-head<seed>/

All is made by the demo's own steps, and what stands is reused.
"""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cache.manifest import Dataset
from cache.predictions import Predictions
from cache.store import FeatureStore
from extract.config import Stream
from pipeline.config import load_recipe
from pipeline.demo.frozen_models import SHIPPED, FrozenModels, train_all, unpack
from pipeline.demo.line import Job, compute_tokens, extract_config, extract_features, weights_overrides
from pipeline.demo.scripts import WorldConfig
from pipeline.demo.world import ATOMIC, PROBES, make_world
from pipeline.study.clip_alone import clip_alone
from pipeline.study.plan import Replicate, Size
from pipeline.study.variants import ROWS

logger = logging.getLogger(__name__)
_STREAMS: tuple[Stream, ...] = ("frames", "visual_prompts", "text")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a replicate stands."""

    out: Path
    replicate: Replicate
    models: FrozenModels

    @property
    def folder(self) -> Path:
        """Videos, dataset, weights, cache."""
        return self.out / "worlds" / self.replicate.name

    def job(self, row: str, task: str, head_seed: int, learning_rate: float, size: Size, *, tuning: bool) -> Job:
        """One training; that of the tuning world has its learning rate in its name and predicts i.i.d. videos alone."""
        variant = ROWS[row]
        recipe = f"demo-{variant.method}-{task}"
        splits = load_recipe(recipe).train.predict_splits
        asked = ("validation",) if tuning else (*splits, *(PROBES if size.num_probes else ()))
        overrides = [
            *weights_overrides(self.models),
            f"train.variant={json.dumps(row)}",
            f"train.seed={head_seed}",
            f"train.optimizer.learning_rate={learning_rate!r}",
            f"train.predict_splits={json.dumps(asked)}",
            *variant.overrides(),
            *([] if size.epochs is None or variant.is_slow else [f"train.epochs={size.epochs}"]),
        ]
        name = f"{slug(row)}-{task}-{f'rate{learning_rate:g}-' if tuning else ''}head{head_seed}"
        return Job(
            dataset_folder=self.folder / "dataset",
            cache=self.folder / "cache",
            run=self.out / "runs" / self.replicate.name / name,
            config=load_recipe(recipe, overrides).train,
            recipe=recipe,
        )

    def clip_alone(self, dataset: Dataset) -> Callable[[Predictions], Predictions]:
        """From a run's predictions to those of CLIP alone on the same videos."""
        store = FeatureStore.open(self.folder / "cache")
        config = load_recipe("demo-cmdcl-atomic").train
        return lambda found: clip_alone(store, dataset.task(found.task), found, config)


def slug(name: str) -> str:
    """A row's name as part of a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def prepare(out: Path, replicate: Replicate, world: WorldConfig, *, workers: int) -> tuple[Place, Dataset]:
    """Films the world and extracts its features for CMDCL and PCMCI, tokens included; what stands is reused.

    Raises:
        DeconfoundError: the folder holds another world, or a step cannot work.
    """
    folder = out / "worlds" / replicate.name
    dataset = make_world(folder, world, workers=workers)
    place = Place(out=out, replicate=replicate, models=unpack(folder, source=_frozen_models(out, replicate.frozen_set)))
    config = extract_config(place.models)
    extract_features(dataset, folder / "cache", replace(config, streams=_STREAMS), workers)
    size = Size(
        num_train=world.num_train,
        num_validation=world.num_validation,
        num_test=world.num_test,
        num_probes=world.num_probes,
        epochs=None,
    )
    compute_tokens(dataset, place.job("baseline", ATOMIC.name, 0, 1e-3, size, tuning=False))
    return place, dataset


def add_joints(place: Place, dataset: Dataset, *, workers: int) -> None:
    """Adds the joints, which PeVL alone reads."""
    extract_features(dataset, place.folder / "cache", extract_config(place.models), workers)


def _frozen_models(out: Path, number: int) -> Path:
    """The packed models of a set; set 0 is shipped, another is trained when it is first asked for."""
    if number == 0:
        return SHIPPED
    folder = out / f"frozen-{number}"
    made = folder / "frozen-models"
    if not (folder / "done").exists():
        logger.warning("training set %d of frozen models, about fifteen minutes on one core", number)
        train_all(folder, seed=number)
        (folder / "done").touch()
    return made
