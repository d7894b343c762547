"""Run directories with seeded logits: small, but written by the real `Run` and `Predictions`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cache.manifest import TaskKind
from cache.predictions import Predictions
from cache.run import Run, RunInfo

CLASS_NAMES = ("fried egg", "scrambled egg", "milk coffee", "milk tea", "jam toast", "sandwich", "pancake", "salad")


def class_names(count: int) -> tuple[str, ...]:
    """As many as a benchmark has: its rule asks for its own number of classes."""
    return tuple(CLASS_NAMES[number] if number < len(CLASS_NAMES) else f"class {number}" for number in range(count))


def predictions(
    *,
    kind: TaskKind = "single",
    n: int = 60,
    skill: float = 1.5,
    seed: int = 0,
    split: str = "iid",
    name: str = "cmdcl-1",
    class_names: tuple[str, ...] = CLASS_NAMES,
    dataset: str = "kitchen",
    num_official: int | None = None,
    protocol: str = "s1",
) -> Predictions:
    """Targets depend on the split alone, logits on the seed: runs can be compared clip by clip."""
    truth = np.random.default_rng([n, len(class_names), len(split)])
    noise = np.random.default_rng(seed)
    num_classes = len(class_names)
    subjects = tuple(f"P{number:02d}" for number in truth.integers(8, size=n))
    if kind == "single":
        targets = truth.integers(num_classes, size=n)
        strength = np.eye(num_classes)[targets]
    else:
        targets = (truth.random((n, num_classes)) < 0.3).astype(np.uint8)
        strength = targets.astype(np.float64)
    logits = (skill * strength + noise.normal(size=(n, num_classes))).astype(np.float32)
    return Predictions(
        clip_ids=tuple(f"{split}-{number:03d}" for number in range(n)),
        logits=logits,
        targets=targets,
        task="activity" if kind == "single" else "atomic",
        kind=kind,
        class_names=class_names,
        dataset=dataset,
        protocol=protocol,
        split=split,
        run_name=name,
        fingerprints={"frames": "ab" * 32},
        groups={"subject": subjects},
        skipped={"iid-900": "truncated", "iid-901": "truncated"} if split == "iid" else {},
        num_official=num_official,
    )


def run(
    folder: Path,
    *,
    kind: TaskKind = "single",
    splits: tuple[str, ...] = ("iid", "counterfactual"),
    skill: float = 1.5,
    seed: int = 0,
    variant: str = "",
    notices: tuple[str, ...] = (),
    class_names: tuple[str, ...] = CLASS_NAMES,
    dataset: str = "kitchen",
    switches: Mapping[str, bool] | None = None,
    num_official: int | None = None,
    num_clips: int = 60,
    protocol: str = "s1",
    cache_folder: str = "cache",
) -> Run:
    """A finished run of ten epochs; `switches` are those of CMDCL that differ from the full method's."""
    info = RunInfo(
        name=folder.name,
        method="cmdcl",
        variant=variant,
        task="activity" if kind == "single" else "atomic",
        dataset=dataset,
        protocol=protocol,
        seed=seed,
        recipe="cmdcl-kitchen-activity",
        dataset_folder="dataset",
        cache_folder=cache_folder,
        notices=notices,
        fingerprints={"frames": "ab" * 32},
        versions={"python": "3.11"},
        status="finished",
    )
    full = {"tci": True, "tci_b": "video", "vci": True, "temporal_control": False, "scene": "kept", "evidence": False}
    cmdcl = full | dict(switches or {})
    training = {"seed": seed, "variant": variant, "learning_rate": 0.001, "cmdcl": cmdcl}
    training |= {"predict_splits": list(splits), "protocol": protocol}
    created = Run.create(folder, info, {"train": training})
    for epoch in range(10):
        headline = "acc1" if kind == "single" else "map_macro"
        created.append_metrics(
            {"epoch": epoch, "loss": 2.0 / (epoch + 1), "learning_rate": 0.001, f"{splits[0]}.{headline}": epoch / 10}
        )
    for number, split in enumerate(splits):
        item = predictions(
            kind=kind, skill=skill / (number + 1), seed=seed, split=split, name=info.name, class_names=class_names,
            dataset=dataset, num_official=num_official, n=num_clips, protocol=protocol,
        )  # fmt: skip
        item.write(created.predictions_path(split))
    return created
