"""Videos to measure speed on, where nobody has given any: as hard to decode as a person's own, as far as that goes.

What a decoder has to do depends on the picture. Noise does not compress and a flat picture is nothing, so this is a
detailed scene under a moving camera, with things that move on their own and the noise of a sensor: three quarters of a
megabit a second at 640 x 360, as videos of that size on the web.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

NUM_DISTINCT = 8
"""More videos are copies: no decoder remembers what it has decoded before."""
_NUM_THINGS = 6
_NOISE = 1.0  # standard deviation in grey levels
_STEEPNESS = 1.3  # amplitude as frequency to minus this: 1 is the world, and a lens and a small picture soften it
_ENCODER_OPTIONS = {"preset": "veryfast", "crf": "23"}

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class VideoShape:
    """H.264 with B-frames, and key frames far apart, as most encoders write it."""

    height: int = 360
    width: int = 640
    rate: int = 30
    seconds: float = 10.0
    gop_size: int = 250
    num_b_frames: int = 3

    @property
    def num_frames(self) -> int:
        """Of one video."""
        return round(self.seconds * self.rate)


def make_videos(folder: Path, count: int, shape: VideoShape | None = None) -> list[Path]:
    """`count` videos in a folder; those that are there already stay."""
    shape = shape or VideoShape()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{shape.width}x{shape.height}-{shape.rate}fps-{shape.seconds:g}s-gop{shape.gop_size}"
    paths = [folder / f"{name}-{number:03d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        unfinished = path.with_name(f"unfinished-{os.getpid()}-{path.name}")  # nobody takes half a video for a whole
        if number < NUM_DISTINCT:
            _encode(unfinished, shape, seed=number)
        else:
            shutil.copyfile(paths[number % NUM_DISTINCT], unfinished)
        unfinished.replace(path)
    return paths


def frames_of(shape: VideoShape, seed: int) -> Iterator[Picture]:
    """The (H, W, 3) frames of one video."""
    random = np.random.default_rng(seed)
    height, width = shape.height, shape.width
    scene = _texture(random, 3 * height, 3 * width)
    things = [_thing(random, height, width) for _ in range(_NUM_THINGS)]
    noise = random.normal(0, _NOISE, (2 * height, 2 * width)).astype(np.int16)
    for time in np.arange(shape.num_frames) / shape.rate:
        # Every second pixel of the scene: the camera moves in steps of half a pixel.
        top, left = (int(side / 2 * (1 + np.sin(0.5 * time + seed + side))) for side in (height, width))
        picture = scene[top : top + 2 * height : 2, left : left + 2 * width : 2].copy()
        for thing, start, speed in things:
            _paste(picture, thing, start + speed * time)
        grain = noise[int(random.integers(height)) :, int(random.integers(width)) :][:height, :width, None]
        yield (picture + grain).clip(0, 255).astype(np.uint8)


def _texture(random: np.random.Generator, height: int, width: int) -> npt.NDArray[np.int16]:
    """Detail at all scales, strong where coarse, as in photographs, with some edges."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    spectrum = np.fft.rfft2(random.standard_normal((height, width))) / np.maximum(frequency, 1 / height) ** _STEEPNESS
    grey = np.fft.irfft2(spectrum, s=(height, width))
    grey = 40 * grey / grey.std()
    for _ in range(60):  # walls, tables, screens
        top, left = random.integers(height), random.integers(width)
        bottom, right = (
            start + 1 + int(random.integers(side // 4 + 1)) for start, side in ((top, height), (left, width))
        )
        grey[top:bottom, left:right] += random.uniform(-50, 50)
    colour = random.uniform(0.7, 1.1, 3)
    return (128 + grey[..., None] * colour).clip(0, 255).astype(np.int16)


def _thing(
    random: np.random.Generator, height: int, width: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A textured patch with its place and its speed, in pixels and pixels a second."""
    sides = random.integers((height // 8, width // 12), (height // 3, width // 5))
    patch = _texture(random, *(int(side) for side in sides))
    return patch, random.uniform(0, 1, 2) * (height, width), random.uniform(-1, 1, 2) * (height / 4, width / 4)


def _paste(picture: npt.NDArray[np.int16], patch: npt.NDArray[np.int16], place: npt.NDArray[np.float64]) -> None:
    """What leaves the picture on one side comes back on the other."""
    rows = [int(place[0] + row) % picture.shape[0] for row in range(patch.shape[0])]
    columns = [int(place[1] + column) % picture.shape[1] for column in range(patch.shape[1])]
    picture[np.ix_(rows, columns)] = patch


def _encode(path: Path, shape: VideoShape, *, seed: int) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=shape.rate, options=_ENCODER_OPTIONS)
        stream.height, stream.width, stream.pix_fmt = shape.height, shape.width, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = shape.gop_size, shape.num_b_frames
        for picture in frames_of(shape, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
