"""Pooled tokens of a frozen video encoder, computed once per encoder, L and view, and kept beside the cache.

They are a stream like any other, in a folder named after its fingerprint: CACHE/video_tokens/<digest>/. A lock makes
runs that start together (a study over seeds) compute them once; each shard of clips is a commit, so a stopped
computation continues. Always computed in fp32 at one constant batch size, the last batch padded.

The fingerprint knows settings, not content. So every clip's tokens remember what they are made of: `source_sha256` of
their provenance is `<that of the video>:<crc32 of the clip's rows in the JPEG stream>`. Tokens of other frames are
computed again into a new shard, and the newest shard counts; none is removed, as another run may be reading it.
"""

import contextlib
import errno
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cache import fingerprint
from cache.errors import ConfigError, FingerprintMismatch
from cache.fingerprint import RANDOM_WEIGHTS, Fingerprint
from cache.progress import Progress
from cache.rows import ClipRows
from cache.shard import write_shard
from cache.sidecar import sidecars
from cache.store import StreamReader
from cache.weights_file import WeightsFile
from train.config import TrainConfig
from train.data import centre_frames
from train.device import memory_advice
from train.encoders.timesformer import TimeSformer, pool_frames
from train.file_lock import locked
from train.frames import normalise
from train.sampling import segment_centres
from train.weights import load_timesformer

logger = logging.getLogger(__name__)

STREAM = "video_tokens"
_CLIPS_PER_SHARD = 64
_BATCH_SIZE = 8
_MEMORY_ADVICE = (
    f"Frozen video tokens are always computed {_BATCH_SIZE} clips at a time: free memory on the device, or give "
    "another --device; the tokens serve on every device"
)
_SHAPE = ("image_size", "patch_size", "width", "depth", "heads", "mlp_ratio")


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


def encoder_fingerprint(config: TrainConfig, weights: WeightsFile) -> Fingerprint:
    """Which video encoder: its shape and where its weights come from."""
    encoder = config.video_encoder
    model: dict[str, str | int] = {"name": "timesformer", "weights": weights.sha256, "weights_name": weights.name}
    model |= {"seed": encoder.seed} if weights.sha256 == RANDOM_WEIGHTS else {}
    model |= {name: getattr(encoder, name) for name in _SHAPE}
    return Fingerprint(stream="video_encoder", dtype="float32", model=model)


def token_fingerprint(config: TrainConfig, encoder: Fingerprint, frames_sha256: str) -> Fingerprint:
    """What makes tokens: encoder, the JPEG stream they are computed from, view, L, pooling."""
    look = config.video_encoder
    view = {"resize": look.resize, "centre_crop": look.image_size, "mean": look.mean, "std": look.std}
    return Fingerprint(
        stream=STREAM,
        dtype="float32",
        model=encoder.model,
        preprocessing=view | {"frames_sha256": frames_sha256, "pool": config.cmdcl.frame_pool},
        sampling={"num_frames": config.num_frames, "instants": "segment_centres"},
    )


def find_token_cache(
    root: Path, config: TrainConfig, encoder: Fingerprint, frames_sha256: str | None
) -> TokenCache | None:
    """The token cache of a configuration.

    Args:
        root: folder of token caches.
        config: the run's configuration.
        encoder: the video encoder's fingerprint.
        frames_sha256: fingerprint of the JPEG stream; None if it was dropped: then tokens made before serve.

    Returns:
        The cache, which may still be empty; None if the frames are gone and no tokens were made of them.
    """
    if frames_sha256 is not None:
        return TokenCache(root=root, fingerprint=token_fingerprint(config, encoder, frames_sha256))
    for path in sorted(root.glob(f"*/{fingerprint.FILE_NAME}")):
        stored = fingerprint.load(path.parent)
        asked = token_fingerprint(config, encoder, str(stored.preprocessing.get("frames_sha256")))
        if stored.sha256 == asked.sha256:
            return TokenCache(root=root, fingerprint=asked)
    return None


def ensure_tokens(
    cache: TokenCache,
    frames: StreamReader,
    sources: Mapping[str, str],
    *,
    config: TrainConfig,
    weights: WeightsFile,
    device: torch.device,
    progress: bool,
) -> StreamReader:
    """Computes what is missing of the tokens of `sources` and returns the reader of all of them.

    Raises:
        ConfigError: the folder cannot be written, or the device has too little memory.
    """
    with _claimed(cache.folder), memory_advice(_MEMORY_ADVICE):
        fingerprint.ensure(cache.folder, cache.fingerprint)
        missing = {clip_id: sources[clip_id] for clip_id in missing_tokens(cache.reader(), sources)}
        if missing:
            logger.info("computing frozen video tokens of %d clips into %s", len(missing), cache.folder)
            _compute(cache, frames, missing, config, build_encoder(config, weights).to(device).eval(), progress)
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
                f"frozen video tokens cannot be written into {folder} ({error.strerror}): give a folder of your own "
                "with --token-cache"
            ) from error
        yield


def build_encoder(config: TrainConfig, weights: WeightsFile) -> TimeSformer:
    """The video encoder with its weights; random ones depend on video_encoder.seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.video_encoder.seed)
        return load_timesformer(config.video_encoder.timesformer(config.num_frames), weights)


def _compute(
    cache: TokenCache,
    frames: StreamReader,
    sources: Mapping[str, str],
    config: TrainConfig,
    encoder: TimeSformer,
    progress: bool,
) -> None:
    clip_ids = list(sources)
    number = 1 + max((sidecar.number for sidecar in sidecars(cache.folder)), default=-1)
    with Progress(len(clip_ids), "video tokens", unit="clip") if progress else contextlib.nullcontext() as bar:
        for start in range(0, len(clip_ids), _CLIPS_PER_SHARD):
            rows: list[ClipRows] = []
            shard = clip_ids[start : start + _CLIPS_PER_SHARD]
            for first in range(0, len(shard), _BATCH_SIZE):
                batch = shard[first : first + _BATCH_SIZE]
                rows += _rows(frames, {clip_id: sources[clip_id] for clip_id in batch}, config, encoder)
                if bar is not None:
                    bar.advance(len(batch))
            write_shard(cache.folder, number, STREAM, rows, fingerprint=cache.fingerprint)
            number += 1


def _rows(
    frames: StreamReader, sources: Mapping[str, str], config: TrainConfig, encoder: TimeSformer
) -> list[ClipRows]:
    pictures = [centre_frames(frames, clip_id, config) for clip_id in sources]
    pictures += pictures[-1:] * (_BATCH_SIZE - len(sources))
    views = torch.stack(pictures).to(encoder.cls_token.device)
    with torch.inference_mode():
        views = normalise(views, config.video_encoder.mean, config.video_encoder.std)
        tokens = pool_frames(encoder(views), config.num_frames, config.cmdcl.frame_pool).cpu().numpy()
    rows = zip(sources.items(), tokens, strict=False)
    return [_clip_rows(frames, clip_id, source, row) for (clip_id, source), row in rows]


def _clip_rows(frames: StreamReader, clip_id: str, source: str, tokens: npt.NDArray[np.float32]) -> ClipRows:
    instants = segment_centres(frames.num_rows(clip_id), len(tokens))
    return ClipRows(
        clip_id=clip_id,
        fields={STREAM: tokens},
        pts_seconds=frames.pts_seconds(clip_id)[instants],
        frame_index=frames.frame_index(clip_id)[instants],
        provenance=replace(frames.provenance(clip_id), source_sha256=source),
    )
