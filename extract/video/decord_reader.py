"""Fast sparse reading with decord, only where it is known to be right.

decord returns wrong frames without a word on AVI with B-frames, H.265, edit lists and missing times, other colours on
10-bit video, and hides damage: it only prints it. So `is_right_for` is a list of what was checked frame by frame
against sequential decoding, every reader is used for one sorted batch, and what decord prints counts as doubt.
"""

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt

from extract.video.probe import VideoInfo

_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_CODECS = ("h264", "vp9")
_PIXEL_FORMATS = ("yuv420p",)


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


def read(path: Path, info: VideoInfo, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Frames by index in display order.

    Args:
        path: the video.
        info: what `probe` said about it.
        indices: (k,) ascending and distinct.

    Returns:
        (k, H, W, 3) RGB.

    Raises:
        Doubt: decord fails, complains, or disagrees with the packet table.
    """
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
