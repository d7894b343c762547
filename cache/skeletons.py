"""Joint names, mirror pairs and limbs of the skeletons that a cache may hold.

Why Toyota's 13 joints stay 13: filling eyes and ears that nobody measured would feed inventions to a pose encoder. A
stream of joints therefore has its own J, and the model adapts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """Names of J joints and how they belong together; left is the person's left."""

    name: str
    """What a fingerprint stores."""
    joint_names: tuple[str, ...]
    """J names in the order of the arrays."""
    flip_pairs: tuple[Pair, ...]
    """Joints that change places in a mirror image; the others stay."""
    limbs: tuple[Pair, ...]
    """Joints to connect when drawing, and edges for graph models."""

    def __post_init__(self) -> None:
        for what, pairs in (("flip_pairs", self.flip_pairs), ("limbs", self.limbs)):
            for pair in pairs:
                if len(set(pair)) != 2 or not all(0 <= joint < self.num_joints for joint in pair):
                    raise ValueError(
                        f"{self.name}: {what} holds {pair}; two of the joints 0..{self.num_joints - 1} fit"
                    )
        flipped = [joint for pair in self.flip_pairs for joint in pair]
        if len(set(flipped)) != len(flipped):
            raise ValueError(f"{self.name}: a joint stands in two flip pairs")

    @property
    def num_joints(self) -> int:
        """J."""
        return len(self.joint_names)

    @property
    def flip_order(self) -> npt.NDArray[np.int64]:
        """(J,) so that `joints[flip_order]` is the mirrored order."""
        order = np.arange(self.num_joints, dtype=np.int64)
        for left, right in self.flip_pairs:
            order[[left, right]] = right, left
        return order


def _sides(*parts: str, first: str, second: str) -> tuple[str, ...]:
    return tuple(f"{side}_{part}" for part in parts for side in (first, second))


_COCO_PARTS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_TOYOTA_PARTS = ("ankle", "knee", "hip", "wrist", "elbow", "shoulder")

COCO_17 = Skeleton(
    name="coco_17",
    joint_names=("nose", *_sides(*_COCO_PARTS, first="left", second="right")),
    flip_pairs=tuple((joint, joint + 1) for joint in range(1, 17, 2)),
    # The 17 limbs of PoseConv3D (Duan et al., CVPR 2022).
    limbs=(
        *((0, 1), (0, 2), (1, 3), (2, 4)),
        *((0, 5), (5, 7), (7, 9), (0, 6), (6, 8), (8, 10)),
        *((5, 11), (11, 13), (13, 15), (6, 12), (12, 14), (14, 16), (11, 12)),
    ),
)
"""COCO's person keypoints: what HRNet predicts."""

TOYOTA_13 = Skeleton(
    name="toyota_13",
    joint_names=(*_sides(*_TOYOTA_PARTS, first="right", second="left"), "head"),
    flip_pairs=tuple((joint, joint + 1) for joint in range(0, 12, 2)),
    # The natural tree; the head hangs on both shoulders.
    limbs=(
        *((0, 2), (2, 4), (1, 3), (3, 5), (4, 5)),
        *((6, 8), (8, 10), (7, 9), (9, 11), (10, 11)),
        *((4, 10), (5, 11), (10, 12), (11, 12)),
    ),
)
"""LCR-Net's joints, in the order of the Toyota-Smarthome skeleton files."""

SKELETONS: Mapping[str, Skeleton] = {skeleton.name: skeleton for skeleton in (COCO_17, TOYOTA_13)}
"""All known skeletons by name."""
