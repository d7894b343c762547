"""What the model saw, small enough to be kept with the run."""

import io

from PIL import Image
from torch import Tensor

LARGEST_SIDE = 112
"""Pixels: a thumbnail of the view; maps are laid over it in patches, which are coarser still."""
_QUALITY = 85


def thumbnails(frames: Tensor) -> list[bytes]:
    """Frames as JPEGs of at most LARGEST_SIDE pixels a side. frames: (L, 3, S, S) uint8."""
    return [_jpeg(frame) for frame in frames]


def _jpeg(frame: Tensor) -> bytes:
    picture = Image.fromarray(frame.permute(1, 2, 0).cpu().numpy())
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
