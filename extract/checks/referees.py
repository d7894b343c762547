"""Every frame of a video in the order of display, by a decoder that did not make the row in question.

The table of packets, the choice of a reader and the seeking of extraction are not used: a mistake there must not be
made twice. Rows of PyAV are judged by the ffmpeg program where there is one; without it by PyAV again, from the first
frame on, which finds wrong seeks and wrong files but not a mistake of the library, and the report says so.
"""

import bisect
import contextlib
import functools
import importlib
import math
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
import numpy as np
import numpy.typing as npt

from cache.errors import FailureCode, VideoError
from extract.video import container as containers

_SHARE_OF_PATIENCE = 0.8  # the program is stopped before the process that reads it is
_PLAIN_BITS = 8
_USUAL_RATE = 25
_TIME_BASE = re.compile(rb"config in time_base: *(\d+)/(\d+)")
_FRAME = re.compile(rb"\] n: *\d+ pts: *(-?\d+|NOPTS) .*? fmt:(\w+) .*?\bs:(\d+)x(\d+) i:(.)")
_VERSION = re.compile(rb"ffmpeg version (n?(\d*)\.?(\d*)\S*)")
_EVERY_FRAME = ("-fps_mode", "passthrough")
_EVERY_FRAME_BEFORE_5_1 = ("-vsync", "passthrough")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which frame of a video it is.

    Attributes:
        position: counted over the frames that the decoder gives.
        index: counted over the frames that the file holds, also those that cannot be decoded.
        seconds: since the first displayed frame; NaN if the decoder gives no time.
        is_plain: progressive with 8 bits a channel: all FFmpegs convert such frames to the same RGB, bit by bit.
    """

    position: int
    index: int
    seconds: float
    is_plain: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenFrame:
    """A frame as displayed; `image` gives its (H, W, 3) uint8 RGB picture."""

    place: Place
    image: Callable[[], npt.NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class Referee:
    """A decoder: the ffmpeg program at `program`, or PyAV."""

    name: str
    program: str = ""
    every_frame: tuple[str, ...] = _EVERY_FRAME
    """The program's option against repeating and dropping frames."""
    shares_library: bool = False
    """True if it is the decoder that made the row, only read from the first frame on."""

    def frames(self, path: Path, alive: Callable[[], None], *, timeout_seconds: float) -> Iterator[SeenFrame]:
        """All frames from the first one on; stop taking them when enough were seen.

        Args:
            path: the video.
            alive: called for every packet or frame that is read.
            timeout_seconds: a program that is silent for most of this is stopped.

        Raises:
            VideoError: nothing can be decoded, or the program is stuck.
        """
        if self.program:
            return _program_frames(self, path, alive, timeout_seconds * _SHARE_OF_PATIENCE)
        return _library_frames(path, alive)


def referee_for(decoder: str, ffmpeg: Referee | None) -> Referee:
    """Another decoder than `decoder`, a row's `Provenance.decoder`; `ffmpeg` is what `find_ffmpeg` gave."""
    if not decoder.startswith("PyAV"):
        return Referee(name=f"PyAV {av.__version__}")
    return ffmpeg or Referee(name=f"PyAV {av.__version__}", shares_library=True)


def find_ffmpeg() -> Referee | None:
    """The ffmpeg program on PATH, or the one of the package imageio-ffmpeg if that is installed."""
    program = shutil.which("ffmpeg") or _packaged_ffmpeg()
    if program is None:
        return None
    answer = subprocess.run([program, "-version"], capture_output=True, check=False, timeout=60)
    found = _VERSION.search(answer.stdout)
    if found is None:
        return None
    is_old = bool(found[2]) and (int(found[2]), int(found[3] or 0)) < (5, 1)
    option = _EVERY_FRAME_BEFORE_5_1 if is_old else _EVERY_FRAME
    return Referee(name=f"ffmpeg {found[1].decode()}", program=program, every_frame=option)


def _packaged_ffmpeg() -> str | None:
    with contextlib.suppress(ImportError, RuntimeError):
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    return None


def _library_frames(path: Path, alive: Callable[[], None]) -> Iterator[SeenFrame]:
    schedule = _read_schedule(path, alive)
    with containers.open_container(path) as container:
        stream = containers.video_stream(container)
        step = float(1 / (stream.average_rate or stream.guessed_rate or _USUAL_RATE))
        position, start, seconds = -1, schedule.start, -step
        for position, frame in enumerate(_decoded(container, stream, alive)):
            ticks = frame.dts if schedule.start is None else frame.pts
            start = ticks if start is None else start
            # Frames that the decoder held back to the end of an AVI have no time.
            known = None if ticks is None or start is None else float((ticks - start) * schedule.tick)
            seconds = seconds + step if known is None else known
            place = Place(
                position=position,
                index=schedule.index_of(ticks, position),
                seconds=seconds,
                is_plain=_is_plain(frame.format.name) and not frame.interlaced_frame,
            )
            yield SeenFrame(place=place, image=functools.partial(_upright, frame))
    if position < 0:
        raise VideoError(FailureCode.CORRUPT, "no frame can be decoded")


