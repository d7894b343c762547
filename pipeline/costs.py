"""`deconfound cost`: what a recipe's model costs, part by part, beside the papers' figures.

Where the number of classes is not known, parts that depend on it are counted for one class and say so: a guess would
look like a fact. GMACs are 1e9 multiply-accumulates, which papers print as GFLOPs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Recipe
from pipeline.paper_costs import PrintedCost, printed_costs
from pipeline.tables import format_table
from train.clip_weights import clip_shape
from train.cost import model_parts, sum_in_training, sum_of
from train.layer_costs import Cost, Part

_NUM_CLASSES = {
    ("breakfast", "activity"): 10,
    ("breakfast", "atomic"): 48,
    ("coin", "task"): 180,
    ("coin", "step"): 778,
    ("charades", "atomic"): 157,
    ("diving48", "action"): 48,
    ("gym99", "gym99"): 99,
    ("gym288", "gym288"): 288,
    ("haa500", "action"): 500,
    ("toyota-smarthome", "action"): 31,
    ("demo", "activity"): 8,
    ("demo", "atomic"): 16,
}
"""By the data set in a recipe's name, and its task."""
_NUM_JOINTS = {"toyota-smarthome": 13}
_COCO_JOINTS = 17
_HEADER = ("part", "params M", "trainable M", "GMACs linear", "with attention")


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """What `cost` prints."""

    recipe: str
    method: str
    num_frames: int
    num_classes: int | None
    """C; None where it is not known, and then all is counted for one class."""
    parts: Mapping[str, Part]
    published: Sequence[PrintedCost]

    def to_json(self) -> dict[str, Any]:
        """The object that `cost --json` prints."""
        parts = {
            name: _numbers(part.cost) | {"cached": part.cached, "note": part.note, "published": self._beside(name)}
            for name, part in self.parts.items()
        }
        return {
            "recipe": self.recipe,
            "method": self.method,
            "num_frames": self.num_frames,
            "num_classes": self.num_classes,
            "parts": parts,
            "sum": _numbers(sum_of(self.parts)) | {"published": self._beside("sum")},
            "sum_in_training": _numbers(sum_in_training(self.parts)),
            "backbones": _numbers(sum_of(self.backbones)) if self.backbones else None,
            "published": [figure.to_json() for figure in self.published],
        }

    def to_text(self) -> str:
        """A table of parts, notes, and a table of the papers' figures."""
        rows = [(f"{name} *" if part.cached else name, *_cells(part.cost)) for name, part in self.parts.items()]
        rows.append(("sum", *_cells(sum_of(self.parts))))
        if self.backbones:
            rows.append((" + ".join(self.backbones), *_cells(sum_of(self.backbones))))
        if any(part.cached for part in self.parts.values()):
            rows.append(("sum without *", *_cells(sum_in_training(self.parts))))
        lines = [self._title(), format_table(_HEADER, rows), *self._notes()]
        return "\n".join([*lines, "", *_figures_to_text(self.published)])

    @property
    def backbones(self) -> dict[str, Part]:
        """The two encoders of CMDCL and PCMCI, of which their papers' figure of 650 GFLOPs is made; empty for PeVL."""
        names = ("video_encoder", "image_tower") if self.method != "pevl" else ()
        return {name: self.parts[name] for name in names}

    def _title(self) -> str:
        classes = "one class" if self.num_classes is None else f"{self.num_classes} classes"
        what = "one view of one clip" if self.method == "pevl" else "one clip"
        return f"{self.recipe} ({self.method}), {what}: {self.num_frames} frames, {classes}"

    def _notes(self) -> list[str]:
        notes = [f"note: {name}: {part.note}" for name, part in self.parts.items() if part.note]
        if any(part.cached for part in self.parts.values()):
            notes.insert(0, "* computed once and cached; training does not run it")
        if self.num_classes is None:
            notes.append("note: the number of classes is not known for this recipe; give --classes")
        return notes

    def _beside(self, part: str) -> list[dict[str, Any]]:
        return [figure.to_json() for figure in self.published if figure.part == part]


def count_costs(recipe: Recipe, *, num_classes: int | None = None) -> CostReport:
    """Counts a recipe's model from its configuration; no weights, no data.

    Args:
        recipe: with a [train] section.
        num_classes: C; by default that of the data set in the recipe's name, if it is a known one.

    Raises:
        ConfigError: the recipe does not build, or its CLIP is unknown.
    """
    config = recipe.train
    is_pevl = config.method == "pevl"
    clip = config.pevl.clip if is_pevl else recipe.extract.image_encoder.model
    key = "train.pevl.clip" if is_pevl else "extract.image_encoder.model"
    num_classes = num_classes or classes_of(recipe.name, config.task)
    num_joints = next((count for name, count in _NUM_JOINTS.items() if _is_on(recipe.name, name)), _COCO_JOINTS)
    return CostReport(
        recipe=recipe.name,
        method=config.method,
        num_frames=config.num_frames,
        num_classes=num_classes,
        parts=model_parts(config, num_classes=num_classes or 1, num_joints=num_joints, clip=clip_shape(clip, key=key)),
        published=printed_costs(config.method),
    )


def classes_of(recipe: str, task: str) -> int | None:
    """C of the data set that a recipe is named after; None where that is not known."""
    found = (count for (name, of_task), count in _NUM_CLASSES.items() if of_task == task and _is_on(recipe, name))
    return next(found, None)


def _is_on(recipe: str, dataset: str) -> bool:
    """Whether a recipe's name has the data set's as whole words: `cmdcl-coin-task` is on `coin`."""
    return f"-{dataset}-" in f"-{Path(recipe).stem}-"


def _numbers(cost: Cost) -> dict[str, Any]:
    return {
        "gmacs_linear": cost.linear / 1e9,
        "gmacs_with_attention": cost.with_attention / 1e9,
        "params_m": cost.params / 1e6,
        "trainable_params_m": cost.trainable / 1e6,
    }


def _cells(cost: Cost) -> tuple[str, ...]:
    millions = (f"{cost.params / 1e6:.2f}", f"{cost.trainable / 1e6:.2f}")
    return (*millions, f"{cost.linear / 1e9:.2f}", f"{cost.with_attention / 1e9:.2f}")


def _figures_to_text(figures: Sequence[PrintedCost]) -> list[str]:
    rows = [
        (
            f"{figure.row.paper} table {figure.row.table}: {figure.row.method}",
            figure.row.metric,
            f"{figure.row.value:g}",
            f"{figure.ours:.2f}",
            "yes" if figure.agrees else "NO",
            figure.convention if figure.agrees else f"none; ours: {figure.convention}",
        )
        for figure in figures
    ]
    header = (
        "papers' figures, in the papers' settings",
        "unit",
        "printed",
        "ours",
        "agrees",
        "convention that reproduces it",
    )
    return [format_table(header, rows)]
