"""A cache of small real JPEGs for the clips of `toy_runs`."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cache import fingerprint
from cache.plan import Plan
from cache.rows import ClipRows
from cache.shard import write_shard
from tests.toys import PROVENANCE, toy_fingerprint

NUM_FRAMES = 6
"""Of every clip; the red of frame k is 40 k."""


def frames_cache(folder: Path, clip_ids: Sequence[str], *, num_frames: int = NUM_FRAMES) -> Path:
    """A cache with the stream `frames` alone: 128 x 96 pixels, brighter red from frame to frame."""
    plan = Plan.ensure(folder, list(clip_ids), 50)
    mark = toy_fingerprint("frames", num_frames=num_frames)
    fingerprint.ensure(folder / "frames", mark)
    for number, names in plan.shards.items():
        rows = [_rows(name, num_frames) for name in names]
        write_shard(folder / "frames", number, "frames", rows, fingerprint=mark)
    return folder


def _rows(clip_id: str, num_frames: int) -> ClipRows:
    return ClipRows(
        clip_id=clip_id,
        fields={"jpeg": [_jpeg(number) for number in range(num_frames)]},
        pts_seconds=np.arange(num_frames) / 8.0,
        frame_index=np.arange(num_frames, dtype=np.int64),
        provenance=PROVENANCE,
    )


def _jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (128, 96), (40 * number, 60, 90)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
