"""Small pictures of clips, from the frames that the cache keeps: three of each clip, side by side.

The decision to question: a report must not fail for want of a picture, nor show another one in its place. A cache that
is gone, has dropped its frames, or lacks a clip gives no picture and one sentence that says why.
"""

import io
from pathlib import Path

from PIL import Image

from cache.errors import CacheError, StorageError
from cache.run import Run
from cache.store import FeatureStore, StreamReader

_PLACES = (1 / 6, 3 / 6, 5 / 6)  # of the clip
_HEIGHT = 72  # pixels
_MOST_WIDTH = 128
_GAP = 2
_QUALITY = 60


class Pictures:
    """Pictures of the clips of one run.

    Attributes:
        problem: why there is none at all; empty where the cache has frames.
    """

    def __init__(self, frames: StreamReader | None, problem: str = "") -> None:
        self._frames = frames
        self.problem = problem

    @classmethod
    def of(cls, run: Run, cache: Path | None = None) -> "Pictures":
        """From the cache that the run was trained on, or from another folder where that has moved to."""
        folder = cache or Path(run.info.cache_folder)
        try:
            return cls(FeatureStore.open(folder).frames)
        except (CacheError, StorageError) as error:
            advice = "" if cache else "; if it has moved, give its folder with --cache"
            return cls(None, f"No pictures: {error}{advice}")

    def three_frames(self, clip_id: str) -> bytes | None:
        """A small JPEG of three frames in the order of time; None where the cache has none of this clip."""
        if self._frames is None or clip_id not in self._frames:
            return None
        try:
            frames = self._frames[clip_id]  # one and more
            chosen = [frames[int(place * len(frames))] for place in _PLACES]
            return _joined([_small(bytes(frame)) for frame in chosen])
        except (CacheError, StorageError, OSError, Image.DecompressionBombError):
            return None


def _small(jpeg: bytes) -> Image.Image:
    stored = Image.open(io.BytesIO(jpeg))
    stored.draft("RGB", (_MOST_WIDTH, _HEIGHT))  # lets the decoder shrink by a power of two
    image = stored.convert("RGB")
    image.thumbnail((_MOST_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
    return image


def _joined(images: list[Image.Image]) -> bytes:
    width = sum(image.width for image in images) + _GAP * (len(images) - 1)
    canvas = Image.new("RGB", (width, max(image.height for image in images)), "white")
    left = 0
    for image in images:
        canvas.paste(image, (left, 0))
        left += image.width + _GAP
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
