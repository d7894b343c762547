"""How a method's own explainer and the file that puts explanations together speak with each other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cache.explanation import FrameWords, Interventions, Matching, PatchMaps, PoseMask

Array = npt.NDArray[Any]
Classes = npt.NDArray[np.int64]
Labels = npt.NDArray[np.uint8]
BatchT_contra = TypeVar("BatchT_contra", contravariant=True)
SeenT = TypeVar("SeenT", bound="SeenClip")


@dataclass(frozen=True, kw_only=True)
class SeenClip:
    """What every method knows of one clip."""

    logits: Tensor
    """(C,)."""
    shown: Classes
    """(k,)."""
    pictures: list[bytes]
    """L JPEGs, or none."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of `cache.explanation.Explanation` about m clips, and what is missing of them."""

    notices: tuple[str, ...] = ()
    interventions: Interventions | None = None
    patches: PatchMaps | None = None
    matching: Matching | None = None
    pose: PoseMask | None = None
    frame_words: FrameWords | None = None


class Explainer(Protocol[BatchT_contra, SeenT]):
    """A trained model with what it takes to look inside."""

    def see(self, clip_id: str, batch: BatchT_contra, targets: Labels) -> SeenT:
        """One clip, a batch of its own in the test view. targets: (C,), 1 at true classes."""
        ...

    def times(self, clip_id: str) -> tuple[Array, Array]:
        """(L,) seconds of the frames used, and (L,) their indices in the video."""
        ...

    def parts(self, split: str, clip_ids: Sequence[str], seen: Sequence[SeenT]) -> Parts:
        """The parts about these clips of a split."""
        ...


def stacked(arrays: Iterable[Tensor | Array]) -> Array:
    """One array per clip to (m, ...)."""
    return np.stack([row.detach().cpu().numpy() if isinstance(row, Tensor) else row for row in arrays])


def stacked_or_none(arrays: Iterable[Tensor | None]) -> Array | None:
    """The same where clips may have none; then none of them has."""
    rows = list(arrays)
    present = [row for row in rows if row is not None]
    assert len(present) in (0, len(rows))
    return stacked(present) if present else None
