"""Small odd videos, made with PyAV so that every property is known."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

MILLISECOND = Fraction(1, 1000)


def pictures(num_frames: int, height: int, width: int, seed: int = 0) -> Iterator[npt.NDArray[np.uint8]]:
    """A block pattern that moves and a corner that counts: every frame differs from every other."""
    blocks = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    base = blocks.repeat(8, 0).repeat(8, 1)
    for index in range(num_frames):
        picture = np.roll(base, 3 * index, axis=1)
        picture[:16, :16] = index * 5 % 256
        yield picture


def make_video(
    path: Path,
    *,
    codec: str = "libx264",
    num_frames: int = 60,
    rate: int = 30,
    size: tuple[int, int] = (96, 128),
    b_frames: int = 2,
    gop: int = 20,
    times_ms: Sequence[int] | None = None,
    rotation: int = 0,
    pixel_format: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Encodes `pictures`; `size` is height, width."""
    height, width = size
    with av.open(str(path), "w", container_options=dict(container_options or {})) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = b_frames, gop
        if rotation:
            stream.set_display_rotation(rotation)
        if times_ms:
            stream.codec_context.time_base = MILLISECOND
        for index, picture in enumerate(pictures(num_frames, height, width, seed)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times_ms:
                frame.pts, frame.time_base = times_ms[index], MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def make_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def copy_from(source: Path, path: Path, start_seconds: float) -> Path:
    """Cuts without decoding, at a time that is no key frame: the usual way to get an edit list."""
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream: Any = given.streams.video[0]
        copy = container.add_stream_from_template(stream)
        offset = int(start_seconds / stream.time_base)
        given.seek(offset, stream=stream)
        packet: Any
        for packet in given.demux(stream):
            if packet.size:
                packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
                packet.stream = copy
                container.mux(packet)
    return path


def all_frames(path: Path, rotation: int = 0) -> list[npt.NDArray[np.uint8]]:
    """Every frame by plain sequential decoding, upright."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.best("video")
        return [np.rot90(frame.to_ndarray(format="rgb24"), rotation // 90) for frame in container.decode(stream)]
