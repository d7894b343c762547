"""What a tool found in one clip, in one form for all tools, and which clip it belongs to.

A reader may ask why people are a flat list with frame numbers and no tracks: tools that write a person axis do not
follow anybody, row j is the j-th detection of each frame. Who is who is decided here, for all of them by one rule.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from cache import atomic
from cache.errors import FailureCode, VideoError
from cache.manifest import Clip
from cache.skeletons import Skeleton

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundPeople:
    """N people with a joint or more, in the T frames of one clip as the tool counted them."""

    num_frames: int
    """T."""
    frame: Indices
    """(N,) ascending, 0 .. T - 1."""
    xy: Floats
    """(N, J, 2) pixels of a frame of `size`; NaN where a joint is missing."""
    score: Floats
    """(N, J) as the tool gave it; 0 where a joint is missing."""
    confidence: Floats
    """(N,) of the person."""
    size: tuple[int, int] | None = None
    """Height and width of the frames that the tool saw, where it says so."""

    @classmethod
    def of(
        cls,
        num_frames: int,
        frame: npt.ArrayLike,
        xy: npt.ArrayLike,
        score: npt.ArrayLike,
        *,
        confidence: npt.ArrayLike | None = None,
        size: tuple[int, int] | None = None,
    ) -> Self:
        """People as tools write them: a joint is missing where its score is not above 0.

        Args:
            num_frames: T.
            frame: (n,) in any order.
            xy: (n, J, 2).
            score: (n, J).
            confidence: (n,); None: the mean score of a person's joints.
            size: height and width.

        Raises:
            VideoError: NO_SKELETON, frame numbers outside of 0 .. T - 1; NON_FINITE, a joint that is there is nowhere.
        """
        frames = np.asarray(frame, np.int64)
        if ((frames < 0) | (frames >= num_frames)).any():
            message = f"it has people in frame {frames.min()} to {frames.max()} of {num_frames}"
            raise VideoError(FailureCode.NO_SKELETON, message)
        with np.errstate(over="ignore"):
            scores, places = np.asarray(score, np.float32), np.asarray(xy, np.float32)
            certainty = None if confidence is None else np.asarray(confidence, np.float32)
        present = ~(scores <= 0)  # NaN is refused below
        places = np.where(present[..., None], places, 0)
        is_finite = np.isfinite(scores).all() and np.isfinite(places).all()
        if not is_finite or (certainty is not None and not np.isfinite(certainty).all()):
            raise VideoError(FailureCode.NON_FINITE, "it has a joint or a score of NaN or infinity")
        rows = np.flatnonzero(present.any(axis=1))
        rows = rows[np.argsort(frames[rows], kind="stable")]
        present, scores = present[rows], np.where(present, scores, 0)[rows]
        means = scores.sum(axis=1) / present.sum(axis=1)
        return cls(
            num_frames=num_frames,
            frame=frames[rows],
            xy=np.where(present[..., None], places[rows], np.nan).astype(np.float32),
            score=scores,
            confidence=means if certainty is None else certainty[rows],
            size=size,
        )

    def cut(self, first: int, count: int) -> Self:
        """Those of `count` frames from frame `first` on, numbered anew from 0; none where there are no frames."""
        begin, end = np.searchsorted(self.frame, (first, first + count))
        return replace(
            self,
            num_frames=count,
            frame=self.frame[begin:end] - first,
            xy=self.xy[begin:end],
            score=self.score[begin:end],
            confidence=self.confidence[begin:end],
        )

    @property
    def boxes(self) -> Floats:
        """(N, 4) x1 y1 x2 y2 around the joints of each person."""
        return np.concatenate([np.nanmin(self.xy, axis=1), np.nanmax(self.xy, axis=1)], axis=1).reshape(-1, 4)


class SkeletonFile(Protocol):
    """Skeletons of many clips, by the names that the tool gave them; read when asked for."""

    @property
    def format(self) -> str:
        """`mmaction2`, `toyota` or `openpose`."""

    @property
    def skeleton(self) -> Skeleton:
        """The joints' names and order."""

    @property
    def sha256(self) -> str:
        """Identity of the content."""

    @property
    def names(self) -> Collection[str]:
        """Of the clips it has."""

    def read(self, name: str) -> FoundPeople:
        """One of them.

        Raises:
            VideoError: NO_SKELETON or NON_FINITE, what is there under this name cannot be used.
        """


class ClipNames:
    """Which skeleton of a file belongs to which clip of a dataset.

    A clip is called by its id, or by its video's path or name, with or without the suffix. Clips of one video may share
    a skeleton, those of several videos may not: `drink/001.avi` and `eat/001.avi` are both called 001.

    Args:
        names: in the file.
        clips: all of the dataset.
    """

    def __init__(self, names: Collection[str], clips: Sequence[Clip]) -> None:
        self._names = names
        self._videos: defaultdict[str, set[str]] = defaultdict(set)
        for clip in clips:
            name = self._first(clip)
            if name is not None:
                self._videos[name].add(clip.video)

    @property
    def used(self) -> Collection[str]:
        """Names that clips of the dataset have."""
        return self._videos.keys()

    def of(self, clip: Clip) -> str | None:
        """The name of a clip; None: the file has no skeleton of it.

        Raises:
            VideoError: NO_SKELETON, videos of other clips are called the same.
        """
        name = self._first(clip)
        if name is None or name in (clip.id, clip.video) or len(self._videos[name]) == 1:
            return name
        first, second, *more = sorted(self._videos[name])
        others = f" and {len(more)} more" if more else ""
        raise unusable(
            f"the name {name!r} in the file is ambiguous: {first}, {second}{others}; "
            "call skeletons by the clips' ids or by the paths of their videos"
        )

    def _first(self, clip: Clip) -> str | None:
        video = Path(clip.video)
        possible = (clip.id, clip.video, video.with_suffix("").as_posix(), video.name, video.stem)
        return next((name for name in possible if name in self._names), None)


def unusable(message: str) -> VideoError:
    """The error of a skeleton that is there and cannot be used."""
    return VideoError(FailureCode.NO_SKELETON, message)


def files_sha256(root: Path, files: Sequence[Path]) -> str:
    """Identity of several files: their paths in `root` and their contents, in the order of the paths."""
    digest = hashlib.sha256()
    for path in sorted(files):
        name = path.relative_to(root).as_posix()
        digest.update(f"{name}\0{atomic.sha256_file(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
