"""One immutable HDF5 shard of one stream, and the sidecar whose presence means that the shard exists.

A shard is a commit: built in memory, written under a temporary name, synced, read back, renamed; then the sidecar.
Nothing is ever appended. A digest of its bytes is in the file's name, so a shard that is made again, or by two workers
at once, is another file, and replacing the sidecar, which names its file, switches over in one step.
"""

import hashlib
import itertools
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from cache import array_file, atomic
from cache.errors import CorruptShard
from cache.fingerprint import Fingerprint
from cache.rows import (
    NO_PROVENANCE,
    SCHEMAS,
    Array,
    ClipRows,
    Provenance,
    check_rows,
    content_sha256,
    crc32_of,
    row_chunks,
)
from cache.sidecar import SCHEMA_VERSION, SHARD_NAME, Sidecar, SidecarClip, sidecar_path, sidecars

logger = logging.getLogger(__name__)

_PROVENANCE_TEXTS = ("source_sha256", "decoder")
_PROVENANCE_SPAN = ("start_seconds", "end_seconds")
_PROVENANCE_RARE = ("reduced_batch",)  # absent where it is 0 in a whole shard
_SIDECAR_SOURCE = ("source_size", "source_sha256", *_PROVENANCE_SPAN, *_PROVENANCE_RARE)
_PROVENANCE_NUMBERS = tuple(
    entry.name
    for entry in fields(Provenance)
    if entry.name not in (*_PROVENANCE_TEXTS, *_PROVENANCE_SPAN, *_PROVENANCE_RARE)
)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """An opened shard: memory-mapped arrays; clip i owns rows [row_offsets[i], row_offsets[i + 1])."""

    stream: str
    clip_ids: tuple[str, ...]
    row_offsets: tuple[int, ...]
    arrays: Mapping[str, Array]

    def chunks(self, index: int) -> list[Array]:
        """The arrays that make up clip `index`, for checksums."""
        return row_chunks(self.stream, self.arrays, self.row_offsets[index], self.row_offsets[index + 1])

    def provenance(self, index: int) -> Provenance:
        """Where the rows of clip `index` come from."""
        rare = [name for name in _PROVENANCE_RARE if name in self.arrays]
        numbers = {name: int(self.arrays[name][index]) for name in (*_PROVENANCE_NUMBERS, *rare)}
        texts = {name: array_file.unpack_text(name, self.arrays, index) for name in _PROVENANCE_TEXTS}
        span = {name: float(self.arrays[name][index]) for name in _PROVENANCE_SPAN}
        open_ended = {name: None if math.isnan(seconds) else seconds for name, seconds in span.items()}
        return Provenance(**numbers, **texts, **open_ended)  # type: ignore[arg-type]


def write_shard(
    folder: Path, number: int, stream: str, clips: Sequence[ClipRows], *, fingerprint: Fingerprint
) -> Sidecar:
    """Commits one shard.

    Args:
        folder: the stream's folder.
        number: the shard's number.
        stream: key of SCHEMAS.
        clips: the rows of every clip of the shard, failed ones too.
        fingerprint: what made the rows.

    Raises:
        ValueError: rows that the schema refuses (other dtype, NaN), or a clip given twice.
        StorageError: the disk refused; nothing became visible.
    """
    ordered = sorted(clips, key=lambda rows: rows.clip_id)
    if len({rows.clip_id for rows in ordered}) != len(ordered):
        raise ValueError(f"shard {number} of {stream}: a clip id is given twice")
    for rows in ordered:
        check_rows(stream, rows)
    arrays = _flatten(stream, ordered)
    image = array_file.build(
        arrays, {"schema_version": SCHEMA_VERSION, "stream": stream, "fingerprint_sha256": fingerprint.sha256}
    )
    digest = hashlib.sha256(image).hexdigest()
    sidecar = Sidecar(
        stream=stream,
        number=number,
        file=f"shard-{number:05d}-{digest[:8]}.h5",
        size_bytes=len(image),
        sha256=digest,
        fingerprint_sha256=fingerprint.sha256,
        clips=_sidecar_clips(stream, ordered, arrays),
    )
    atomic.write_bytes(folder / sidecar.file, image, check=lambda path: _check_written(path, sidecar))
    atomic.write_json(sidecar_path(folder, number), sidecar.to_json())
    return sidecar


