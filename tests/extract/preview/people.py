"""Small caches of joints and frames whose every pixel is known."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cache import fingerprint
from cache.errors import FailureCode
from cache.fingerprint import Fingerprint
from cache.plan import Plan
from cache.rows import ClipRows, Failure, Provenance
from cache.shard import write_shard
from cache.skeletons import COCO_17, Skeleton
from cache.store import FeatureStore

HEIGHT, WIDTH = 120, 160
"""Of the source; stored JPEGs are half as large."""
BACKGROUND = (60, 120, 60)


def jpeg(height: int = HEIGHT // 2, width: int = WIDTH // 2) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), BACKGROUND).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def standing(skeleton: Skeleton, num_frames: int) -> npt.NDArray[np.float32]:
    """(F, J, 2) a person whose joints lie on a grid, all apart."""
    joints = np.arange(skeleton.num_joints)
    xy = np.stack([40 + 20 * (joints % 5), 20 + 20 * (joints // 5)], axis=-1).astype(np.float32)
    return np.tile(xy, (num_frames, 1, 1))


def provenance(height: int, width: int) -> Provenance:
    return Provenance(
        source_size=1,
        source_sha256="ab",
        decoder="test",
        height=height,
        width=width,
        nominal_num_frames=100,
        decoded_num_frames=100,
        num_distinct_frames=10,
    )


def joint_rows(
    clip_id: str,
    *,
    valid: Sequence[int] = (1, 1, 2, 1),
    score: float = 0.9,
    frame_index: Sequence[int] | None = None,
    skeleton: Skeleton = COCO_17,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> ClipRows:
    """A standing person in every frame whose `valid` is not 0."""
    marks = np.array(valid, np.uint8)
    somebody, count = marks > 0, len(marks)
    xy, box = standing(skeleton, count), np.tile(np.array([30, 10, 130, 110], np.float32), (count, 1))
    xy[~somebody], box[~somebody] = np.nan, np.nan
    return ClipRows(
        clip_id=clip_id,
        fields={
            "xy": xy,
            "score": np.where(somebody[:, None], score, 0).astype(np.float32).repeat(skeleton.num_joints, 1),
            "valid": marks,
            "box": box,
            "box_score": np.where(somebody, 0.8, 0).astype(np.float32),
            "track_id": np.where(somebody, 0, -1).astype(np.int32),
            "box_source": np.array([0, 3, 4, 0], np.uint8)[marks],
        },
        pts_seconds=np.arange(count) / 8,
        frame_index=np.arange(count) if frame_index is None else np.array(frame_index),
        provenance=provenance(*size),
    )


def frame_rows(clip_id: str, frame_index: Sequence[int] = (0, 1, 2, 3), content: bytes = b"") -> ClipRows:
    return ClipRows(
        clip_id=clip_id,
        fields={"jpeg": [content or jpeg()] * len(frame_index)},
        pts_seconds=np.array(frame_index) / 8,
        frame_index=np.array(frame_index),
        provenance=provenance(HEIGHT, WIDTH),
    )


def failed_rows(clip_id: str) -> ClipRows:
    return ClipRows.failed(clip_id, Failure(code=FailureCode.NO_BOXES, message="no boxes"))


def write_cache(
    folder: Path,
    joints: Sequence[ClipRows],
    frames: Sequence[ClipRows] = (),
    *,
    skeleton: str = COCO_17.name,
    weights: str = "ab",
) -> FeatureStore:
    """A cache of one shard."""
    Plan.ensure(folder, [rows.clip_id for rows in joints], 16)
    network = {"name": "hrnet", "skeleton": skeleton, "weights": weights}
    for stream, rows, model in (("joints", joints, network), ("frames", frames, {})):
        if rows:
            mark = Fingerprint(stream=stream, dtype="float32", model=model, sampling={"policy": "uniform"})
            fingerprint.ensure(folder / stream, mark)
            write_shard(folder / stream, 0, stream, rows, fingerprint=mark)
    return FeatureStore.open(folder)
