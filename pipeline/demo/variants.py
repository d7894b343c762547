"""What the demo trains: a row of its tables is a method's recipe with some of its switches.

The question a reader will ask: why is PeVL never subtracted from the control? The control answers for attention over
time inside CMDCL. PeVL stands on another backbone, so whatever differs there is the model and not an intervention; its
difference to the baseline is told with that caveat. PeVL matches a video with one text, so it learns activities alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.demo.world import ACTIVITY, ATOMIC

BASELINE, CONTROL = "baseline", "control"
Setting = bool | float | str | tuple[str, ...]
"""A value of a method's switch."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row: a method, what of it is switched on, and what it is compared with."""

    text: str
    """What it is, for the page."""
    method: str = "cmdcl"
    """Whose recipes `demo-METHOD-TASK` and table `train.METHOD` are meant."""
    switches: Mapping[str, Setting] = field(default_factory=dict)
    """Keys of that table that differ from the recipe's."""
    tasks: tuple[str, ...] = (ATOMIC.name, ACTIVITY.name)
    """What it learns."""
    references: tuple[str, ...] = (BASELINE, CONTROL)
    """Rows that are subtracted from it."""
    caveat: str = ""
    """Said with each such difference."""
    is_slow: bool = False
    """Takes several times as long as the others, so it starts first."""
    quick_epochs: int = 24
    """Epochs of `--quick`."""

    def overrides(self) -> list[str]:
        """The switches in the form of `--set`."""
        return [f"train.{self.method}.{name}={json.dumps(value)}" for name, value in self.switches.items()]


VARIANTS: Mapping[str, Variant] = {
    BASELINE: Variant(
        text="the video encoder's frames, read by the light Q-Former with the class texts as queries; CMDCL and PCMCI "
        "without their interventions",
        switches={"tci": False, "vci": False},
        references=(),
    ),
    CONTROL: Variant(
        text="the baseline with the temporal layers that VCI brings along, and nothing else of VCI",
        switches={"tci": False, "vci": False, "temporal_control": True},
        references=(BASELINE,),
    ),
    "TCI": Variant(
        text="the baseline with the textual intervention of CMDCL (back-door): class texts are debiased by the "
        "video's own frames",
        switches={"tci": True, "vci": False},
    ),
    "VCI": Variant(
        text="the baseline with the visual intervention of CMDCL (front-door), temporal layers included",
        switches={"tci": False, "vci": True},
    ),
    "CMDCL": Variant(
        text="the baseline with both interventions of CMDCL: textual (TCI, back-door) and visual (VCI, front-door, "
        "temporal layers included)",
        switches={"tci": True, "vci": True},
    ),
    "PCMCI": Variant(
        text="the baseline with PCMCI's three interventions: texts transported to frames, related to each other, and "
        "made the mediator of the video",
        method="pcmci",
    ),
    "PeVL": Variant(
        text="the tiny CLIP itself, adapted to frames and joints and trained to match activities' texts; another "
        "backbone, no intervention, activities alone",
        method="pevl",
        tasks=(ACTIVITY.name,),
        references=(BASELINE,),
        caveat="Their backbones differ, so this compares two models and is no effect of an intervention.",
        is_slow=True,
        quick_epochs=3,
    ),
}
"""Every row by its name, in the order of the tables."""
SHORT_LIST = (BASELINE, CONTROL, "CMDCL", "PCMCI", "PeVL")
"""What is trained unless all are asked for."""
METHODS = ("CMDCL", "PCMCI", "PeVL")
"""The papers' full methods."""
