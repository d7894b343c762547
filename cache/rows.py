"""What a stream holds: its arrays, one clip's rows in memory, where they come from, and why they are missing.

Every stream is flat: rows of all clips one after the other, with offsets. A failed clip is a row of length zero with a
code. Labels are never here: they change, features do not.
"""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cache.errors import FailureCode

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Field:
    """One array of a stream: `shape` after the row axis, in axis letters; letters are free but constant in a shard."""

    name: str
    dtype: str
    shape: tuple[str | int, ...] = ()
    is_blob: bool = False


@dataclass(frozen=True)
class Schema:
    """The arrays of one stream; `rows_per` says what one row is."""

    fields: tuple[Field, ...]
    rows_per: str = "frame"


SCHEMAS: Mapping[str, Schema] = {
    "frames": Schema((Field("jpeg", "uint8", is_blob=True),)),
    "visual_prompts": Schema((Field("visual_prompts", "float16", ("D",)),)),
    "joints": Schema(
        (
            Field("xy", "float32", ("J", 2)),  # pixels of the source as displayed; NaN exactly where score is 0
            Field("score", "float32", ("J",)),
            Field("valid", "uint8"),  # 0 nobody, 1 measured, 2 measured in an interpolated box, 3 imported
            Field("box", "float32", (4,)),  # x1 y1 x2 y2 in pixels, NaN where valid is 0
            Field("box_score", "float32"),
            Field("track_id", "int32"),  # -1: no track
            Field("box_source", "uint8"),  # 0 none, 1 file, 2 whole frame, 3 detector, 4 interpolated
        )
    ),
    "video_tokens": Schema((Field("video_tokens", "float32", ("d_v",)),), rows_per="sampled frame"),
    "image_tokens": Schema((Field("image_tokens", "float16", ("N", "d")),), rows_per="sampled frame of each view"),
}
TOKEN_STREAMS = ("video_tokens", "image_tokens")
"""Made by training for the clips of its splits, in `<stream>/<digest>` of a cache: one folder per setting."""
STREAMS = ("frames", "visual_prompts", "joints", "text")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a clip has no rows."""

    code: FailureCode
    message: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a clip's rows come from. Sizes in square pixels, upright; frame counts of the piece that was read.

    `source_sha256` digests the file's size and its first and last MiB: an identity that survives copying. The span in
    seconds is the manifest's (None: open), so that a clip whose span was edited is not taken for the old one.
    `reduced_batch` is the number of inputs per forward pass where the model ran out of memory at the configured size
    (0: it did not); such rows may differ from others in their last bits.
    """

    source_size: int
    source_sha256: str
    decoder: str
    height: int
    width: int
    nominal_num_frames: int
    decoded_num_frames: int
    num_distinct_frames: int
    start_seconds: float | None = None
    end_seconds: float | None = None
    reduced_batch: int = 0


NO_PROVENANCE = Provenance(
    source_size=0,
    source_sha256="",
    decoder="",
    height=0,
    width=0,
    nominal_num_frames=0,
    decoded_num_frames=0,
    num_distinct_frames=0,
)


@dataclass(frozen=True, kw_only=True)
class ClipRows:
    """One clip in one stream: `fields` by name (F rows or F blobs each), `pts_seconds` and `frame_index` (F,)."""

    clip_id: str
    fields: Mapping[str, Array | Sequence[bytes]] = field(default_factory=dict)
    pts_seconds: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0, np.float64))
    frame_index: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    provenance: Provenance | None = None
    failure: Failure | None = None

    def __post_init__(self) -> None:
        counts = {"pts_seconds": len(self.pts_seconds), "frame_index": len(self.frame_index)}
        counts |= {name: len(values) for name, values in self.fields.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"clip {self.clip_id!r}: arrays differ in their number of rows: {counts}")
        if (self.failure is None) != (self.num_rows > 0):
            raise ValueError(
                f"clip {self.clip_id!r} has {self.num_rows} rows and failure {self.failure}: one or the other"
            )

    @classmethod
    def failed(cls, clip_id: str, failure: Failure, provenance: Provenance | None = None) -> Self:
        """The row of a clip that gave nothing."""
        return cls(clip_id=clip_id, failure=failure, provenance=provenance)

    @property
    def num_rows(self) -> int:
        """F of this clip; 0 if it failed."""
        return len(self.pts_seconds)


