"""The papers' ablation tables as data: which keys each row sets, and where its printed figures stand.

The decision to question: a table names every key that any of its rows changes, with the full model's value, and a row
says only what differs from that. So a row is what its label says on any recipe, also on one that has a part switched
off. Rows without printed figures stand where a paper asks the question and prints no table.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cache.errors import ConfigError
from evaluate.paper import PaperResult, printed


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table.

    Attributes:
        label: the run's variant, and with letters and digits alone its folder.
        changes: keys under [train] that differ from the full model.
        figures: (table, method, settings) of its row in `paper_results.csv`; None where the paper prints none.
    """

    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[str, str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One table.

    Attributes:
        name: what `--table` takes.
        title: what is varied.
        method: of the recipes that it fits.
        recipe: the paper's.
        full: the full model's values of all keys under [train] that a row changes.
        rows: from top to bottom.
    """

    name: str
    title: str
    method: str
    recipe: str
    full: Mapping[str, Any]
    rows: Sequence[Row]

    @property
    def paper(self) -> str:
        """The paper's name of the method, as in `paper_results.csv`."""
        return {"cmdcl": "CMDCL", "pcmci": "PCMCI", "pevl": "PeVL"}[self.method]

    def settings(self, row: Row) -> dict[str, Any]:
        """All keys that the table sets, with their values in a row."""
        return {**self.full, **row.changes}

    def figures(self, row: Row) -> tuple[PaperResult, ...]:
        """What the paper prints for a row: accuracies and mAP, costs left out."""
        if row.figures is None:
            return ()
        table, method, settings = row.figures
        found = printed(paper=self.paper, table=table, method=method, settings=settings)
        return tuple(figure for figure in found if figure.metrics("single") or figure.metrics("multi"))


def find_ablation(name: str) -> Ablation:
    """The table of that name.

    Raises:
        ConfigError: there is none; lists all of them.
    """
    if name in ABLATIONS:
        return ABLATIONS[name]
    nearest = difflib.get_close_matches(name, ABLATIONS, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    listing = "".join(f"\n  {table.name:18} {table.title} ({table.recipe})" for table in ABLATIONS.values())
    raise ConfigError(f"no table {name!r}; {hint}there are, each with the paper's recipe:{listing}")


def _cmdcl(name: str, title: str, full: Mapping[str, Any], *rows: Row) -> Ablation:
    return Ablation(name=name, title=title, method="cmdcl", recipe="cmdcl-breakfast-activity", full=full, rows=rows)


def _pcmci(name: str, title: str, full: Mapping[str, Any], *rows: Row) -> Ablation:
    return Ablation(name=name, title=title, method="pcmci", recipe="pcmci-breakfast-activity", full=full, rows=rows)


def _pevl(name: str, title: str, full: Mapping[str, Any], *rows: Row) -> Ablation:
    return Ablation(name=name, title=title, method="pevl", recipe="pevl-diving48-b16", full=full, rows=rows)


def _stages(label: str, *stages: str, method: str | None = None) -> Row:
    """A row of PCMCI's stages; `method` is the paper's name of it where it is printed."""
    switches = "; ".join(f"{stage}={str(stage in stages).lower()}" for stage in ("ich", "ici", "ivc"))
    return Row(label=label, changes={"pcmci.stages": stages}, figures=("stages", method, switches) if method else None)


def _order(*stages: str) -> Row:
    order = ",".join(stages)
    label = f"order: {', '.join(stages)}"
    return Row(label=label, changes={"pcmci.stages": stages}, figures=("order", "PCMCI", f"order={order}"))


def _adapters(*encoders: str) -> Row:
    switches = "; ".join(f"adapters_{name}={str(name in encoders).lower()}" for name in _ENCODERS)
    label = f"adapters: {' + '.join(encoders) or 'none'}"
    changes = {"pevl.adapters": encoders} if encoders else _FROZEN
    return Row(label=label, changes=changes, figures=("8", "PeVL", switches))


def _similarities(*names: str) -> Row:
    switches = "; ".join(f"s_{name}={str(name in names).lower()}" for name in ("ps", "vs", "fw"))
    label = f"similarities: {' + '.join(names)}"
    return Row(label=label, changes={"pevl.similarities": names}, figures=("6", "PeVL", switches))


def _encoders(label: str, frames: str, *encoders: str) -> Row:
    """A row of Table 7: features of the encoders joined, nothing else of PeVL."""
    changes = {"pevl.encoders": encoders, "pevl.adapters": encoders, **_PLAIN}
    return Row(label=label, changes=changes, figures=("7", label, f"frames={frames}"))


_ENCODERS = ("video", "pose", "text")
_FROZEN: Mapping[str, Any] = {"pevl.adapters": (), "pevl.cache_tokens": False}
"""Without adapters, and like all other rows on augmented frames: cached tokens have no augmentation."""
_NO_UCMR: Mapping[str, Any] = {"pevl.p2v": "off", "pevl.v2p": False}
_NO_SGMC: Mapping[str, Any] = {"pevl.fusion": "concat", "pevl.strengths": "uniform"}
_PLAIN: Mapping[str, Any] = {**_NO_UCMR, **_NO_SGMC}
"""PeVL before its two modules: joined features and the vanilla contrastive loss with sentences."""
_UCMR: Mapping[str, Any] = {"pevl.p2v": "key", "pevl.v2p": True}
_SGMC: Mapping[str, Any] = {"pevl.fusion": "sgmc", "pevl.strengths": "semantic"}
_WHOLE: Mapping[str, Any] = {"pevl.encoders": _ENCODERS, "pevl.adapters": _ENCODERS, **_UCMR, **_SGMC}

_TABLES = (
    _cmdcl(
        "cmdcl-3",
        "Table 3: textual (tci) and visual (vci) intervention",
        {"cmdcl.tci": True, "cmdcl.vci": True},
        Row(
            label="Variant 1: none",
            changes={"cmdcl.tci": False, "cmdcl.vci": False},
            figures=("3", "Variant 1", "tci=false; vci=false"),
        ),
        Row(label="Variant 2: TCI", changes={"cmdcl.vci": False}, figures=("3", "Variant 2", "tci=true; vci=false")),
        Row(label="Variant 3: VCI", changes={"cmdcl.tci": False}, figures=("3", "Variant 3", "tci=false; vci=true")),
        Row(label="CMDCL", figures=("3", "CMDCL", "tci=true; vci=true")),
    ),
    _cmdcl(
        "cmdcl-fig7a",
        "Fig. 7a: temporal layers H",
        {"cmdcl.sta_layers": 6},
        *(
            Row(
                label=f"H = {count}",
                changes={"cmdcl.sta_layers": count},
                figures=("fig7a", "CMDCL", f"sta_layers={count}"),
            )
            for count in (0, 2, 4, 6, 8, 10)
        ),
    ),
    _cmdcl(
        "cmdcl-fig7b",
        "Fig. 7b: frames L, at most those of the cache",
        {"num_frames": 64},
        *(
            Row(label=f"L = {count}", changes={"num_frames": count}, figures=("fig7b", "CMDCL", f"frames={count}"))
            for count in (8, 16, 32, 64)
        ),
    ),
    _pcmci(
        "pcmci-stages",
        "which of the three interventions",
        {"pcmci.stages": ("ich", "ici", "ivc")},
        _stages("Variant 1: none", method="Variant 1"),
        _stages("Variant 2: ich", "ich", method="Variant 2"),
        _stages("Variant 3: ici", "ici"),
        _stages("Variant 4: ich, ici", "ich", "ici", method="Variant 4"),
        _stages("Variant 5: ivc", "ivc", method="Variant 5"),
        _stages("PCMCI", "ich", "ici", "ivc", method="PCMCI"),
    ),
    _pcmci(
        "pcmci-order",
        "order of the interventions",
        {"pcmci.stages": ("ich", "ici", "ivc")},
        _order("ivc", "ich", "ici"),
        _order("ici", "ich", "ivc"),
        _order("ich", "ici", "ivc"),
    ),
    _pcmci(
        "pcmci-bases",
        "relation bases K",
        {"pcmci.bases": 8},
        *(Row(label=f"K = {count}", changes={"pcmci.bases": count}) for count in (1, 2, 4, 8, 16)),
    ),
    _pcmci(
        "pcmci-aggregation",
        "how relations are joined",
        {"pcmci.ici_agg": "concat"},
        *(Row(label=f"aggregation: {name}", changes={"pcmci.ici_agg": name}) for name in ("concat", "sum", "hadamard")),
    ),
    _pcmci(
        "pcmci-mediator",
        "the mediator of the front door",
        {"pcmci.mediator": "text"},
        *(
            Row(label=f"mediator: {name}", changes={"pcmci.mediator": name})
            for name in ("text", "memory", "multiscale")
        ),
    ),
    _pcmci(
        "pcmci-alignment",
        "weight of the loss that aligns relation graphs",
        {"pcmci.ivc_align": 0.0},
        *(Row(label=f"alignment: {weight:g}", changes={"pcmci.ivc_align": weight}) for weight in (0.0, 0.1, 1.0)),
    ),
    _pevl(
        "pevl-4",
        "Table 4: from the frozen baseline to PeVL, part by part",
        {**_WHOLE, "pevl.cache_tokens": True},
        Row(
            label="Baseline",
            changes={"pevl.encoders": ("video", "text"), **_FROZEN, **_PLAIN},
            figures=("4", "Baseline", "modality=v,t"),
        ),
        Row(label="+ Pose", changes={**_FROZEN, **_PLAIN}, figures=("4", "+ Pose", "modality=v,p,t")),
        Row(label="+ Adapters", changes=_PLAIN, figures=("4", "+ Adapters", "modality=v,p,t")),
        Row(label="+ UCMR Block", changes=_NO_SGMC, figures=("4", "+ UCMR Block", "modality=v,p,t")),
        Row(label="+ SGMC Module", figures=("4", "+ SGMC Module", "modality=v,p,t")),
    ),
    _pevl(
        "pevl-5",
        "Table 5: parts of the UCMR block",
        {**_UCMR, "pevl.lambda_r": 0.1},
        Row(label="PeVL", figures=("5", "PeVL", "")),
        Row(label="w/o UCMR Block", changes=_NO_UCMR, figures=("5", "w/o UCMR Block", "")),
        Row(label="w/o P2V", changes={"pevl.p2v": "off"}, figures=("5", "w/o P2V", "")),
        Row(label="w/o V2P", changes={"pevl.v2p": False}, figures=("5", "w/o V2P", "")),
        Row(
            label="w/o Refinement Supervision",
            changes={"pevl.lambda_r": 0.0},
            figures=("5", "w/o Refinement Supervision", ""),
        ),
    ),
    _pevl(
        "pevl-6",
        "Table 6: similarities",
        {"pevl.similarities": ("vs", "ps", "fw")},
        _similarities("ps"),
        _similarities("vs"),
        _similarities("fw"),
        _similarities("vs", "fw"),
        _similarities("vs", "ps"),
        _similarities("ps", "fw"),
        _similarities("vs", "ps", "fw"),
    ),
    _pevl(
        "pevl-7",
        "Table 7: encoders; without text, a linear classifier",
        _WHOLE,
        _encoders("V encoder", "16", "video"),
        _encoders("P encoder", "48", "pose"),
        _encoders("V+P encoders", "16+48", "video", "pose"),
        _encoders("V+T encoders", "16", "video", "text"),
        _encoders("P+T encoders", "48", "pose", "text"),
        _encoders("V+P+T encoders", "16+48", "video", "pose", "text"),
        Row(label="PeVL", figures=("7", "PeVL", "frames=16+48")),
    ),
    _pevl(
        "pevl-8",
        "Table 8: encoders that have adapters",
        {"pevl.adapters": _ENCODERS, "pevl.cache_tokens": True},
        _adapters(),
        _adapters("video"),
        _adapters("pose"),
        _adapters("text"),
        _adapters("video", "pose"),
        _adapters("video", "pose", "text"),
    ),
    _pevl(
        "pevl-9",
        "Table 9: what the pose encoder reads, alone",
        {**_WHOLE, "pevl.pose_input": "coordinates"},
        *(
            Row(
                label=name,
                changes={
                    "pevl.encoders": ("pose",),
                    "pevl.adapters": ("pose",),
                    **_PLAIN,
                    "pevl.pose_input": name.lower(),
                },
                figures=("9", f"P encoder, {name}", ""),
            )
            for name in ("Heatmaps", "Coordinates")
        ),
    ),
    _pevl(
        "pevl-strengths",
        "section 4.3.3: strengths of negatives in the contrastive loss",
        {"pevl.strengths": "semantic"},
        Row(
            label="strengths: uniform",
            changes={"pevl.strengths": "uniform"},
            figures=("text4.3.3", "PeVL, vanilla contrastive loss (strengths 1)", ""),
        ),
        Row(label="strengths: semantic", figures=("1", "PeVL ViT-B/16", "frames=16+48")),
    ),
)
ABLATIONS: Mapping[str, Ablation] = {table.name: table for table in _TABLES}
"""All tables by name."""
