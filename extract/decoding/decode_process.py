"""What a decode process does: one video in, its clips out, ready for the models. It never sees a model.

Everything that can run once per frame on a processor core runs here (decoding, JPEG, resizing), so that it scales with
the number of processes. Decoded frames are used as they come and let go: only joints need whole ones, and those are
limited. Pixels leave through shared buffers; two of them per process, so that the next clip is decoded
while the parent still computes on the last one.
"""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.encoder_spec import ImageEncoderSpec
from cache.errors import FailureCode, VideoError
from cache.rows import NO_PROVENANCE, Failure, Provenance
from extract.config import DecodingConfig, FramesConfig
from extract.decoding.buffers import Buffer, bytes_needed
from extract.decoding.clip_pixels import ClipPixels
from extract.sources.video_root import check_inside
from extract.video.decode import DecodedTimes, decode_pieces, instants_of_span
from extract.video.pieces import Images, Piece
from extract.video.probe import VideoInfo, probe
from extract.video.sampling import Sampling, Seconds
from extract.video.source_file import check_file, source_identity

NUM_SLOTS = 2
_SECONDS_BETWEEN_SIGNS = 0.2


@dataclass(frozen=True, kw_only=True)
class ClipSpan:
    """A clip of a video; None means from the beginning, to the end."""

    clip_id: str
    start_seconds: float | None = None
    end_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class VideoJob:
    """Clips of one video and the streams to prepare them for."""

    path: Path
    spans: tuple[ClipSpan, ...]
    streams: frozenset[str]
    root: Path | None = None
    """The folder that the video must be in, wherever links lead; None: anywhere."""


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """What every job has in common."""

    sampling: Sampling
    decoding: DecodingConfig
    frames: FramesConfig
    encoder: ImageEncoderSpec | None
    """Needed for visual prompts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """One clip as the models take it, or why there is none. U is the number of distinct frames.

    Attributes:
        image_of_instant: (F,) index of the distinct frame shown at each instant.
        jpegs: U files, for the stream `frames`.
        pixels: `images` (U, H, W, 3) as displayed, for `joints`; `inputs` (U, 3, S, S), for `visual_prompts`.
    """

    clip_id: str
    failure: Failure | None = None
    provenance: Provenance | None = None
    pts_seconds: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0, np.float64))
    frame_index: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    image_of_instant: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    jpegs: tuple[bytes, ...] = ()
    pixels: Mapping[str, Images] = field(default_factory=dict)


Prepare = Callable[[VideoJob, PrepareSettings, Callable[[], None]], Iterator[Prepared]]


def prepare_video(job: VideoJob, settings: PrepareSettings, alive: Callable[[], None]) -> Iterator[Prepared]:
    """Decodes the clips of one video; yields every one of them once, failed ones with their reason.

    Args:
        job: the video and its clips.
        settings: what all jobs have in common.
        alive: called for every packet and frame that is read: a long file is not a stuck decoder.
    """
    limits = settings.decoding
    size, sha256 = 0, ""
    try:
        if job.root is not None:
            check_inside(job.path, job.root)
        check_file(job.path)
        size, sha256 = source_identity(job.path)
        info = probe(job.path, max_pixels=limits.max_pixels, min_decodable=limits.min_decodable, alive=alive)
    except VideoError as error:
        yield from (failed(span, _failure(error), size, sha256) for span in job.spans)
        return
    spans: list[ClipSpan] = []
    requests: list[Seconds] = []
    collections: dict[int, ClipPixels] = {}
    for span in job.spans:
        try:
            instants = instants_of_span(info, span.start_seconds, span.end_seconds, settings.sampling)
            collections[len(spans)] = _collection(info, instants, job.streams, settings)
        except VideoError as error:
            yield failed(span, _failure(error), size, sha256)
            continue
        spans.append(span)
        requests.append(instants)
    for position, event in decode_pieces(job.path, info, requests, min_decodable=limits.min_decodable, alive=alive):
        if isinstance(event, Piece):
            collections[position].add(event)
            continue
        span, collected = spans[position], collections.pop(position)
        if isinstance(event, VideoError):
            yield failed(span, _failure(event), size, sha256)
        elif collected.error is not None:
            yield failed(span, _failure(collected.error), size, sha256)
        else:
            yield _prepared(span, event, collected, _provenance(span, event, size, sha256))


def failed(span: ClipSpan, failure: Failure, source_size: int = 0, source_sha256: str = "") -> Prepared:
    """The result of a clip that cannot be read; the file's identity as far as it is known."""
    provenance = replace(
        NO_PROVENANCE,
        source_size=source_size,
        source_sha256=source_sha256,
        start_seconds=span.start_seconds,
        end_seconds=span.end_seconds,
    )
    return Prepared(clip_id=span.clip_id, failure=failure, provenance=provenance)


