"""Sequential decoding with PyAV: right on every file that FFmpeg reads, and holds few of the frames asked for.

Frames are chosen while they stream by: an instant belongs to the frame before the first one that is later. They are
handed on in pieces. Damage is counted frame by frame (all frames from a refused packet to the next key frame), so that
a scratch does not lose the rest of a long video, and so are frames that never come: FFmpeg says nothing about packets
that decode to nothing, and the frame before them would stay on screen.
"""

import heapq
import itertools
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from cache.errors import FailureCode, VideoError
from extract.video import container as containers
from extract.video.pieces import Images, Piece, frames_per_piece
from extract.video.probe import VideoInfo
from extract.video.sampling import frames_on_screen

DECODER = f"PyAV {av.__version__}"
_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_QUARTER_TURN = 90
_CLOCK_ROUNDING = 1e-6


@dataclass(eq=False)
class Reading:
    """What was chosen for one clip: (F,) lists that say which image, which frame and when, and counts of its span.

    Attributes:
        num_images: distinct frames so far, those handed on included.
        num_seen: frames and refused packets met from the first instant to the last.
        num_damaged: those of them that are damaged.
        num_promised: frames of the span by the packet table.
        num_decoded: frames of the span that came.
    """

    instants: npt.NDArray[np.float64]
    image_of_instant: list[int] = field(default_factory=list)
    frame_index: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    num_images: int = 0
    num_seen: int = 0
    num_damaged: int = 0
    num_promised: int = 0
    num_decoded: int = 0
    num_waiting: int = 0
    _room: Images = field(default_factory=lambda: np.empty((0, 0, 0, 3), np.uint8))

    def take(self, frame: "_TimedFrame") -> bool:
        """Shows `frame` at the next instant; True if its image is a new one, that waits from now on."""
        is_new = not self.frame_index or self.frame_index[-1] != frame.index
        if is_new:
            self._keep(frame.image())
        self.image_of_instant.append(self.num_images - 1)
        self.frame_index.append(frame.index)
        self.seconds.append(frame.seconds)
        return is_new

    def _keep(self, image: Images) -> None:
        """Copies an image to its place in the piece; stacking a list in the end would hold everything twice."""
        if self.num_waiting == 0:
            left = len(self.instants) - len(self.frame_index)
            self._room = np.empty((min(left, frames_per_piece(*image.shape[:2])), *image.shape), np.uint8)
        self._room[self.num_waiting] = image
        self.num_waiting += 1
        self.num_images += 1

    def pieces(self) -> Iterator[Piece]:
        """Hands on the images that wait, if there are any."""
        if self.num_waiting:
            images, self._room = self._room[: self.num_waiting], self._room[:0]
            self.num_waiting = 0
            yield Piece(first=self.num_images - len(images), images=images)

    @property
    def is_complete(self) -> bool:
        """True once every instant has a frame."""
        return len(self.frame_index) == len(self.instants)


@dataclass(eq=False)
class _TimedFrame:
    index: int
    seconds: float
    frame: av.VideoFrame
    info: VideoInfo
    damage_before: tuple[int, int]
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


