"""What a trained run did inside for a few clips of one split: weights, maps and masks, for whoever wants to see them.

`deconfound predict --explain` makes it, `evaluate` draws it. The decision to question: pictures are kept here as small
JPEGs, of the very view that the model saw, so that a run folder shows itself also where the cache has moved, and a map
can never be laid over another crop.

Every array says its axes once, in its field; sizes must agree over the whole explanation. Axis letters: m clips
explained, C classes, k classes shown per clip, L frames used, D joint width, P patches, J joints, T pose frames,
K bases, W words of the longest prompt, R rows of the matching, S its stages.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import numpy as np
import numpy.typing as npt

from cache.manifest import TaskKind

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]
MATCHING_STAGES = ("cached", "trained", "corrected")
"""The texts of a matching: CLIP's own from the cache, T after training, and T' (or T*) of each clip."""
_ROW_ERROR = 1e-2  # of rows that must sum to 1: some arrays are stored as float16


@dataclass(frozen=True)
class Axes:
    """What an array field holds: its axes in letters, and how it is stored."""

    letters: str
    dtype: str = "float32"
    rows_sum_to_one: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """One letter an axis."""
        return tuple(self.letters.split())


@dataclass(frozen=True, kw_only=True)
class Interventions:
    """What CMDCL's or PCMCI's interventions did."""

    cached_text: Annotated[Floats, Axes("C D")]
    """CLIP's own text embeddings, of length 1."""
    text: Annotated[Floats, Axes("C D")]
    """T after training."""
    corrected_text: Annotated[Floats, Axes("m C D")]
    """What asks the frames: T' or T* of each clip; T itself where no stage corrects it."""
    visual_prompts: Annotated[Floats, Axes("m L D")]
    """V_P, of length 1."""
    back_door: Annotated[Floats | None, Axes("m C L", rows_sum_to_one=True)] = None
    """How each class's text weighs frames: S of TCI or of evidence, or ICH's plan times C."""
    is_plan: bool = False
    """Whether `back_door` is of a transport plan."""
    front_door: Annotated[Floats | None, Axes("m C L", rows_sum_to_one=True)] = None
    """How each class gathers frames: VCI's S^F averaged over D, or IVC's attention averaged over K."""
    relation_graphs: Annotated[Floats | None, Axes("m K C C", "float16", rows_sum_to_one=True)] = None
    """G_k of ICI's last layer."""


@dataclass(frozen=True, kw_only=True)
class PatchMaps:
    """Where on the frames the video encoder of CMDCL or PCMCI looks, and what its heads take from there."""

    attention: Annotated[Floats, Axes("m L P")]
    """How much the class token of the TimeSformer's last block reads of each patch, mean over heads."""
    evidence: Annotated[Floats, Axes("m k L P")]
    """What each patch adds to the logit of each shown class over the clip's mean patch, to first order."""


@dataclass(frozen=True, kw_only=True)
class Matching:
    """How CLIP matches frames with class texts, over every clip of the split and not only the explained ones.

    A frame's probabilities are the softmax over the C texts of its cosines / temperature; a clip's are their mean over
    its L frames, and a row's their mean over its clips. Stages are MATCHING_STAGES.
    """

    rows: tuple[str, ...]
    """Names of the R classes of `row_task`, as the clips are labelled; one row "all clips" where there is no label."""
    row_task: str
    counts: Annotated[Integers, Axes("R", "int64")]
    """Clips of each row."""
    probabilities: Annotated[Floats, Axes("S R C")]
    on_own: Annotated[Floats | None, Axes("S")] = None
    """Probability that falls on a clip's own classes of the run's task, mean over clips that have any; None: none."""
    temperature: float


@dataclass(frozen=True, kw_only=True)
class PoseMask:
    """Where PeVL's joints send the video encoder, in the frames that video and pose share."""

    joint_names: tuple[str, ...]
    joints: Annotated[Floats, Axes("m L J 3")]
    """x and y as shares of the picture's side, and score; all 0 where a joint is missing."""
    joint_weights: Annotated[Floats, Axes("m L J")]
    """w: how much the pose encoder's class token reads of each joint."""
    mask: Annotated[Floats | None, Axes("m L P")] = None
    """M; a frame sums to 1, or to 0 where no joint is in it. None where pose-to-video attention is off."""


@dataclass(frozen=True, kw_only=True)
class FrameWords:
    """PeVL's association of pose frames with the words of the shown classes' prompts."""

    pose_seconds: Annotated[Floats, Axes("m T", "float64")]
    words: tuple[tuple[str, ...], ...]
    """Words of every class's prompt, as the tokenizer cuts them."""
    cosines: Annotated[Floats, Axes("m k T W")]
    """A of each shown class; 0 behind a prompt's last word."""