def run(connection: Connection, settings: PrepareSettings, prepare: Prepare) -> None:
    """The process: takes jobs from the connection until it is told to stop or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    if settings.encoder is not None:
        _load_preprocessing()
    mailbox = _Mailbox(connection)
    try:
        connection.send(("ready",))
        while (job := mailbox.next_job()) is not None:
            try:
                for clip in prepare(job, settings, mailbox.alive):
                    mailbox.send(clip)
            except MemoryError as error:
                message = f"one clip does not fit into memory ({error})"
                connection.send(("failed", Failure(code=FailureCode.OUT_OF_MEMORY, message=message)))
            connection.send(("done",))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


class _Mailbox:
    """This process's end of the connection: jobs, and buffers that are lent and given back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jobs: deque[VideoJob | None] = deque()
        self._free = deque(range(NUM_SLOTS))
        self._buffers: dict[int, Buffer] = {}
        self._spoke_at = 0.0

    def next_job(self) -> VideoJob | None:
        while not self._jobs:
            self._receive()
        return self._jobs.popleft()

    def alive(self) -> None:
        """Says that work goes on; often called, seldom sent."""
        now = time.monotonic()
        if now - self._spoke_at >= _SECONDS_BETWEEN_SIGNS:
            self._spoke_at = now
            self._connection.send(("alive",))

    def send(self, clip: Prepared) -> None:
        shapes = {name: array.shape for name, array in clip.pixels.items()}
        if not shapes:
            self._connection.send(("clip", clip, None, {}))
            return
        while not self._free:
            self._receive()
        slot = self._free.popleft()
        self._grow(slot, bytes_needed(shapes))
        for name, target in self._buffers[slot].arrays(shapes).items():
            target[...] = clip.pixels[name]
        light = Prepared(**{**vars(clip), "pixels": {}})
        self._connection.send(("clip", light, slot, shapes))

    def _grow(self, slot: int, num_bytes: int) -> None:
        before = self._buffers.get(slot)
        if before is not None and before.num_bytes >= num_bytes:
            return
        self._connection.send(("grow", slot, num_bytes))
        while self._buffers.get(slot) is before:
            self._receive()
        if before is not None:
            before.close()

    def _receive(self) -> None:
        kind, *content = self._connection.recv()
        if kind == "job":
            self._jobs.append(content[0])
        elif kind == "free":
            self._free.append(content[0])
        elif kind == "buffer":
            slot, path = content
            self._buffers[slot] = Buffer.open(path)


def _collection(info: VideoInfo, instants: Seconds, streams: frozenset[str], settings: PrepareSettings) -> ClipPixels:
    if "visual_prompts" in streams:
        assert settings.encoder is not None
    return ClipPixels(
        info,
        instants,
        joints="joints" in streams,
        frames=settings.frames if "frames" in streams else None,
        encoder=settings.encoder if "visual_prompts" in streams else None,
        max_bytes=settings.decoding.max_clip_bytes,
    )


def _prepared(span: ClipSpan, times: DecodedTimes, collected: ClipPixels, provenance: Provenance) -> Prepared:
    return Prepared(
        clip_id=span.clip_id,
        provenance=provenance,
        pts_seconds=times.pts_seconds,
        frame_index=times.frame_index,
        image_of_instant=times.image_of_instant,
        jpegs=tuple(collected.jpegs),
        pixels=collected.pixels,
    )


def _load_preprocessing() -> None:
    """Imports now what takes seconds to import, so that no video's clock runs meanwhile."""
    import torch

    import extract.decoding.resizing  # noqa: F401

    torch.set_num_threads(1)


def _failure(error: VideoError) -> Failure:
    return Failure(code=error.code, message=error.message)


def _provenance(span: ClipSpan, clip: DecodedTimes, size: int, sha256: str) -> Provenance:
    return Provenance(
        source_size=size,
        source_sha256=sha256,
        decoder=clip.decoder,
        height=clip.height,
        width=clip.width,
        nominal_num_frames=clip.nominal_num_frames,
        decoded_num_frames=clip.decoded_num_frames,
        num_distinct_frames=clip.num_distinct_frames,
        start_seconds=span.start_seconds,
        end_seconds=span.end_seconds,
    )
