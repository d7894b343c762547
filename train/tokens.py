"""Tokens of a frozen encoder, computed once per encoder, instants and view, and kept beside the cache.

They are a stream like any other, in a folder named after its fingerprint: CACHE/<stream>/<digest>/. A lock makes
runs that start together (a study over seeds) compute them once; each shard of clips is a commit, so a stopped
computation continues. Always computed in fp32 at one constant batch size, the last batch padded.

The fingerprint knows settings, not content. So every clip's tokens remember what they are made of: `source_sha256` of
their provenance is `<that of the video>:<crc32 of the clip's rows in the JPEG stream>`. Tokens of other frames are
computed again into a new shard, and the newest shard counts; none is removed, as another run may be reading it.
"""

import contextlib
import errno
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache import fingerprint
from cache.errors import ConfigError, FingerprintMismatch
from cache.file_lock import locked
from cache.fingerprint import Fingerprint
from cache.progress import Progress
from cache.rows import ClipRows
from cache.shard import write_shard
from cache.sidecar import sidecars
from cache.store import StreamReader
from train.device import memory_advice
from train.sampling import Indices

logger = logging.getLogger(__name__)

BATCH_SIZE = 8
"""Clips that an encoder gets at a time; always so many, the last batch padded."""
_CLIPS_PER_SHARD = 64
_MEMORY_ADVICE = (
    f"Frozen tokens are always computed {BATCH_SIZE} clips at a time: free memory on the device, or give another "
    "--device; the tokens serve on every device"
)


@dataclass(frozen=True, kw_only=True)
class FrozenEncoder:
    """How a clip's cached frames become its tokens."""

    frames: StreamReader
    """The JPEG stream."""
    views: Callable[[str], Tensor]
    """Clip id -> (s, 3, S, S) uint8, the s pictures that make one row each."""
    instants: Callable[[int], Indices]
    """F -> (s,) which cached instants those pictures are of."""
    encode: Callable[[Tensor], Tensor]
    """(BATCH_SIZE, s, 3, S, S) uint8 -> (BATCH_SIZE, s, ...) tokens."""
    dtype: type[np.floating[Any]]
    """As the stream stores them."""


@dataclass(frozen=True, kw_only=True)
class TokenCache:
    """Where the tokens of one fingerprint are, under `root`."""

    root: Path
    fingerprint: Fingerprint

    @property
    def folder(self) -> Path:
        """`root/<first 16 hex digits of the fingerprint's sha256>`."""
        return self.root / self.fingerprint.sha256[:16]

    def reader(self) -> StreamReader | None:
        """The tokens that are there, or None if there are none yet."""
        if not (self.folder / fingerprint.FILE_NAME).exists():
            return None
        reader = StreamReader(self.folder)
        lines = reader.fingerprint.difference(self.fingerprint)
        if lines:
            raise FingerprintMismatch(f"{self.folder} was made with other settings: {'; '.join(lines)}")
        return reader


def sources_of(clip_ids: Sequence[str], frames: StreamReader | None, visual_prompts: StreamReader) -> dict[str, str]:
    """What the tokens of each clip must be made of: the video and its rows in the JPEG stream.

    Args:
        clip_ids: clips of both streams.
        frames: the JPEG stream; None if it was dropped: then tokens of any frames of the same video will do.
        visual_prompts: the stream that says which video, where there are no frames.
    """
    if frames is None:
        return {clip_id: f"{visual_prompts.provenance(clip_id).source_sha256}:" for clip_id in clip_ids}
    digests = {clip.id: clip.crc32 for sidecar in sidecars(frames.folder) for clip in sidecar.clips}
    return {clip_id: f"{frames.provenance(clip_id).source_sha256}:{digests[clip_id]:08x}" for clip_id in clip_ids}


def missing_tokens(tokens: StreamReader | None, sources: Mapping[str, str]) -> list[str]:
    """Clips of `sources` that have no tokens yet, or tokens that are made of something else; sorted."""
    if tokens is None:
        return sorted(sources)
    return sorted(
        clip_id
        for clip_id, source in sources.items()
        if clip_id not in tokens or not tokens.provenance(clip_id).source_sha256.startswith(source)
    )


def ensure_tokens(
    cache: TokenCache,
    sources: Mapping[str, str],
    build: Callable[[], FrozenEncoder],
    *,
    progress: bool,
) -> StreamReader:
    """The reader of all tokens of `sources`, after what is missing of them is computed.

    Args:
        cache: where they are.
        sources: what `sources_of` says of the clips.
        build: makes the encoder; called only if something is missing, before settings are fixed in the folder.
        progress: show a progress bar.

    Raises:
        ConfigError: the folder cannot be written, or the device has too little memory.
    """
    reader = cache.reader()
    if reader is not None and not missing_tokens(reader, sources):
        return reader
    with _claimed(cache.folder), memory_advice(_MEMORY_ADVICE):
        missing = {clip_id: sources[clip_id] for clip_id in missing_tokens(cache.reader(), sources)}
        if missing:
            encoder = build()
            fingerprint.ensure(cache.folder, cache.fingerprint)
            logger.info("computing tokens of %d clips into %s", len(missing), cache.folder)
            _compute(cache, missing, encoder, progress)
        return StreamReader(cache.folder)


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Makes the folder and waits until no other process computes into it."""
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / "lock", wait=True))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise ConfigError(
                f"tokens of the frozen encoder cannot be written into {folder} ({error.strerror}): give a folder of "
                "your own with --token-cache"
            ) from error
        yield


def _compute(cache: TokenCache, sources: Mapping[str, str], encoder: FrozenEncoder, progress: bool) -> None:
    clip_ids = list(sources)
    stream = cache.fingerprint.stream
    number = 1 + max((sidecar.number for sidecar in sidecars(cache.folder)), default=-1)
    with (
        Progress(len(clip_ids), stream.replace("_", " "), unit="clip") if progress else contextlib.nullcontext() as bar
    ):
        for start in range(0, len(clip_ids), _CLIPS_PER_SHARD):
            rows: list[ClipRows] = []
            shard = clip_ids[start : start + _CLIPS_PER_SHARD]
            for first in range(0, len(shard), BATCH_SIZE):
                batch = shard[first : first + BATCH_SIZE]
                tokens = _encode(batch, encoder)
                rows += [_clip_rows(stream, clip_id, sources[clip_id], tokens[clip_id], encoder) for clip_id in batch]
                if bar is not None:
                    bar.advance(len(batch))
            write_shard(cache.folder, number, stream, rows, fingerprint=cache.fingerprint)
            number += 1


def _encode(clip_ids: Sequence[str], encoder: FrozenEncoder) -> dict[str, npt.NDArray[Any]]:
    views = [encoder.views(clip_id) for clip_id in clip_ids]
    views += views[-1:] * (BATCH_SIZE - len(clip_ids))
    with torch.inference_mode():
        tokens = encoder.encode(torch.stack(views)).cpu().numpy().astype(encoder.dtype)
    return dict(zip(clip_ids, tokens, strict=False))


def _clip_rows(stream: str, clip_id: str, source: str, tokens: npt.NDArray[Any], encoder: FrozenEncoder) -> ClipRows:
    frames = encoder.frames
    instants = encoder.instants(frames.num_rows(clip_id))
    return ClipRows(
        clip_id=clip_id,
        fields={stream: tokens},
        pts_seconds=frames.pts_seconds(clip_id)[instants],
        frame_index=frames.frame_index(clip_id)[instants],
        provenance=replace(frames.provenance(clip_id), source_sha256=source),
    )
