"""Fast sparse reading with decord, only where it is known to be right.

decord returns wrong frames without a word on AVI with B-frames, H.265, edit lists and missing times, other colours on
10-bit video, and hides damage: it only prints it. So `is_right_for` is a list of what was checked frame by frame
against sequential decoding, every reader is used for one sorted batch, and what decord prints counts as doubt. A
reader that waited for us would decode ahead without a limit: it is closed before its frames are handed on.
"""

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt

from extract.video.pieces import Images, Piece, frames_per_piece
from extract.video.probe import VideoInfo

_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_CODECS = ("h264", "vp9")
_PIXEL_FORMATS = ("yuv420p",)
_FRAMES_PER_SEEK = 125
"""Decoded for one frame asked for: half of the usual distance between key frames."""


class Doubt(Exception):
    """decord may be wrong about this video: decode it sequentially."""


def decoder_name() -> str:
    """`decord 0.6.0`."""
    return f"decord {version('decord')}"


def is_installed() -> bool:
    """False on platforms without a wheel: PyAV decodes everything there."""
    return importlib.util.find_spec("decord") is not None


def is_right_for(info: VideoInfo) -> bool:
    """True if decord is installed and was found equal to sequential decoding on videos of this kind."""
    return (
        is_installed()
        and info.container in _CONTAINERS
        and info.codec in _CODECS
        and info.pixel_format in _PIXEL_FORMATS
        and info.rotation == 0
        and info.num_video_streams == 1
        and not (info.has_edit_list or info.has_missing_pts or info.is_variable_rate or info.is_interlaced)
    )


def is_worth_it(info: VideoInfo, index: npt.NDArray[np.int64]) -> bool:
    """False for many frames that lie close together: every piece would decode again what the last one had decoded.

    Args:
        info: the video.
        index: (F,) ascending.
    """
    num_frames = len(np.unique(index))
    if num_frames <= frames_per_piece(info.height, info.width):
        return True
    return int(index[-1] - index[0]) > _FRAMES_PER_SEEK * num_frames


def read(path: Path, info: VideoInfo, indices: npt.NDArray[np.int64], alive: Callable[[], None]) -> Iterator[Piece]:
    """Frames by index in display order.

    Args:
        path: the video.
        info: what `probe` said about it.
        indices: (U,) ascending and distinct.
        alive: called after every piece.

    Yields:
        Pieces of the U frames.

    Raises:
        Doubt: decord fails, complains, or disagrees with the packet table; what was yielded may be wrong.
    """
    size = frames_per_piece(info.height, info.width)
    for first in range(0, len(indices), size):
        yield Piece(first=first, images=_batch(path, info, indices[first : first + size]))
        alive()


def _batch(path: Path, info: VideoInfo, indices: npt.NDArray[np.int64]) -> Images:
    decord = _import()
    try:
        with _native_stderr() as complaints:
            reader = decord.VideoReader(os.fspath(path.absolute()), num_threads=1)
            if len(reader) != info.num_frames:
                raise Doubt(f"decord counts {len(reader)} frames, the container has {info.num_frames}")
            times = reader.get_frame_timestamp(indices.tolist())[:, 0]
            frames = reader.get_batch(indices.tolist()).asnumpy()
    except (decord.DECORDError, RuntimeError, UnicodeEncodeError, IndexError) as error:
        raise Doubt(f"decord: {error}") from error
    if complaints:
        raise Doubt(f"decord printed {complaints[0][:200]!r}")
    expected = info.frame_seconds[indices] + info.start_pts * float(info.time_base)
    if np.abs(times - expected).max() > 0.25 / info.average_fps:
        raise Doubt("decord's times differ from the container's")
    if frames.shape != (len(indices), info.height, info.width, 3):
        raise Doubt(f"decord gives frames {frames.shape}")
    return frames


def _import() -> ModuleType:
    import decord

    decord.logging.set_level(decord.logging.ERROR)
    return decord


@contextlib.contextmanager
def _native_stderr() -> Iterator[list[str]]:
    """Collects the lines that native code writes to file descriptor 2; Python's own stderr is flushed before."""
    lines: list[str] = []
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += file.read().decode("utf-8", "replace").splitlines()
