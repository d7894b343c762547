"""What a stream holds already: the shards that count, and their rows for a shard that is made again.

A sidecar says what was committed, not that it is still there. So the file's presence and size are asked before its
clips count as done, and its bytes are hashed before they are copied: a damaged row must not get a fresh checksum.
"""

import itertools
import logging
from pathlib import Path

from cache.errors import FingerprintMismatch
from cache.fingerprint import Fingerprint
from cache.rows import SCHEMAS, Array, ClipRows
from cache.shard import Shard, read_shard
from cache.sidecar import Sidecar, read_sidecar

logger = logging.getLogger(__name__)


def committed_shard(folder: Path, number: int, mark: Fingerprint | None) -> Sidecar | None:
    """The sidecar of a shard that is there; None, with a warning, if only its sidecar is.

    Args:
        folder: the stream's folder.
        number: the shard's number.
        mark: what the stream is made by; None: not known, nothing is compared.

    Raises:
        FingerprintMismatch: the shard was made with other settings than `mark`.
        CorruptShard: the sidecar is damaged.
    """
    sidecar = read_sidecar(folder, number)
    if sidecar is None:
        return None
    if mark is not None and sidecar.fingerprint_sha256 != mark.sha256:
        raise FingerprintMismatch(
            f"{folder}: shard {number} was made with other settings than {folder / 'fingerprint.json'} says (sha256 "
            f"{sidecar.fingerprint_sha256[:12]}, not {mark.sha256[:12]}). Put the right fingerprint.json back, or "
            f"delete {folder} and extract the stream again"
        )
    size = _size_of(folder / sidecar.file)
    if size == sidecar.size_bytes:
        return sidecar
    state = "is gone" if size is None else f"has {size} bytes, {sidecar.size_bytes} were committed"
    logger.warning("%s %s: the shard is made again", folder / sidecar.file, state)
    return None


def clip_rows(folder: Path, sidecar: Sidecar) -> list[ClipRows]:
    """All clips of a shard, failed ones too.

    Raises:
        CorruptShard: the shard is not what was committed.
    """
    shard = read_shard(folder, sidecar, check=True)
    return [_rows(shard, sidecar, index) for index in range(len(sidecar.clips))]


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _rows(shard: Shard, sidecar: Sidecar, index: int) -> ClipRows:
    clip, provenance = sidecar.clips[index], shard.provenance(index)
    if clip.failure is not None:
        return ClipRows.failed(clip.id, clip.failure, provenance)
    start, stop = shard.row_offsets[index], shard.row_offsets[index + 1]
    fields: dict[str, Array | list[bytes]] = {}
    for entry in SCHEMAS[shard.stream].fields:
        values = shard.arrays[entry.name]
        if entry.is_blob:
            offsets = shard.arrays[f"{entry.name}_offsets"][start : stop + 1].tolist()
            spans = itertools.pairwise(offsets)
            fields[entry.name] = [values[first:last].tobytes() for first, last in spans]
        else:
            fields[entry.name] = values[start:stop]
    return ClipRows(
        clip_id=clip.id,
        fields=fields,
        pts_seconds=shard.arrays["pts_seconds"][start:stop],
        frame_index=shard.arrays["frame_index"][start:stop],
        provenance=provenance,
    )
