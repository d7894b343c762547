"""One immutable HDF5 shard of one stream, and the sidecar whose presence means that the shard exists.

A shard is a commit: built in memory, written under a temporary name, synced, read back, renamed; then the sidecar.
Nothing is ever appended. A shard that is made again (failed clips retried) gets a new file name, and replacing the
sidecar, which names its file, switches over in one step.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from cache import array_file, atomic
from cache.errors import CorruptShard, FailureCode
from cache.fingerprint import Fingerprint
from cache.rows import (
    NO_PROVENANCE,
    SCHEMAS,
    Array,
    ClipRows,
    Failure,
    Provenance,
    check_rows,
    content_sha256,
    crc32_of,
    row_chunks,
)

SCHEMA_VERSION = 1

__all__ = [
    "SCHEMAS",
    "ClipRows",
    "Failure",
    "Provenance",
    "Shard",
    "Sidecar",
    "SidecarClip",
    "read_shard",
    "read_sidecar",
    "sidecars",
    "write_shard",
]

_PROVENANCE_TEXTS = ("source_sha256", "decoder")
_PROVENANCE_NUMBERS = tuple(entry.name for entry in fields(Provenance) if entry.name not in _PROVENANCE_TEXTS)


@dataclass(frozen=True, kw_only=True)
class SidecarClip:
    """One clip of a shard: its id, number of rows, crc32 of their bytes, and its failure if it has none."""

    id: str
    num_rows: int
    crc32: int
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """The `.json` beside a shard: the commit mark, with what is needed to know the shard without opening it."""

    stream: str
    number: int
    file: str
    revision: int
    size_bytes: int
    sha256: str
    fingerprint_sha256: str
    clips: tuple[SidecarClip, ...]
    schema_version: int = SCHEMA_VERSION


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
        numbers = {name: int(self.arrays[name][index]) for name in _PROVENANCE_NUMBERS}
        texts = {name: array_file.unpack_texts(name, self.arrays)[index] for name in _PROVENANCE_TEXTS}
        return Provenance(**numbers, **texts)  # type: ignore[arg-type]


def sidecar_path(folder: Path, number: int) -> Path:
    """`folder/shard-00017.json`."""
    return folder / f"shard-{number:05d}.json"


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
    previous = read_sidecar(folder, number)
    revision = 0 if previous is None else previous.revision + 1
    sidecar = Sidecar(
        stream=stream,
        number=number,
        file=f"shard-{number:05d}.h5" if revision == 0 else f"shard-{number:05d}.r{revision}.h5",
        revision=revision,
        size_bytes=len(image),
        sha256=hashlib.sha256(image).hexdigest(),
        fingerprint_sha256=fingerprint.sha256,
        clips=_sidecar_clips(stream, ordered, arrays),
    )
    atomic.write_bytes(folder / sidecar.file, image, check=lambda path: _check_written(path, sidecar))
    atomic.write_json(sidecar_path(folder, number), asdict(sidecar))
    if previous is not None:
        (folder / previous.file).unlink(missing_ok=True)
    return sidecar


def read_sidecar(folder: Path, number: int) -> Sidecar | None:
    """The sidecar of a shard, or None if the shard was never committed.

    Raises:
        CorruptShard: the file is damaged.
    """
    path = sidecar_path(folder, number)
    try:
        body = atomic.read_json(path)
    except FileNotFoundError:
        return None
    return _sidecar_from_json(path, body)


def sidecars(folder: Path) -> list[Sidecar]:
    """All committed shards of a stream folder, by number."""
    numbers = sorted(int(path.stem.removeprefix("shard-")) for path in folder.glob("shard-*.json"))
    found = (read_sidecar(folder, number) for number in numbers)
    return [sidecar for sidecar in found if sidecar is not None]


def read_shard(folder: Path, sidecar: Sidecar) -> Shard:
    """Audits and maps the shard that a sidecar names; contents are not hashed here.

    Raises:
        CorruptShard: absent, of another size, not of the format, or not the clips of the sidecar.
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
    for name in _PROVENANCE_NUMBERS:
        arrays[name] = np.array([getattr(entry, name) for entry in provenances], np.int64)
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
        )
        for rows, (start, stop) in zip(clips, spans, strict=True)
    )


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


def _sidecar_from_json(path: Path, body: Mapping[str, Any]) -> Sidecar:
    if body.get("schema_version") != SCHEMA_VERSION:
        raise CorruptShard(f"{path}: schema_version {body.get('schema_version')}; this version reads {SCHEMA_VERSION}")
    try:
        clips = tuple(
            SidecarClip(
                id=clip["id"],
                num_rows=clip["num_rows"],
                crc32=clip["crc32"],
                failure=clip["failure"]
                and Failure(code=FailureCode(clip["failure"]["code"]), message=clip["failure"]["message"]),
            )
            for clip in body["clips"]
        )
        return Sidecar(**{**body, "clips": clips})
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptShard(f"{path} is not a sidecar of this version: {error}") from error