def _decoded(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, alive: Callable[[], None]
) -> Iterator[av.VideoFrame]:
    """Frames of all packets that the decoder accepts, up to where the file breaks off."""
    stream.codec_context.thread_count = 1
    with contextlib.suppress(av.error.FFmpegError):
        for packet in container.demux(stream):
            alive()
            if not packet.size and packet.dts is not None:
                continue  # AVI says so that the last frame stays; the packet without a time is the end
            with contextlib.suppress(av.error.InvalidDataError):
                yield from packet.decode()


def _upright(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))


def _picture(pixels: bytes, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(pixels, np.uint8).reshape(shape)


def _program_frames(referee: Referee, path: Path, alive: Callable[[], None], patience: float) -> Iterator[SeenFrame]:
    schedule = _read_schedule(path, alive)
    with _running(_command(referee, path, schedule.stream_index), patience) as program:
        position, start = -1, schedule.start
        # `showinfo` tells of a frame on stderr before its pixels come on stdout.
        for position, (ticks, tick, is_plain, shape) in enumerate(_told(program.messages)):
            pixels = program.pixels.read(math.prod(shape))
            if len(pixels) < math.prod(shape):
                break
            program.active_at = time.monotonic()
            alive()
            start = ticks if start is None else start
            place = Place(
                position=position,
                index=schedule.index_of(ticks, position),
                seconds=math.nan if ticks is None or start is None else float((ticks - start) * tick),
                is_plain=is_plain,
            )
            yield SeenFrame(place=place, image=functools.partial(_picture, pixels, shape))
        if program.was_stopped:
            message = f"{referee.name} gave no frame for {patience:g} s and was stopped"
            raise VideoError(FailureCode.TIMEOUT, message)
        if position < 0:
            raise VideoError(FailureCode.CORRUPT, f"{referee.name} decodes no frame of it")


def _command(referee: Referee, path: Path, index: int) -> list[str]:
    quiet = ["-hide_banner", "-nostdin", "-nostats", "-loglevel", "info"]
    given = ["-protocol_whitelist", "file,pipe", "-copyts", "-threads", "1", "-i", f"file:{path.absolute()}"]
    shown = ["-map", f"0:{index}", "-vf", "showinfo", *referee.every_frame, "-sws_flags", "bilinear"]
    return [referee.program, *quiet, *given, *shown, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]


@dataclass(eq=False)
class _Program:
    """A program that runs, its two pipes, and when it last gave a frame."""

    messages: IO[bytes]
    pixels: IO[bytes]
    active_at: float
    was_stopped: bool = False


@contextlib.contextmanager
def _running(command: list[str], patience: float) -> Iterator[_Program]:
    """Runs a program, and ends it when the block ends or it is silent for `patience` seconds."""
    environment = {**os.environ, "AV_LOG_FORCE_NOCOLOR": "1"}
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=pipe, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        program = _Program(process.stderr, process.stdout, time.monotonic())
        has_ended = threading.Event()

        def watch() -> None:
            while not has_ended.wait(min(1.0, patience / 10)):
                if time.monotonic() - program.active_at > patience:
                    program.was_stopped = True
                    process.kill()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield program
        finally:
            has_ended.set()
            watcher.join()
            process.kill()


def _told(messages: IO[bytes]) -> Iterator[tuple[int | None, Fraction, bool, tuple[int, int, int]]]:
    """Ticks, seconds of a tick, whether it is plain, and (H, W, 3) of every frame of which `showinfo` tells."""
    tick = Fraction(0)
    for line in messages:
        if base := _TIME_BASE.search(line):
            tick = Fraction(int(base[1]), int(base[2]))
        elif found := _FRAME.search(line):
            pts, pixel_format, width, height, scan = found.groups()
            ticks = None if pts == b"NOPTS" else int(pts)
            yield ticks, tick, scan == b"P" and _is_plain(pixel_format.decode()), (int(height), int(width), 3)


@dataclass(frozen=True, kw_only=True)
class _Schedule:
    """Which stream players show, and the ascending times of its displayed packets in ticks; none where they lack."""

    stream_index: int
    tick: Fraction
    times: tuple[int, ...]

    @property
    def start(self) -> int | None:
        return self.times[0] if self.times else None

    def index_of(self, ticks: int | None, position: int) -> int:
        return bisect.bisect_left(self.times, ticks) if self.times and ticks is not None else position


def _read_schedule(path: Path, alive: Callable[[], None]) -> _Schedule:
    """By the packets and not by the frames that a decoder gives: it drops those that it cannot decode."""
    times: list[int | None] = []
    with containers.open_container(path) as container:
        stream = containers.video_stream(container)
        with contextlib.suppress(av.error.FFmpegError):
            for packet in container.demux(stream):
                alive()
                if packet.size and not packet.is_discard:
                    times.append(packet.pts)
        known = {time for time in times if time is not None}
        is_whole = len(known) == len(times) and container.format.name != "avi"  # FFmpeg only guesses those of AVI
        tick = containers.ticks_to_seconds(stream)
        return _Schedule(stream_index=stream.index, tick=tick, times=tuple(sorted(known)) if is_whole else ())


def _is_plain(pixel_format: str) -> bool:
    try:
        return all(component.bits == _PLAIN_BITS for component in av.VideoFormat(pixel_format).components)
    except ValueError:  # a format that the program knows and PyAV does not
        return False
