"""What runs did inside, as blocks of a page: the pictures of CMDCL's Fig. 1c and 5, and their like for PCMCI and PeVL.

Numbers come from the document (`evaluate.explained`), maps and frames from the stored explanations. Every caption says
how its picture was made: the papers print such pictures without a rule, and a picture without one proves nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.explanation import MATCHING_STAGES, Explanation
from cache.run import Run
from evaluate.explained_clips import MOST_ROWS, add_clip, legend
from evaluate.figures import class_bars
from evaluate.heatmaps import Panel, heat_panels
from evaluate.page import Page
from evaluate.tables import percent

Floats = npt.NDArray[np.floating]
_MOST_CLIPS, _FEWEST_CLIPS = 24, 2  # on a page; of one split
_STAGE_NAMES = {
    "cached": "CLIP's own text",
    "trained": "the text after training, T",
    "corrected": "the corrected text of each clip",
}


def add_explanations(page: Page, runs: Sequence[Run], summary: Sequence[Mapping[str, Any]]) -> None:
    """Adds a section on the runs that have explanations; nothing where none has.

    Args:
        page: it grows by a section.
        runs: opened run directories.
        summary: the document's `runs`, in the same order.
    """
    if not any(body["explained"] for body in summary):
        return
    page.section("Inside the runs")
    page.paragraph(
        "What the weights did with a few clips of each split, as predict --explain stored it. Unless they were named, "
        "clips are spread over the split, not picked by how well they went, and are the same for all runs of a task."
    )
    _table(page, summary)
    parts = sum(len(body["explained"]) for body in summary)
    most_clips = max(_FEWEST_CLIPS, _MOST_CLIPS // parts)
    for run, body in zip(runs, summary, strict=True):
        for split, numbers in body["explained"].items():
            page.heading(f"{body['label']} on {split}")
            if not numbers["is_current"]:
                page.note(
                    "The stored explanation is of other weights than the predictions, and is not shown: run "
                    "deconfound predict --explain again.",
                    kind="warning",
                )
                continue
            explanation = run.explanation(split)
            assert explanation is not None
            _one_split(page, explanation, numbers, most_clips=most_clips)


def _table(page: Page, summary: Sequence[Mapping[str, Any]]) -> None:
    """Frames used and matching, for runs that have interventions."""
    rows = [
        [body["label"], split, *_used_cells(numbers), *_own_cells(numbers)]
        for body in summary
        for split, numbers in body["explained"].items()
        if numbers["is_current"] and numbers["matching"] is not None
    ]
    if rows:
        page.table(
            ["run", "split", "back door", "front door", "frames", "CLIP's text", "T", "corrected"],
            rows,
            caption="Back door, front door: frames that a class uses, of those that there are: the exponential of the "
            "entropy of its weights, mean over the true classes of the explained clips; 1 is a single frame. Last "
            "three columns: how much of CLIP's matching probability, in percent, falls on the classes that a clip has, "
            "with CLIP's own text, T after training and the corrected text; mean over all clips of the split.",
        )


def _used_cells(numbers: Mapping[str, Any]) -> list[str]:
    used = [numbers["frames_used"][name] for name in ("back_door", "front_door")]
    return [*("–" if value is None else f"{value:.1f}" for value in used), str(numbers["frames"])]


def _own_cells(numbers: Mapping[str, Any]) -> list[str]:
    own = numbers["matching"]["on_own"]
    return [percent(None if own is None else own[stage]) for stage in MATCHING_STAGES]


def _one_split(page: Page, explanation: Explanation, numbers: Mapping[str, Any], *, most_clips: int) -> None:
    for notice in numbers["notices"]:
        page.note(notice)
    parts = explanation.interventions
    if numbers["matching"] is not None:
        corrects = parts is not None and bool((parts.corrected_text != parts.text).any())
        _matching(page, numbers["matching"], MATCHING_STAGES if corrects else MATCHING_STAGES[:2])
    if parts is not None and parts.relation_graphs is not None:
        _relations(page, parts.relation_graphs, explanation)
    if numbers["joints"] is not None:
        ordered = dict(sorted(numbers["joints"].items(), key=lambda item: -item[1]))
        page.figure(
            class_bars({name: 100 * share for name, share in ordered.items()}, x_label="share of a frame's weight, %"),
            caption="Joint weights (PeVL, w): how much the class token of the pose encoder's last block reads of each "
            "joint, as a share of all joints of the frame, mean over the explained clips.",
        )
    count = min(most_clips, len(numbers["clips"]))
    rest = len(numbers["clips"]) - count
    others = f" ({rest} more in the run's explanations folder)" if rest else ""
    with page.folded(f"{count} clip{'' if count == 1 else 's'}: frames, maps and weights{others}"):
        page.bullets(legend(explanation))
        for number, clip in enumerate(numbers["clips"][:count]):
            add_clip(page, explanation, number, clip)


def _matching(page: Page, matching: Mapping[str, Any], stages: Sequence[str]) -> None:
    rows = [f"{name} ({count})" for name, count in zip(matching["rows"], matching["counts"], strict=True)]
    panels = [
        Panel(title=f"with {_STAGE_NAMES[stage]}", values=np.array(matching["probabilities"][stage]))
        for stage in stages
    ]
    svg = heat_panels(panels, rows=rows, columns=matching["classes"], x_label="class whose text is matched")
    where = (
        f"the clips of each class of task {matching['row_task']} (their number)"
        if matching["row_task"]
        else "all clips"
    )
    page.figure(
        svg,
        caption="Matching probability before and after the intervention (as CMDCL, Fig. 1c and 5c): softmax over the "
        f"class texts of cosine / {matching['temperature']:g} between CLIP's embedding of a frame and the texts, mean "
        f"over frames, then over {where}. Nothing trains the corrected text to be matched so: the picture says which "
        "texts have come nearer to which frames.",
    )


def _relations(page: Page, graphs: Floats, explanation: Explanation) -> None:
    """G_k averaged over clips, among the classes that are read most."""
    mean = graphs.astype(np.float64).mean(axis=0)  # (K, C, C)
    chosen = np.sort(np.argsort(-mean.sum(axis=(0, 1)), kind="stable")[:MOST_ROWS])
    names = [explanation.class_names[number] for number in chosen]
    panels = [
        Panel(title=f"basis {number}", values=graph[np.ix_(chosen, chosen)]) for number, graph in enumerate(mean, 1)
    ]
    page.figure(
        heat_panels(panels, rows=names, columns=names, per_line=4, x_label="class that is read"),
        caption="Relation bases G_k (PCMCI, ICI, last layer): how much the text of a row's class reads of each "
        f"column's, mean over the explained clips; rows sum to 1 over all {len(explanation.class_names)} classes.",
    )