_PARTS: Mapping[str, type[Any]] = {
    "interventions": Interventions,
    "patches": PatchMaps,
    "matching": Matching,
    "pose": PoseMask,
    "frame_words": FrameWords,
}
"""Field of Explanation -> its class."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """m clips of one split of one run."""

    method: str
    task: str
    kind: TaskKind
    dataset: str
    protocol: str
    split: str
    run_name: str
    clip_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    logits: Annotated[Floats, Axes("m C")]
    """Those of the weights that were explained: they must be those of the predictions."""
    targets: Annotated[Integers, Axes("m C", "uint8")]
    shown: Annotated[Integers, Axes("m k", "int64")]
    """Classes that have maps of their own: true ones first, then the best others."""
    pts_seconds: Annotated[Floats, Axes("m L", "float64")]
    frame_index: Annotated[Integers, Axes("m L", "int64")]
    """Index of each frame in its video, in display order."""
    pictures: tuple[bytes, ...] = ()
    """m * L JPEGs, a clip's together, of the view that the model saw; empty where there are none."""
    notices: tuple[str, ...] = ()
    """What is missing and why, and what a reader of the run must be told."""
    interventions: Interventions | None = None
    patches: PatchMaps | None = None
    matching: Matching | None = None
    pose: PoseMask | None = None
    frame_words: FrameWords | None = None

    def __post_init__(self) -> None:
        known = {"m": len(self.clip_ids), "C": len(self.class_names), "S": len(MATCHING_STAGES), "3": 3}
        if self.matching is not None:
            known["R"] = len(self.matching.rows)
        if self.pose is not None:
            known["J"] = len(self.pose.joint_names)
        for name, axes, array in arrays_of(self):
            _check_array(name, array, axes, known)
        if len(self.pictures) not in (0, self.pts_seconds.size):
            raise ValueError(
                f"{len(self.pictures)} pictures for {self.pts_seconds.size} frames: give one each, or none"
            )
        if self.shown.size and not 0 <= self.shown.min() <= self.shown.max() < known["C"]:
            raise ValueError(f"shown classes lie outside 0..{known['C'] - 1}")
        if self.frame_words is not None and len(self.frame_words.words) != known["C"]:
            raise ValueError(f"words of {len(self.frame_words.words)} prompts for {known['C']} classes")

    def __repr__(self) -> str:
        parts = ", ".join(name for name in _PARTS if getattr(self, name) is not None)
        return f"Explanation({self.run_name!r}, split={self.split!r}, m={len(self.clip_ids)}, {parts})"

    def clip_pictures(self, number: int) -> tuple[bytes, ...]:
        """The L JPEGs of one clip; none where there are none."""
        num_frames = self.pts_seconds.shape[1]
        return self.pictures[number * num_frames : (number + 1) * num_frames]


def array_fields(kind: type[Any]) -> Mapping[str, Axes]:
    """The fields of an explanation or of one of its parts that hold arrays."""
    hints = get_type_hints(kind, include_extras=True)
    found = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: extras[0] for name, extras in found.items() if extras}


def arrays_of(explanation: Explanation) -> Iterator[tuple[str, Axes, npt.NDArray[Any]]]:
    """(name, axes, array) of every array that is there; those of a part as `<part>.<field>`."""
    for prefix, owner in (("", explanation), *((f"{name}.", getattr(explanation, name)) for name in _PARTS)):
        for name, axes in array_fields(type(owner)).items() if owner is not None else ():
            array = getattr(owner, name)
            if array is not None:
                yield prefix + name, axes, array


def part_types() -> Mapping[str, type[Any]]:
    """Field of Explanation -> the class of the part that it holds."""
    return _PARTS


def _check_array(name: str, array: npt.NDArray[Any], axes: Axes, known: dict[str, int]) -> None:
    """Refuses other axes, NaN, and weights that are none; learns the sizes of axes on the way."""
    expected = f"({axes.letters.replace(' ', ', ')})"
    if array.ndim != len(axes.names):
        raise ValueError(f"{name} has shape {array.shape}, expected {expected}")
    for letter, size in zip(axes.names, array.shape, strict=True):
        if known.setdefault(letter, size) != size:
            raise ValueError(f"{name} has shape {array.shape}, expected {expected} with {letter} = {known[letter]}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity")
    if axes.rows_sum_to_one:
        sums = array.sum(axis=-1, dtype=np.float64)
        if (array < 0).any() or (np.abs(sums - 1) > _ROW_ERROR).any():
            raise ValueError(f"rows of {name} must be weights that sum to 1; sums lie in {sums.min()}..{sums.max()}")