def sweep(folder: Path, *, min_age_seconds: float = 3600.0) -> None:
    """Removes what killed writers left: temporaries, and shard files that no sidecar names.

    A young file may belong to another worker that is about to write its sidecar, so it stays. A reader that opened the
    stream before finds its file gone, and looks again.
    """
    atomic.sweep(folder)
    named = {sidecar.file for sidecar in sidecars(folder)}
    for path in folder.glob("shard-*.h5"):
        is_orphan = SHARD_NAME.fullmatch(path.name) and path.name not in named
        if is_orphan and time.time() - path.stat().st_mtime >= min_age_seconds:
            logger.info("removing %s: no sidecar names it", path)
            path.unlink(missing_ok=True)


def read_shard(folder: Path, sidecar: Sidecar, *, check: bool = False) -> Shard:
    """Audits and maps the shard that a sidecar names.

    Args:
        folder: the stream's folder.
        sidecar: of the shard.
        check: hash the contents too.

    Raises:
        CorruptShard: absent, of another size, not of the format, not the clips of the sidecar, or (with `check`) not
            the bytes that were committed.
    """
    path = folder / sidecar.file
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise CorruptShard(
            f"{path} is gone though {sidecar_path(folder, sidecar.number).name} names it; "
            "delete that file and extract again"
        ) from None
    if size != sidecar.size_bytes:
        raise CorruptShard(f"{path} has {size} bytes, {sidecar.size_bytes} were committed; delete it and its .json")
    if check and atomic.sha256_file(path) != sidecar.sha256:
        raise CorruptShard(f"{path} does not match its sha256; delete it and its .json, then extract again")
    arrays, attributes = array_file.read(path)
    _check_arrays(path, sidecar, arrays, attributes)
    return Shard(
        stream=sidecar.stream,
        clip_ids=array_file.unpack_texts("clip_ids", arrays),
        row_offsets=tuple(arrays["row_offsets"].tolist()),
        arrays=arrays,
    )


def clip_digests(folder: Path, sidecar: Sidecar) -> dict[str, str]:
    """content_sha256 of every clip, after checking the file's sha256 and every clip's crc32.

    Raises:
        CorruptShard: bytes differ from what was committed; names the first clip.
    """
    path = folder / sidecar.file
    shard = read_shard(folder, sidecar)
    if atomic.sha256_file(path) != sidecar.sha256:
        bad = [clip.id for index, clip in enumerate(sidecar.clips) if crc32_of(shard.chunks(index)) != clip.crc32]
        where = f"clips {bad[:5]}" if bad else "its header"
        raise CorruptShard(f"{path} does not match its sha256: damaged in {where}; delete it and its .json")
    digests = {}
    for index, clip in enumerate(sidecar.clips):
        chunks = shard.chunks(index)
        if crc32_of(chunks) != clip.crc32:
            raise CorruptShard(f"{path}: clip {clip.id!r} does not match its crc32")
        digests[clip.id] = content_sha256(clip.id, chunks, clip.failure.code if clip.failure else None)
    return digests