@dataclass(frozen=True, kw_only=True)
class Joints:
    """Joints of one clip: xy (F, J, 2) source pixels, score (F, J), valid (F,), box (F, 4), and the box's origin."""

    xy: npt.NDArray[np.float32]
    score: npt.NDArray[np.float32]
    valid: npt.NDArray[np.uint8]
    box: npt.NDArray[np.float32]
    box_score: npt.NDArray[np.float32]
    track_id: npt.NDArray[np.int32]
    box_source: npt.NDArray[np.uint8]


def check_rows(stream: str, rows: ClipRows) -> None:
    """Refuses rows that the stream's schema does not describe, or that are not finite.

    Raises:
        ValueError: a field is absent, unknown, of another dtype or shape, or holds NaN where it may not.
    """
    schema = SCHEMAS[stream]
    expected = {entry.name for entry in schema.fields}
    if rows.failure is not None:
        return
    if set(rows.fields) != expected:
        raise ValueError(f"{stream} rows hold {sorted(rows.fields)}, expected {sorted(expected)}")
    for entry in schema.fields:
        if not entry.is_blob:
            _check_array(rows.clip_id, entry, np.asarray(rows.fields[entry.name]))
    if stream == "joints":
        _check_joints(rows)
    else:
        for entry in schema.fields:
            if not entry.is_blob and not np.isfinite(np.asarray(rows.fields[entry.name])).all():
                raise ValueError(f"clip {rows.clip_id!r}: {entry.name} holds NaN or infinity")


def _check_array(clip_id: str, entry: Field, values: Array) -> None:
    fits = values.ndim == 1 + len(entry.shape) and all(
        isinstance(letter, str) or letter == size for letter, size in zip(entry.shape, values.shape[1:], strict=True)
    )
    if values.dtype != np.dtype(entry.dtype) or not fits:
        raise ValueError(
            f"clip {clip_id!r}: {entry.name} is {values.dtype} {values.shape}, expected {entry.dtype} "
            f"(F, {', '.join(map(str, entry.shape))})"
        )


def _check_joints(rows: ClipRows) -> None:
    arrays = {name: np.asarray(values) for name, values in rows.fields.items()}
    missing = arrays["score"] == 0
    if not np.array_equal(np.isnan(arrays["xy"]), np.repeat(missing[..., None], 2, axis=-1)):
        raise ValueError(f"clip {rows.clip_id!r}: xy must be NaN exactly where score is 0")
    nobody = arrays["valid"] == 0
    if not np.isnan(arrays["box"][nobody]).all() or not missing[nobody].all():
        raise ValueError(f"clip {rows.clip_id!r}: a frame with nobody (valid 0) must have no box and no scores")
    present = [arrays["xy"][~missing], arrays["score"], arrays["box_score"]]
    if any(np.isinf(values).any() or np.isnan(values).any() for values in present):
        raise ValueError(f"clip {rows.clip_id!r}: joints hold NaN or infinity where a number must be")


def row_chunks(stream: str, arrays: Mapping[str, Array], start: int, stop: int) -> list[Array]:
    """The bytes that make up rows [start, stop) of a shard, as arrays in schema order: blobs with their lengths."""
    chunks = [arrays["pts_seconds"][start:stop], arrays["frame_index"][start:stop]]
    for entry in SCHEMAS[stream].fields:
        if entry.is_blob:
            offsets = arrays[f"{entry.name}_offsets"][start : stop + 1]
            chunks += [np.diff(offsets), arrays[entry.name][offsets[0] : offsets[-1]]]
        else:
            chunks.append(arrays[entry.name][start:stop])
    return chunks


def crc32_of(chunks: Sequence[Array]) -> int:
    """crc32 over the chunks' bytes, one after the other."""
    value = 0
    for chunk in chunks:
        value = zlib.crc32(np.ascontiguousarray(chunk).data.cast("B") if chunk.size else b"", value)
    return value


def content_sha256(clip_id: str, chunks: Sequence[Array], failure_code: str | None) -> str:
    """Digest of one clip's content: id, shapes and bytes of its rows, or its failure code."""
    digest = hashlib.sha256(f"{clip_id}\0{failure_code or ''}\0".encode("utf-8", "surrogateescape"))
    for chunk in () if failure_code else chunks:  # where all clips failed, even the shape of no rows is another
        digest.update(f"{chunk.dtype.str}{chunk.shape}".encode())
        digest.update(np.ascontiguousarray(chunk).data.cast("B") if chunk.size else b"")
    return digest.hexdigest()
