"""Opening a container and reading its table of frames, with FFmpeg's errors translated in one place.

The table comes from demultiplexing the whole file without decoding: it costs one read of the bytes (decoding needs
them anyway) and tells what headers get wrong: the true count, the true times, frames that an edit list hides.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from cache.errors import FailureCode, VideoError
from extract.video.source_file import file_error

# Only containers of video: a playlist named .mp4 could make FFmpeg open other files, a text file is a "tty" video.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf,nut,gif,apng,png_pipe"
_MAGIC = re.compile(rb"^(?:....(?:ftyp|moov|mdat|free|wide|skip)|\x1aE\xdf\xa3|RIFF....AVI )", re.DOTALL)
_WITHOUT_PTS = ("avi",)  # AVI stores none; FFmpeg's guesses run backwards where there are B-frames
_VP8_IS_SHOWN = 0x10  # in the first byte of a packet (RFC 6386, section 9.1); others only help to predict frames
_CLOCK = re.compile(r"^(\d+):(\d\d):(\d\d(?:\.\d+)?)$")


@dataclass(frozen=True, kw_only=True, eq=False)
class PacketTable:
    """What the packets of one stream say; times are in ticks of `time_base`."""

    ticks: npt.NDArray[np.int64]
    """(N,) presentation times, ascending; decoding times if not all packets have one; else empty."""
    has_pts: bool
    """True if `ticks` are presentation times."""
    num_packets: int
    """Packets that are to be displayed."""
    num_hidden: int
    """Packets that an edit list hides."""
    last_duration: int
    """Ticks that the last frame stays on screen, 0 if unknown."""
    end_seconds: float
    """End of the last packet of any stream."""
    broke_off: str
    """FFmpeg's message if reading stopped before the end of the file."""


@contextlib.contextmanager
def open_container(path: Path) -> Iterator[av.container.InputContainer]:
    """Opens a video for reading.

    Raises:
        VideoError: not a video, one whose header was cut off, or a file that has gone.
    """
    with contextlib.ExitStack() as stack:
        absolute = str(path.absolute())
        # FFmpeg's API takes UTF-8 names only; a name with other bytes is read through a Python file.
        is_utf8 = absolute.isprintable() or absolute.encode("utf-8", "replace").decode() == absolute
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        try:
            source = absolute if is_utf8 else stack.enter_context(path.open("rb"))
            container: Any = stack.enter_context(av.open(source, container_options=options, metadata_errors="replace"))
        except (OSError, av.error.FFmpegError, ValueError) as error:
            raise _unreadable(path, error) from error
        yield container


def video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    """The stream that players show: FFmpeg's best one, cover pictures left out.

    Raises:
        VideoError: only sound, or a codec without a decoder here.
    """
    covers = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not streams:
        kinds: list[str] = sorted({stream.type for stream in container.streams} - {"video"})
        covers_only = " (but a cover picture)" if container.streams.video else ""
        raise VideoError(
            FailureCode.NO_VIDEO_STREAM, f"the container holds {', '.join(kinds) or 'nothing'}, no video{covers_only}"
        )
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError(FailureCode.UNSUPPORTED_CODEC, "this FFmpeg has no decoder for the video stream")
    if container.format.name in ("gif", "apng", "png_pipe"):
        raise VideoError(FailureCode.UNSUPPORTED_CODEC, f"the file is a {container.format.name} picture, not a video")
    return stream


def read_packets(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, alive: Callable[[], None]
) -> PacketTable:
    """Reads all packets of a container without decoding them; calls `alive` for each."""
    pts: list[int | None] = []
    dts: list[int | None] = []
    num_hidden, end, broke_off, last = 0, Fraction(0), "", (-1, 0)
    is_vp8 = stream.codec_context.name == "vp8"
    try:
        for packet in container.demux():
            alive()
            if packet.pts is not None and packet.size:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream_index != stream.index or not packet.size:
                continue
            if packet.is_discard:
                num_hidden += 1
                continue
            if is_vp8 and not bytes(packet)[0] & _VP8_IS_SHOWN:
                continue
            pts.append(packet.pts)
            dts.append(packet.dts)
            if packet.pts is not None:
                last = max(last, (packet.pts, packet.duration or 0))
    except av.error.FFmpegError as error:
        broke_off = error.strerror or str(error)
    shown = _ascending(pts) if container.format.name not in _WITHOUT_PTS else None
    decoded = _ascending(dts)
    return PacketTable(
        ticks=_first_of(shown, decoded),
        has_pts=shown is not None,
        num_packets=len(pts),
        num_hidden=num_hidden,
        last_duration=last[1],
        end_seconds=float(end),
        broke_off=broke_off,
    )


def _ascending(ticks: list[int | None]) -> npt.NDArray[np.int64] | None:
    """Sorted distinct times; None if one is missing or given twice."""
    known = sorted({tick for tick in ticks if tick is not None})
    return np.array(known, np.int64) if known and len(known) == len(ticks) else None


def _first_of(*candidates: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
    return next((ticks for ticks in candidates if ticks is not None), np.empty(0, np.int64))


def ticks_to_seconds(stream: av.video.stream.VideoStream) -> Fraction:
    """Length of one tick of the stream's clock."""
    assert stream.time_base is not None  # every demuxer sets it
    return stream.time_base


def header_seconds(stream: av.video.stream.VideoStream) -> float | None:
    """Length of the video stream as its header states it, None if it does not."""
    if stream.duration:
        return float(stream.duration * ticks_to_seconds(stream))
    clock = _CLOCK.match(stream.metadata.get("DURATION", "")[:15])
    if clock:
        hours, minutes, seconds = clock.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return None


def _unreadable(path: Path, error: Exception) -> VideoError:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as gone:
        return file_error(path, gone)
    reason = getattr(error, "strerror", None) or str(error)
    if _MAGIC.match(start):
        return VideoError(
            FailureCode.TRUNCATED, f"starts like a video but its header is incomplete or damaged ({reason})"
        )
    return VideoError(FailureCode.NOT_A_VIDEO, f"no video container is recognised ({reason})")