class _FrameStream:
    """Displayed frames in order, each with its time; counts what was met so far, and keeps the times of all frames."""

    def __init__(self, path: Path, info: VideoInfo, seek_to: float, alive: Callable[[], None]) -> None:
        self.num_seen = 0
        self.num_damaged = 0
        self.times = array("d")
        self.info = info
        self._path, self._seek_to, self._alive = path, seek_to, alive
        self._start: int | None = None if info.has_missing_pts else info.start_pts

    def __iter__(self) -> Iterator[_TimedFrame]:
        info = self.info
        seconds, index, before = -1 / info.average_fps, -1, (0, 0)
        with containers.open_container(self._path) as container:
            stream = containers.video_stream(container)
            stream.codec_context.thread_count = 1  # processes, one per video, use the cores better than threads
            if self._seek_to:
                target = info.start_pts + int(self._seek_to / info.time_base)
                container.seek(target, stream=stream)
            for frame in self._decode(container, stream):
                seconds = self._seconds(frame, seconds)
                index = index + 1 if info.has_missing_pts else _index_at(info, seconds)
                self.times.append(seconds)
                yield _TimedFrame(index, seconds, frame, info, before)
                before = (self.num_seen, self.num_damaged)

    def count(self, instants: npt.NDArray[np.float64]) -> tuple[int, int]:
        """Frames from a clip's first instant to its last: how many the packet table promises, and how many came.

        Where a frame may be two packets (two fields), half of them are promised.
        """
        info, half_tick = self.info, float(self.info.time_base) / 2
        inside = np.array([instants[0] + _CLOCK_ROUNDING, instants[-1] - _CLOCK_ROUNDING])
        first, last = frames_on_screen(info.frame_seconds, inside)
        promised = int(max(last - first, 0)) + 1
        if info.is_interlaced:  # two packets may be one frame
            promised = -(-promised // 2)
        first, last = frames_on_screen(info.frame_seconds, instants[[0, -1]])
        begin, end = info.frame_seconds[first] - half_tick, info.frame_seconds[last] + half_tick
        return promised, bisect_right(self.times, end) - bisect_left(self.times, begin)

    def _seconds(self, frame: av.VideoFrame, previous: float) -> float:
        """The frame's time; one step after the previous one where the container gives none, or one in the past."""
        # Without presentation times, decoding times tell the order and the gaps, at a constant delay.
        ticks = frame.dts if self.info.has_missing_pts else frame.pts
        if ticks is not None:
            self._start = ticks if self._start is None else self._start
            seconds = float((ticks - self._start) * self.info.time_base)
            if seconds > previous:
                return seconds
        return previous + 1 / self.info.average_fps

    def _decode(
        self, container: av.container.InputContainer, stream: av.video.stream.VideoStream
    ) -> Iterator[av.VideoFrame]:
        is_broken = False  # since a refused packet; what is predicted from it is wrong until the next key frame
        for packet in _packets(container, stream):
            self._alive()
            try:
                frames = stream.codec_context.decode(packet)
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                is_broken = True
                self.num_seen += 1
                self.num_damaged += 1
                continue
            for frame in frames:
                is_broken = is_broken and not frame.key_frame
                self.num_seen += 1
                self.num_damaged += is_broken or frame.is_corrupt
                yield frame


def read(
    path: Path, info: VideoInfo, requests: Sequence[npt.NDArray[np.float64]], alive: Callable[[], None]
) -> Iterator[tuple[int, Piece | Reading]]:
    """Decodes the frames of several clips in one pass.

    Args:
        path: the video.
        info: what `probe` said about it.
        requests: per clip (F,) ascending instants in seconds since the first displayed frame.
        alive: called for every packet that is decoded.

    Yields:
        The position of a request with a piece of its frames, and after its last piece with its reading.

    Raises:
        VideoError: nothing can be decoded, or the frame size changes.
    """
    earliest = min(float(instants[0]) for instants in requests)
    can_seek = info.container in _SEEKABLE and not (info.has_missing_pts or info.has_edit_list)
    stream = _FrameStream(path, info, earliest if can_seek else 0.0, alive)
    frames = iter(stream)
    first = next(frames, None)
    if can_seek and (first is None or first.seconds > earliest):  # the seek overshot
        stream = _FrameStream(path, info, 0.0, alive)
        frames = iter(stream)
        first = next(frames, None)
    if first is None:
        raise VideoError(FailureCode.CORRUPT, "no frame can be decoded")
    yield from _serve(stream, first, frames, requests)


def _serve(
    stream: _FrameStream,
    held: _TimedFrame,
    frames: Iterator[_TimedFrame],
    requests: Sequence[npt.NDArray[np.float64]],
) -> Iterator[tuple[int, Piece | Reading]]:
    """Walks instants and frames together, both in the order of time."""
    events = heapq.merge(*(zip(given.tolist(), itertools.repeat(place)) for place, given in enumerate(requests)))
    readings = {position: Reading(instants) for position, instants in enumerate(requests)}
    started: dict[int, tuple[int, int]] = {}
    most = frames_per_piece(stream.info.height, stream.info.width)
    following, num_waiting = next(frames, None), 0
    for instant, position in events:
        while following is not None and following.seconds <= instant:
            held, following = following, next(frames, None)
        seen, damaged = started.setdefault(position, held.damage_before)
        num_waiting += readings[position].take(held)
        if num_waiting >= most:
            num_waiting = 0
            for other in started:
                yield from ((other, piece) for piece in readings[other].pieces())
        if readings[position].is_complete:
            del started[position]
            reading = readings.pop(position)
            num_waiting -= reading.num_waiting
            yield from ((position, piece) for piece in reading.pieces())
            reading.num_seen = stream.num_seen - seen
            reading.num_damaged = stream.num_damaged - damaged
            reading.num_promised, reading.num_decoded = stream.count(reading.instants)
            yield position, reading


def _index_at(info: VideoInfo, seconds: float) -> int:
    half_tick = float(info.time_base) / 2
    return max(0, int(np.searchsorted(info.frame_seconds, seconds + half_tick, side="right")) - 1)


def _packets(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Iterator["av.Packet[av.video.stream.VideoStream] | None"]:
    """Packets up to the end or to where the container breaks off, then None, which drains the decoder."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except av.error.FFmpegError:
        pass  # probe() has decided that enough of the file is there
    yield None
