"""Sequential decoding with PyAV: right on every file that FFmpeg reads, and never holds more than the frames asked for.

Frames are chosen while they stream by: an instant belongs to the frame before the first one that is later. Damage is
counted as FFmpeg players do, packet by packet, so that a scratch in a long video does not lose the rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from cache.errors import FailureCode, VideoError
from extract.video import container as containers
from extract.video.probe import VideoInfo

DECODER = f"PyAV {av.__version__}"
_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_QUARTER_TURN = 90


@dataclass(eq=False)
class Reading:
    """Frames chosen for one clip: `images` of the distinct ones, and the (F,) arrays that say which, where and when."""

    num_instants: int
    images: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    image_of_instant: list[int] = field(default_factory=list)
    frame_index: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    num_seen: int = 0
    num_damaged: int = 0

    def take(self, frame: "_TimedFrame") -> None:
        """Shows `frame` at the next instant."""
        if not self.frame_index or self.frame_index[-1] != frame.index:
            self.images.append(frame.image())
        self.image_of_instant.append(len(self.images) - 1)
        self.frame_index.append(frame.index)
        self.seconds.append(frame.seconds)

    @property
    def is_complete(self) -> bool:
        """True once every instant has a frame."""
        return len(self.frame_index) == self.num_instants


@dataclass(eq=False)
class _TimedFrame:
    index: int
    seconds: float
    frame: av.VideoFrame
    info: VideoInfo
    _image: npt.NDArray[np.uint8] | None = None

    def image(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) RGB, upright; clips that share the frame share the array."""
        if self._image is None:
            turns = self.info.rotation // _QUARTER_TURN
            self._image = np.ascontiguousarray(np.rot90(self.frame.to_ndarray(format="rgb24"), turns))
        if self._image.shape[:2] != (self.info.height, self.info.width):
            raise VideoError(
                FailureCode.RESOLUTION_CHANGE,
                f"starts as {self.info.width} x {self.info.height} and is {self._image.shape[1]} x "
                f"{self._image.shape[0]} at {self.seconds:.2f} s",
            )
        return self._image


@dataclass(eq=False)
class _Damage:
    """Running counts; the difference between two moments is the damage of a span."""

    num_seen: int = 0
    num_damaged: int = 0


def read(
    path: Path, info: VideoInfo, requests: Sequence[npt.NDArray[np.float64]]
) -> Iterator[tuple[int, Reading]]:
    """Decodes the frames of several clips in one pass.

    Args:
        path: the video.
        info: what `probe` said about it.
        requests: per clip (F,) ascending instants in seconds since the first displayed frame.

    Yields:
        The position of a request and its frames, as soon as its last instant is served.
    """
    earliest = min(float(instants[0]) for instants in requests)
    seek_to = earliest if info.container in _SEEKABLE and _has_reliable_times(info) else 0.0
    frames = _frames(path, info, seek_to)
    first = next(frames, None)
    if first is not None and seek_to and first[0].seconds > earliest:  # the seek overshot
        frames = _frames(path, info, 0.0)
        first = next(frames, None)
    if first is None:
        raise VideoError(FailureCode.CORRUPT, "no frame can be decoded")
    yield from _serve(first, frames, requests)


def _has_reliable_times(info: VideoInfo) -> bool:
    return not (info.has_missing_pts or info.has_edit_list)


def _serve(
    first: tuple["_TimedFrame", _Damage],
    frames: Iterator[tuple["_TimedFrame", _Damage]],
    requests: Sequence[npt.NDArray[np.float64]],
) -> Iterator[tuple[int, Reading]]:
    """Walks instants and frames together, both in the order of time."""
    events = sorted(
        (float(instant), position) for position, instants in enumerate(requests) for instant in instants
    )
    readings = [Reading(len(instants)) for instants in requests]
    started: dict[int, _Damage] = {}
    held, damage = first
    following = next(frames, None)
    for instant, position in events:
        while following is not None and following[0].seconds <= instant:
            held, damage = following
            following = next(frames, None)
        before = started.setdefault(position, damage)
        reading = readings[position]
        reading.take(held)
        if reading.is_complete:
            reading.num_seen = damage.num_seen - before.num_seen + 1
            reading.num_damaged = damage.num_damaged - before.num_damaged
            readings[position] = Reading(0)  # let go of the images
            yield position, reading


def _frames(path: Path, info: VideoInfo, seek_to: float) -> Iterator[tuple[_TimedFrame, _Damage]]:
    """Displayed frames in order with their times, and the damage met so far."""
    step = 1 / info.average_fps
    seconds, index, damage = -step, -1, _Damage()
    with containers.open_container(path) as container:
        stream = containers.video_stream(container)
        stream.thread_type = "SLICE"  # frame threads would delay errors and cost more than they save in a pool
        if seek_to:
            container.seek(info.start_pts + int(seek_to / info.time_base), stream=stream)
        for frame in _decode(container, stream, damage):
            pts = frame.pts
            if pts is None or info.has_missing_pts:
                seconds += step
            elif (found := float((pts - _start(info, index, pts)) * info.time_base)) > seconds:
                seconds = found
            else:
                seconds += step
            index = _index_of(info, seconds) if seek_to else index + 1
            yield _TimedFrame(index, seconds, frame, info), _Damage(damage.num_seen, damage.num_damaged)


def _start(info: VideoInfo, index: int, pts: int) -> int:
    return info.start_pts


def _index_of(info: VideoInfo, seconds: float) -> int:
    return int(np.argmin(np.abs(info.frame_seconds - seconds)))


def _decode(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, damage: _Damage
) -> Iterator[av.VideoFrame]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:  # the container breaks off here; probe() decided that enough is there
            packet = None
        try:
            frames = packet.decode() if packet is not None else stream.codec_context.decode(None)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            damage.num_seen += 1
            damage.num_damaged += 1
            continue
        for frame in frames:
            damage.num_seen += 1
            damage.num_damaged += frame.is_corrupt
            yield frame
        if packet is None:
            return
