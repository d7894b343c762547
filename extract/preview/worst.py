"""Which clips went worst: fewest frames with somebody, then the lowest scores.

Why not one mixed number: a clip with nobody in half of its frames and a clip of doubtful joints need different cures,
and the first is the worse trouble. So the share of frames comes first and the mean score decides among equals.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cache.rows import Joints
from cache.store import StreamReader


@dataclass(frozen=True, kw_only=True)
class ClipQuality:
    """How a clip's joints came out."""

    clip_id: str
    num_rows: int
    num_valid: int
    """Rows with somebody."""
    mean_score: float
    """Over all J joints of the rows with somebody, missing joints as 0; 0 if there is no such row."""

    @property
    def valid_share(self) -> float:
        """Share of rows with somebody."""
        return self.num_valid / self.num_rows

    def __str__(self) -> str:
        return f"somebody in {self.num_valid} of {self.num_rows} frames ({self.valid_share:.0%}), mean score " + (
            f"{self.mean_score:.2f}" if self.num_valid else "-"
        )


def quality(clip_id: str, joints: Joints) -> ClipQuality:
    """The quality of one clip."""
    somebody = joints.valid > 0
    mean = float(joints.score[somebody].mean(dtype=float)) if somebody.any() else 0.0
    return ClipQuality(clip_id=clip_id, num_rows=len(somebody), num_valid=int(somebody.sum()), mean_score=mean)


def worst_clips(reader: StreamReader, count: int) -> Sequence[ClipQuality]:
    """The `count` worst clips that have rows, the worst first; equal ones in the order of their ids."""
    found = [quality(clip_id, reader[clip_id]) for clip_id in reader]
    return sorted(found, key=lambda clip: (clip.valid_share, clip.mean_score, clip.clip_id))[:count]
