"""The costs that the papers print, each beside our count of the same model, and whether the two agree.

The papers' models are counted with the papers' inputs, whatever recipe is asked about: a printed figure can only be
checked in its own setting. Every convention that fits a figure's unit is tried; a figure that none reproduces is shown
as such, beside ours. Two figures agree within 0.5 %, or when ours rounds to the printed one: papers
print two or three digits and leave out what is small.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

from evaluate.paper import PaperResult, paper_results
from train.clip_weights import clip_shape
from train.config import TrainConfig
from train.cost import model_parts, sum_of, text4vis
from train.layer_costs import Cost
from train.models.pevl_config import Encoder, PeVLConfig
from train.pevl_costs import pevl_parts

_B16, _L14 = "ViT-B-16-quickgelu", "ViT-L-14-quickgelu"
_TOLERANCE = 0.005
_SEEN = "what a module counter sees"
_SEEN_ALONE = ("BIKE", "Text4Vis")
"""Models of which nothing else is counted here."""
_SCALE = {"gflops": 1e9, "params_m": 1e6, "tunable_params_m": 1e6}


@dataclass(frozen=True, kw_only=True)
class PrintedCost:
    """One figure of a paper, and ours."""

    row: PaperResult
    part: str
    """What of our model it stands beside: a part's name, `sum`, or nothing for a part of it or another model."""
    convention: str
    """The convention that comes nearest; where none reproduces the figure, the fullest one."""
    ours: float
    """By that convention, in the figure's unit."""

    @property
    def agrees(self) -> bool:
        """Whether that convention reproduces the figure."""
        return _agree(self.ours, self.row.value)

    def to_json(self) -> dict[str, Any]:
        """One entry of `published` in `cost --json`."""
        row = {name: getattr(self.row, name) for name in ("paper", "table", "method", "metric", "value", "source")}
        ours = {"ours": round(self.ours, 3), "convention": self.convention, "agrees": self.agrees, "part": self.part}
        return row | ours


def printed_costs(method: str) -> list[PrintedCost]:
    """Every cost that a method's paper prints of a model that can be counted here, once each, in the paper's order."""
    models = MODELS[method]
    rows: dict[tuple[str, str, float], PaperResult] = {}
    for row in paper_results():
        if row.paper.lower() == method and row.metric in _SCALE and row.method in models:
            rows.setdefault((row.method, row.metric, row.value), row)
    return [_compare(row, *models[row.method]) for row in rows.values()]


def _compare(row: PaperResult, part: str, count: Callable[[], Cost]) -> PrintedCost:
    readings = _readings(row, count())
    ours = {name: value / _SCALE[row.metric] for name, value in readings.items()}
    fullest = list(ours)[-1]
    nearest = min(ours, key=lambda name: abs(ours[name] - row.value))
    convention = nearest if _agree(ours[nearest], row.value) else fullest
    return PrintedCost(row=row, part=part, convention=convention, ours=ours[convention])


def _agree(ours: float, printed: float) -> bool:
    rounds_to_it = printed.is_integer() and round(ours) == printed
    return rounds_to_it or abs(ours - printed) <= _TOLERANCE * printed


def _readings(row: PaperResult, cost: Cost) -> dict[str, int]:
    """What a paper may mean, the fullest reading last; all of them write FLOPs for multiply-accumulates."""
    if row.metric == "tunable_params_m":
        return {"trainable parameters": cost.trainable}
    if row.method in _SEEN_ALONE:
        return {_SEEN: cost.linear if row.metric == "gflops" else cost.params}
    if row.metric == "gflops":
        return {"linear and convolution only": cost.linear, "with attention products": cost.with_attention}
    return {_SEEN: cost.params - cost.unseen, "all parameters": cost.params}


@cache
def _causal(method: Literal["cmdcl", "pcmci"]) -> Cost:
    """At 16 frames, for the 10 activities of Breakfast."""
    config = TrainConfig(method=method, task="activity", num_frames=16)
    return sum_of(model_parts(config, num_classes=10, num_joints=0, clip=clip_shape(_B16)))


@cache
def _pevl(*encoders: Encoder, pose_input: Literal["coordinates", "heatmaps"] = "coordinates") -> Cost:
    """Encoders alone, joined by a linear layer: what the paper has before its refinement and contrast."""
    alone: dict[str, Any] = {"encoders": encoders, "adapters": encoders, "p2v": "off", "v2p": False}
    return sum_of(_parts(PeVLConfig(**alone, fusion="concat", pose_input=pose_input)))


@cache
def _whole_pevl(clip: str) -> Cost:
    return sum_of(_parts(PeVLConfig(clip=clip)))


@cache
def _aim(clip: str) -> Cost:
    """AIM's encoder: a temporal adapter too, and no projection."""
    adapted: dict[str, Any] = {"encoders": ("video",), "adapters": ("video",), "p2v": "off", "v2p": False}
    return _parts(PeVLConfig(clip=clip, video_temporal=True, **adapted), num_frames=32)["video_encoder"].cost


def _parts(config: PeVLConfig, num_frames: int = 16) -> Mapping[str, Any]:
    """For 17 joints and the 48 classes of Diving48."""
    return pevl_parts(config, num_frames=num_frames, num_classes=48, num_joints=17, clip=clip_shape(config.clip))


MODELS: dict[str, dict[str, tuple[str, Callable[[], Cost]]]] = {
    "cmdcl": {
        "CMDCL": ("sum", partial(_causal, "cmdcl")),
        "BIKE": ("", text4vis),
        "Text4Vis": ("", text4vis),
    },
    "pcmci": {"PCMCI": ("sum", partial(_causal, "pcmci"))},
    "pevl": {
        "AIM ViT-B/16": ("", partial(_aim, _B16)),
        "AIM ViT-L/14": ("", partial(_aim, _L14)),
        "PeVL ViT-B/16": ("sum", partial(_whole_pevl, _B16)),
        "PeVL ViT-L/14": ("sum", partial(_whole_pevl, _L14)),
        "V encoder": ("video_encoder", partial(_pevl, "video")),
        "P encoder": ("pose_encoder", partial(_pevl, "pose")),
        "V+P encoders": ("", partial(_pevl, "video", "pose")),
        "V+T encoders": ("", partial(_pevl, "video", "text")),
        "P+T encoders": ("", partial(_pevl, "pose", "text")),
        "V+P+T encoders": ("", partial(_pevl, "video", "pose", "text")),
        "PeVL": ("sum", partial(_whole_pevl, _B16)),
        "P encoder, Heatmaps": ("", partial(_pevl, "pose", pose_input="heatmaps")),
        "P encoder, Coordinates": ("", partial(_pevl, "pose")),
    },
}
"""Rows of the papers' tables, what of our model each stands beside, and how it is counted."""