def _flatten(stream: str, clips: Sequence[ClipRows]) -> dict[str, Array]:
    good = [rows for rows in clips if rows.failure is None]
    arrays: dict[str, Array] = {
        **array_file.pack_texts("clip_ids", [rows.clip_id for rows in clips]),
        "row_offsets": array_file.offsets_of([rows.num_rows for rows in clips]),
        "status": np.array([rows.failure is not None for rows in clips], np.uint8),
        **array_file.pack_texts("failure_code", [rows.failure.code if rows.failure else "" for rows in clips]),
        "pts_seconds": _stack([rows.pts_seconds for rows in good], "float64", ()),
        "frame_index": _stack([rows.frame_index for rows in good], "int64", ()),
    }
    provenances = [rows.provenance or NO_PROVENANCE for rows in clips]
    for name in (*_PROVENANCE_NUMBERS, *_PROVENANCE_RARE):
        numbers = np.array([getattr(entry, name) for entry in provenances], np.int64)
        if name not in _PROVENANCE_RARE or numbers.any():
            arrays[name] = numbers
    for name in _PROVENANCE_SPAN:
        seconds = [getattr(entry, name) for entry in provenances]
        arrays[name] = np.array([math.nan if value is None else value for value in seconds], np.float64)
    for name in _PROVENANCE_TEXTS:
        arrays |= array_file.pack_texts(name, [getattr(entry, name) for entry in provenances])
    for entry in SCHEMAS[stream].fields:
        if entry.is_blob:
            blobs = [bytes(blob) for rows in good for blob in rows.fields[entry.name]]
            arrays |= array_file.pack_blobs(entry.name, blobs)
        else:
            arrays[entry.name] = _stack([rows.fields[entry.name] for rows in good], entry.dtype, entry.shape)
    return arrays


def _stack(pieces: Sequence[Any], dtype: str, shape: tuple[str | int, ...]) -> Array:
    if pieces:
        return np.concatenate([np.asarray(piece, dtype) for piece in pieces])
    return np.empty((0, *(size if isinstance(size, int) else 0 for size in shape)), dtype)


def _sidecar_clips(stream: str, clips: Sequence[ClipRows], arrays: Mapping[str, Array]) -> tuple[SidecarClip, ...]:
    offsets = arrays["row_offsets"].tolist()
    spans = itertools.pairwise(offsets)
    return tuple(
        SidecarClip(
            id=rows.clip_id,
            num_rows=rows.num_rows,
            crc32=crc32_of(row_chunks(stream, arrays, start, stop)),
            failure=rows.failure,
            **_source_of(rows.provenance or NO_PROVENANCE),
        )
        for rows, (start, stop) in zip(clips, spans, strict=True)
    )


def _source_of(provenance: Provenance) -> dict[str, Any]:
    return {name: getattr(provenance, name) for name in _SIDECAR_SOURCE}


def _check_written(path: Path, sidecar: Sidecar) -> None:
    if atomic.sha256_file(path) != sidecar.sha256:
        raise CorruptShard(f"{path} was read back with other bytes than were written: check the disk")
    arrays, attributes = array_file.read(path)
    _check_arrays(path, sidecar, arrays, attributes)


def _check_arrays(path: Path, sidecar: Sidecar, arrays: Mapping[str, Array], attributes: Mapping[str, Any]) -> None:
    expected = {
        "schema_version": SCHEMA_VERSION,
        "stream": sidecar.stream,
        "fingerprint_sha256": sidecar.fingerprint_sha256,
    }
    if attributes != expected:
        raise CorruptShard(f"{path} says {dict(attributes)}, its .json {expected}: they do not belong together")
    try:
        ids = array_file.unpack_texts("clip_ids", arrays)
        lengths = np.diff(arrays["row_offsets"]).tolist()
    except (KeyError, UnicodeDecodeError) as error:
        raise CorruptShard(f"{path} lacks an array of the format: {error}") from error
    if list(zip(ids, lengths, strict=True)) != [(clip.id, clip.num_rows) for clip in sidecar.clips]:
        raise CorruptShard(f"{path} does not hold the clips that its .json lists")
    total = sum(lengths)
    for entry in SCHEMAS[sidecar.stream].fields:
        name = f"{entry.name}_offsets" if entry.is_blob else entry.name
        if name not in arrays or len(arrays[name]) != total + entry.is_blob:
            raise CorruptShard(f"{path}: {name!r} is absent or does not have {total} rows")
