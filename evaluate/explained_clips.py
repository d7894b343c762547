"""One explained clip as blocks of a page: its frames under maps, and which frames and words its classes weigh.

The decision to question: of the classes that have maps of their own, two are laid over frames, the first true one and
the best that is not true. What the model took for one and not for the other is the picture that the papers argue with.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.explanation import Explanation, FrameWords
from evaluate.heatmaps import Panel, heat_panels
from evaluate.overlays import strip
from evaluate.page import Page

Floats = npt.NDArray[np.floating]
MOST_ROWS = 16
"""Classes in one matrix."""
_MOST_PICTURES, _MOST_COLUMNS = 8, 16


def legend(explanation: Explanation) -> list[str]:
    """How the pictures of all clips are made, a sentence each for those that there are."""
    parts, lines = explanation.interventions, []
    if explanation.patches is not None:
        lines += [
            "Attention: how much the class token of the video encoder's last block reads of each patch, mean over "
            "heads (as CMDCL, Fig. 5a-b). Runs with the same frozen encoder have the same.",
            "Evidence: what each patch adds to a class's logit over the clip's mean patch, through the video encoder "
            "alone, to first order (gradient times token); what lowers the logit is left out.",
        ]
    if explanation.pose is not None and explanation.pose.mask is not None:
        lines.append("Mask: the weights of the joints in the patches that they fall into, M of PeVL's Eq. 1.")
    if explanation.pictures:
        lines.append("Every map has its own scale; the strongest 2 % of its patches have the full colour.")
    if parts is not None and parts.back_door is not None:
        plan = "C times ICH's transport plan, in which every frame gives all classes together the same"
        weights = plan if parts.is_plan else "how a text weighs frames, S of TCI or of SEE"
        lines.append(f"Back door: {weights}; rows sum to 1.")
    if parts is not None and parts.front_door is not None:
        lines.append(
            "Front door: how a class gathers frames, VCI's S^F averaged over its coordinates or IVC's attention "
            "averaged over its bases; rows sum to 1. An average can be even where single coordinates are not."
        )
    if explanation.frame_words is not None:
        lines.append(
            "Words: cosine of a prompt's words with pose frames, A of PeVL's frame-word similarity; below 0 as 0."
        )
    return lines


def add_clip(page: Page, explanation: Explanation, number: int, clip: Mapping[str, Any]) -> None:
    """Adds a clip; `clip` is its entry in the document."""
    page.heading(clip["id"])
    page.paragraph(f"True: {', '.join(clip['true']) or 'none'}. Predicted: {', '.join(clip['predicted'])}.")
    if explanation.pictures:
        _pictures(page, explanation, number, clip)
    if explanation.interventions is not None:
        _weights(page, explanation, number, clip["seconds"])
    if explanation.frame_words is not None:
        _words(page, explanation.frame_words, explanation, number)


def _pictures(page: Page, explanation: Explanation, number: int, clip: Mapping[str, Any]) -> None:
    seconds = clip["seconds"]
    at = np.unique(np.linspace(0, len(seconds) - 1, _MOST_PICTURES).round().astype(int))
    maps, told = [], []
    for values, text in _maps(explanation, number):
        maps.append(values[at])
        told.append(text)
    pose = explanation.pose
    dots = {} if pose is None else {"joints": pose.joints[number, at], "joint_weights": pose.joint_weights[number, at]}
    pictures = explanation.clip_pictures(number)
    times = ", ".join(f"{seconds[place]:.1f}" for place in at)
    dotted = " with joints, larger dots for larger weights" if dots else ""
    below = "".join(f"; row {line}: {text}" for line, text in enumerate(told, 2))
    page.image(
        strip([pictures[place] for place in at], maps, **dots),
        caption=f"Row 1: frames at {times} s{dotted}{below}.",
        alt=f"{len(at)} frames of {clip['id']} and {len(maps)} maps laid over them",
        wide=True,
    )


def _maps(explanation: Explanation, number: int) -> Iterator[tuple[Floats, str]]:
    """(L, P) maps over a clip's frames, with what they are."""
    if explanation.patches is not None:
        yield explanation.patches.attention[number], "attention"
        for place in _contrasted(explanation, number):
            column = explanation.shown[number, place]
            kind = "true" if explanation.targets[number, column] else "not true"
            yield (
                explanation.patches.evidence[number, place],
                f"evidence for {explanation.class_names[column]} ({kind})",
            )
    if explanation.pose is not None and explanation.pose.mask is not None:
        yield explanation.pose.mask[number], "mask"


def _contrasted(explanation: Explanation, number: int) -> list[int]:
    """Places among the shown classes: the first true one and the best that is not true."""
    true = explanation.targets[number, explanation.shown[number]] > 0
    return [*np.flatnonzero(true)[:1].tolist(), *np.flatnonzero(~true)[:1].tolist()]


def _weights(page: Page, explanation: Explanation, number: int, seconds: Sequence[float]) -> None:
    parts = explanation.interventions
    given = {} if parts is None else {"back door": parts.back_door, "front door": parts.front_door}
    found = {title: weights[number] for title, weights in given.items() if weights is not None}
    if not found:
        return
    rows = _rows(explanation, number)
    groups = np.array_split(np.arange(len(seconds)), min(_MOST_COLUMNS, len(seconds)))
    panels = [
        Panel(title=title, values=np.stack([weights[rows][:, group].sum(axis=1) for group in groups], axis=1))
        for title, weights in found.items()
    ]
    svg = heat_panels(
        panels,
        rows=[explanation.class_names[row] for row in rows],
        columns=[f"{seconds[group[0]]:.1f}" for group in groups],
        marked=[place for place, row in enumerate(rows) if explanation.targets[number, row]],
        per_line=len(panels),
        x_label="seconds",
        full=1.0,
    )
    together = " Neighbouring frames are added up." if len(groups) < len(seconds) else ""
    page.figure(svg, caption=f"Which frames each class weighs (● true classes).{together}")


def _rows(explanation: Explanation, number: int) -> list[int]:
    """Classes in their order: all, or the true ones and those of highest logit."""
    order = np.argsort(-explanation.logits[number] - 1e6 * (explanation.targets[number] > 0), kind="stable")
    return sorted(order[:MOST_ROWS].tolist())


def _words(page: Page, words: FrameWords, explanation: Explanation, number: int) -> None:
    seconds = words.pose_seconds[number]
    groups = np.array_split(np.arange(len(seconds)), min(_MOST_COLUMNS, len(seconds)))
    names: list[str] = []
    lines: list[list[float]] = []
    marked: list[int] = []
    for place in _contrasted(explanation, number):
        column = int(explanation.shown[number, place])
        for position, word in enumerate(words.words[column]):
            if explanation.targets[number, column]:
                marked.append(len(names))
            names.append(f"{explanation.class_names[column]}: {word}")
            lines.append([words.cosines[number, place, group, position].mean().item() for group in groups])
    svg = heat_panels(
        [Panel(title="", values=np.clip(np.array(lines), 0, None))],
        rows=names,
        columns=[f"{seconds[group[0]]:.1f}" for group in groups],
        marked=marked,
        x_label="seconds",
        letters=40,
    )
    page.figure(svg, caption="Words and pose frames, for the true class (●) and the best other one.")
