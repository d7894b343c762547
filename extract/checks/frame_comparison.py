"""Rows of frames held against the frames of a video: is there a frame at each row's time, and is it the one stored?

A decoder that goes wrong shows a frame of a moment before or after, and a camera that rests makes all of these alike.
So a row is held against its neighbours too, not only against a bound: it is wrong if one of them fits clearly better.
"""

import io
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from extract.checks.referees import Place, SeenFrame
from extract.config import FramesConfig
from extract.decoding.clip_pixels import encode_jpeg

SAME_TIME_SECONDS = 0.0005
NEIGHBOURS = 8
"""Frames to either side that a row is held against: B-frames, edit lists and seeks go wrong by a few frames."""
_CLEARLY_BETTER = 0.75
_EXPLAINED_PLAIN = 2.0  # grey levels: other versions of the JPEG library; FFmpegs give the same RGB, bit by bit
_EXPLAINED_ELSE = 8.0  # measured up to 4.7 between two FFmpegs: 10 bits or interlaced to 8-bit RGB is not one way
_NOTHING_IN_COMMON = 255.0

Pixels = npt.NDArray[np.int16]


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameRow:
    """A row of the stream `frames`."""

    number: int
    seconds: float
    index: int
    jpeg: bytes | memoryview


@dataclass(kw_only=True, eq=False)
class Finding:
    """What the frames of the video say about one row; differences are means in grey levels.

    Attributes:
        seconds_off: distance in time to the nearest frame.
        place: of the frame at the row's time; None if there is none.
        difference: from that frame, 0 where the JPEGs have the same bytes.
        other: the best of its neighbours (position), and its difference.
    """

    row: FrameRow
    seconds_off: float
    place: Place | None = None
    difference: float = 0.0
    other: tuple[int, float] | None = None

    @property
    def fault(self) -> str:
        """What is wrong with the row; empty if nothing is."""
        if not math.isfinite(self.row.seconds):
            return f"has the time {self.row.seconds}"
        if self.place is None:
            return f"no frame is shown at {self.row.seconds:.3f} s, the nearest is {self.seconds_off:.3f} s away"
        where = f"frame {self.place.index} at {self.place.seconds:.3f} s"
        if self.row.index != self.place.index:
            return f"says that it is frame {self.row.index}, its time is that of {where}"
        if self.other is not None and self.other[1] < _CLEARLY_BETTER * self.difference:
            later = self.other[0] - self.place.position
            direction = "later" if later > 0 else "earlier"
            return (
                f"differs by {self.difference:.2f} grey levels from {where}, and by {self.other[1]:.2f} from the frame "
                f"{abs(later)} {direction}"
            )
        if self.difference > (_EXPLAINED_PLAIN if self.place.is_plain else _EXPLAINED_ELSE):
            return f"differs by {self.difference:.2f} grey levels from {where}"
        return ""


def compare(look: Callable[[], Iterator[SeenFrame]], rows: Sequence[FrameRow], config: FramesConfig) -> list[Finding]:
    """Holds every row against the frame of its time, and rows that differ against that frame's neighbours.

    Args:
        look: gives all frames of the video from the first one on; called a second time if rows differ.
        rows: of one clip.
        config: how the JPEGs were made.
    """
    findings = list(_at_their_times(look(), rows, config))
    doubtful = [finding for finding in findings if finding.difference > 0]
    if doubtful:
        _search_neighbours(look(), doubtful, config)
    return sorted(findings, key=lambda finding: finding.row.number)


def unpack_jpeg(jpeg: bytes | memoryview) -> Pixels | None:
    """(H, W, 3) RGB of a JPEG; None if it is no picture."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as picture:
            return np.asarray(picture.convert("RGB"), np.int16)
    except (OSError, Image.DecompressionBombError):
        return None


def _at_their_times(frames: Iterator[SeenFrame], rows: Iterable[FrameRow], config: FramesConfig) -> Iterator[Finding]:
    rows = list(rows)
    yield from (Finding(row=row, seconds_off=0.0) for row in rows if not math.isfinite(row.seconds))
    waiting = deque(sorted((row for row in rows if math.isfinite(row.seconds)), key=lambda row: row.seconds))
    before = 0.0
    for frame in frames:
        now, jpeg = frame.place.seconds, b""
        while waiting and waiting[0].seconds < now - SAME_TIME_SECONDS:
            row = waiting.popleft()
            yield Finding(row=row, seconds_off=min(abs(row.seconds - before), now - row.seconds))
        while waiting and abs(waiting[0].seconds - now) <= SAME_TIME_SECONDS:
            row, jpeg = waiting.popleft(), jpeg or encode_jpeg(frame.image(), config)
            difference = _jpeg_difference(row.jpeg, jpeg)
            yield Finding(row=row, seconds_off=abs(row.seconds - now), place=frame.place, difference=difference)
        if not waiting:
            return
        before = now if math.isfinite(now) else before
    yield from (Finding(row=row, seconds_off=abs(row.seconds - before)) for row in waiting)


def _search_neighbours(frames: Iterator[SeenFrame], doubtful: Sequence[Finding], config: FramesConfig) -> None:
    """Finds the best neighbour of each; only the rows near the frame at hand are unpacked at a time."""
    waiting = deque(sorted(((_position(finding), finding) for finding in doubtful), key=lambda pair: pair[0]))
    near: deque[tuple[int, Finding, Pixels | None]] = deque()
    for frame in frames:
        here = frame.place.position
        while waiting and waiting[0][0] <= here + NEIGHBOURS:
            position, finding = waiting.popleft()
            near.append((position, finding, unpack_jpeg(finding.row.jpeg)))
        while near and near[0][0] < here - NEIGHBOURS:
            near.popleft()
        if not (near or waiting):
            return
        if near:
            _hold_against(frame, near, config)


def _hold_against(frame: SeenFrame, near: Iterable[tuple[int, Finding, Pixels | None]], config: FramesConfig) -> None:
    picture = unpack_jpeg(encode_jpeg(frame.image(), config))
    for position, finding, stored in near:
        difference = _difference(stored, picture)
        is_other = position != frame.place.position
        if is_other and (finding.other is None or difference < finding.other[1]):
            finding.other = (frame.place.position, difference)


def _position(finding: Finding) -> int:
    assert finding.place is not None  # only a frame differs
    return finding.place.position


def _jpeg_difference(stored: bytes | memoryview, fresh: bytes) -> float:
    return 0.0 if stored == fresh else _difference(unpack_jpeg(stored), unpack_jpeg(fresh))


def _difference(first: Pixels | None, second: Pixels | None) -> float:
    if first is None or second is None or first.shape != second.shape:
        return _NOTHING_IN_COMMON
    return float(np.abs(first - second).mean())
