"""Sequential decoding by the ffmpeg program: another build, another process, its own account of the times.

The program comes with the package imageio-ffmpeg. It reads the whole file, applies edit lists and rotation as players
do, and says of every frame when it is shown.
"""

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

_TIME_BASE = re.compile(r"config in time_base: (\d+)/(\d+)")
_FRAME = re.compile(r"\] n: *(\d+) pts: *(-?\d+) .*? duration: *(\d+) .* s:(\d+)x(\d+) ")


def convert(*arguments: object) -> None:
    """Runs the program with these arguments, to make a file."""
    words = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(words, capture_output=True, check=True)


@dataclass(frozen=True)
class Account:
    """What the program says of a video: (N,) seconds of its frames since the first one, its end, its displayed size."""

    seconds: npt.NDArray[np.float64]
    end_seconds: float
    size: tuple[int, int]
    """Height and width."""

    def index_at(self, instants: npt.NDArray[np.float64]) -> list[int]:
        """The frames on screen: the last ones that have come."""
        return [int(np.flatnonzero(self.seconds <= instant + 1e-6)[-1]) for instant in instants]


def account(path: Path) -> Account:
    """Decodes the whole video."""
    said = _run(path, "showinfo", "-f", "null", "-")[1]
    (numerator, denominator), *_ = _TIME_BASE.findall(said)
    tick = Fraction(int(numerator), int(denominator))
    lines = [tuple(map(int, line)) for line in _FRAME.findall(said)]
    assert [number for number, *_ in lines] == list(range(len(lines)))
    seconds = np.array([float((pts - lines[0][1]) * tick) for _, pts, *_ in lines])
    *_, last_duration, width, height = lines[-1]
    return Account(seconds, seconds[-1] + float(last_duration * tick), (height, width))


def frames(path: Path, indices: Iterable[int], size: tuple[int, int]) -> dict[int, npt.NDArray[np.uint8]]:
    """RGB images of `size` by index in the order of display."""
    wanted = sorted(set(indices))
    choice = "+".join(rf"eq(n\,{index})" for index in wanted)
    data = _run(path, f"select='{choice}'", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")[0]
    images = np.frombuffer(data, np.uint8).reshape(-1, *size, 3)
    return dict(zip(wanted, images, strict=True))


def _run(path: Path, filters: str, *output: str) -> tuple[bytes, str]:
    # `file:` keeps names with a colon or a percent sign from being taken for a protocol or a pattern.
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-i", b"file:" + os.fsencode(path)]
    options = ["-vf", filters, "-fps_mode", "passthrough", "-sws_flags", "bilinear", "-an", "-sn"]
    done = subprocess.run([*program, *options, *output], capture_output=True, check=True)
    return done.stdout, done.stderr.decode(errors="replace")
