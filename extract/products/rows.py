"""A clip's rows: what a stream keeps of it, with its times and its origin, or why there is nothing.

Why every stream is made here and not by its model: the time grid and the origin of a clip are the same in all streams,
and a frame that is shown at several instants is computed once and repeated here.
"""

from collections.abc import Mapping
from dataclasses import replace

from cache.rows import NO_PROVENANCE, Array, ClipRows, Failure
from extract.decoding.decode_process import Prepared


def rows_of(prepared: Prepared, fields: Mapping[str, Array | list[bytes]], reduced_batch: int = 0) -> ClipRows:
    """The rows of one clip: F of each field, and the batch size if it had to be reduced."""
    provenance = prepared.provenance
    if reduced_batch:
        provenance = replace(provenance or NO_PROVENANCE, reduced_batch=reduced_batch)
    return ClipRows(
        clip_id=prepared.clip_id,
        fields=fields,
        pts_seconds=prepared.pts_seconds,
        frame_index=prepared.frame_index,
        provenance=provenance,
    )


def failed_rows(prepared: Prepared, failure: Failure) -> ClipRows:
    """The row of a clip without features."""
    return ClipRows.failed(prepared.clip_id, failure, prepared.provenance)


def frame_rows(prepared: Prepared) -> ClipRows:
    """JPEGs, repeated where instants repeat."""
    return rows_of(prepared, {"jpeg": [prepared.jpegs[index] for index in prepared.image_of_instant]})
