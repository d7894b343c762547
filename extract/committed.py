"""Rows of a committed shard as they were given to it: what a shard that is made again keeps."""

import itertools
from pathlib import Path

from cache.rows import SCHEMAS, Array, ClipRows
from cache.shard import Shard, Sidecar, read_shard


def clip_rows(folder: Path, sidecar: Sidecar) -> list[ClipRows]:
    """All clips of a shard, failed ones too.

    Raises:
        CorruptShard: the shard is not what was committed.
    """
    shard = read_shard(folder, sidecar)
    return [_rows(shard, sidecar, index) for index in range(len(sidecar.clips))]


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
