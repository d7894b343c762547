"""What a file is, before anything is decoded in earnest: one FailureCode per cause, or a VideoInfo.

decord answers eight different causes (no such file, a folder, a text file, ...) with the same sentence and hangs on a
FIFO, so the file system is asked first, then the container, and one frame is decoded for what only a frame knows
(rotation, true size).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from cache.errors import FailureCode, VideoError
from extract.video import container as containers
from extract.video.source_file import check_file

MAX_PIXELS = 33_177_600
MIN_DECODABLE = 0.9


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """One video stream. Times count from its first displayed frame; sizes are as displayed."""

    container: str
    codec: str
    pixel_format: str
    height: int
    width: int
    rotation: int
    """Degrees counter-clockwise that turn decoded frames upright: 0, 90, 180 or 270."""
    average_fps: float
    duration_seconds: float
    """From the first frame to the end of the last one that can be read."""
    nominal_num_frames: int
    """What the header promises, by its count or, without one, by its length."""
    num_frames: int
    """Packets that hold a displayed frame."""
    num_video_streams: int
    has_b_frames: bool
    has_edit_list: bool
    is_variable_rate: bool
    has_missing_pts: bool
    is_interlaced: bool
    start_pts: int
    """The first displayed frame, in ticks of `time_base`."""
    time_base: Fraction
    frame_seconds: npt.NDArray[np.float64] = field(compare=False, repr=False)
    """(N,) display time of every frame; where the container has no presentation times, a guess from the decoding
    times or the rate."""


def unheard() -> None:
    """Stands for the listener to signs of life where there is none."""


def probe(
    path: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    min_decodable: float = MIN_DECODABLE,
    alive: Callable[[], None] = unheard,
) -> VideoInfo:
    """Classifies a video file.

    Args:
        path: the file.
        max_pixels: largest frame, height x width.
        min_decodable: smallest share of the promised frames, or of the promised time, that must be there.
        alive: called for every packet that is read.

    Raises:
        VideoError: with one code per cause.
    """
    check_file(path)
    with containers.open_container(path) as container:
        stream = containers.video_stream(container)
        if stream.codec_context.width * stream.codec_context.height > max_pixels:
            size = f"{stream.codec_context.width} x {stream.codec_context.height}"
            raise VideoError(FailureCode.TOO_LARGE, f"frames of {size} exceed max_pixels = {max_pixels}")
        table = containers.read_packets(container, stream, alive)
        header = containers.header_seconds(stream)
        whole = float(container.duration) / av.time_base if container.duration else None
        if table.num_packets == 0:
            raise VideoError(FailureCode.TRUNCATED, "the header is there, the frames are not")
        info = _describe(container, stream, table, _Promise(header, whole), _first_frame(path))
    _check_complete(info, table, min_decodable)
    return info


def _first_frame(path: Path) -> av.VideoFrame:
    with containers.open_container(path) as container:
        stream = containers.video_stream(container)
        try:
            return next(container.decode(stream))
        except StopIteration:
            raise VideoError(FailureCode.CORRUPT, "the video stream holds no frame") from None
        except av.error.FFmpegError as error:
            raise VideoError(FailureCode.CORRUPT, f"the first frame cannot be decoded ({error.strerror})") from error


def _describe(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    table: containers.PacketTable,
    promise: "_Promise",
    frame: av.VideoFrame,
) -> VideoInfo:
    tick = containers.ticks_to_seconds(stream)
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    rotation = int(frame.rotation) % 360
    upright = rotation % 180 == 0
    seconds = _frame_seconds(table, tick, rate)
    last = float(table.last_duration * tick) if table.has_pts else 0.0
    duration = float(seconds[-1]) + (last or float(1 / rate)) if len(seconds) else 0.0
    return VideoInfo(
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=frame.format.name,
        height=frame.height if upright else frame.width,
        width=frame.width if upright else frame.height,
        rotation=rotation,
        average_fps=float(rate),
        duration_seconds=duration,
        nominal_num_frames=stream.frames or _nominal_from_time(table, duration, float(tick), promise),
        num_frames=table.num_packets,
        num_video_streams=len(container.streams.video),
        has_b_frames=bool(stream.codec_context.has_b_frames),
        has_edit_list=table.num_hidden > 0 or bool(table.has_pts and table.ticks[0] < 0),
        is_variable_rate=_is_variable(table.ticks),
        has_missing_pts=not table.has_pts,
        is_interlaced=bool(frame.interlaced_frame),
        start_pts=int(table.ticks[0]) if table.has_pts else 0,
        time_base=tick,
        frame_seconds=seconds,
    )


def _frame_seconds(table: containers.PacketTable, time_base: Fraction, rate: Fraction) -> npt.NDArray[np.float64]:
    if len(table.ticks):
        return (table.ticks - table.ticks[0]).astype(np.float64) * float(time_base)
    return np.arange(table.num_packets, dtype=np.float64) / float(rate)


def _is_variable(ticks: npt.NDArray[np.int64]) -> bool:
    """Steps that differ by more than rounding to a tick and a tenth of the usual step."""
    steps = np.diff(ticks)
    return bool(len(steps) and steps.max() - steps.min() > max(1.0, 0.1 * float(np.median(steps))))


@dataclass(frozen=True)
class _Promise:
    """Seconds that the header states, of the video stream and of the whole file."""

    video: float | None
    file: float | None


def _nominal_from_time(table: containers.PacketTable, duration: float, tick: float, promise: _Promise) -> int:
    """Frames that a container without a stored count promises: those that are there, and what fits into missing time.

    By time, because a rate times a length is no number of frames where the rate varies.
    """
    present = table.num_packets + table.num_hidden
    total = promise.file if promise.video is None else promise.video
    if not total or not duration:
        return present
    start = float(table.ticks[0]) * tick if len(table.ticks) else 0.0
    shown = duration if promise.video is not None else max(duration, table.end_seconds - start)
    total -= start if start < total else 0.0  # most clocks begin at 0 and not with the first frame
    last_step = float(table.ticks[-1] - table.ticks[-2]) * tick if len(table.ticks) > 1 else 0.0
    is_whole = total - shown <= last_step  # how long the last frame stays is often not stored
    return present if is_whole else table.num_hidden + round(table.num_packets * total / shown)


def _check_complete(info: VideoInfo, table: containers.PacketTable, min_decodable: float) -> None:
    share = info.num_frames / max(1, info.nominal_num_frames - table.num_hidden)
    if share < min_decodable:
        raise VideoError(
            FailureCode.TRUNCATED,
            f"only {share:.0%} of the promised {info.nominal_num_frames} frames are there "
            f"(min_decodable = {min_decodable:g}){': ' if table.broke_off else ''}{table.broke_off}",
        )
