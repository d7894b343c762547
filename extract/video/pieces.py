"""Frames of a clip on their way: some at a time, so that nobody has to hold a whole clip of large frames.

A reader may ask why pieces and not frames: resizing is cheaper in batches, and decord reads in batches.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PIECE_BYTES = 64 << 20
"""Most frames that wait for being handed on, over all clips that are read together; at least one frame."""

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Some of a clip's distinct frames, in their order.

    Attributes:
        first: place of the first of them among the clip's distinct frames. 0 begins the clip: if pieces of it came
            before, they are void, because another decoder has started over.
        images: (u, H, W, 3) uint8 RGB, as displayed.
    """

    first: int
    images: Images


def frames_per_piece(height: int, width: int) -> int:
    """Frames of this size that make a full piece."""
    return max(1, PIECE_BYTES // (height * width * 3))
