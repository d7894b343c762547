"""Frames of clips at given instants, by whichever decoder is right for the video.

The result is defined by one of them: sequential PyAV. decord only stands in where it gives the same pixels faster, and
any doubt sends the video back. Damage below `min_decodable` fails the clip; a scratch above it is kept and counted.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.errors import FailureCode, VideoError
from extract.video import decord_reader, pyav_reader
from extract.video.probe import MIN_DECODABLE, VideoInfo, unheard
from extract.video.sampling import frames_on_screen, uniform_instants

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedClip:
    """Frames of one clip as displayed; a frame shown at several instants is stored once.

    Attributes:
        images: (U, H, W, 3) uint8 RGB, the distinct frames.
        image_of_instant: (F,) index into `images`.
        pts_seconds: (F,) true times since the first displayed frame of the video.
        frame_index: (F,) in display order.
    """

    images: npt.NDArray[np.uint8]
    image_of_instant: npt.NDArray[np.int64]
    pts_seconds: npt.NDArray[np.float64]
    frame_index: npt.NDArray[np.int64]
    decoder: str
    nominal_num_frames: int
    decoded_num_frames: int

    @property
    def frames(self) -> npt.NDArray[np.uint8]:
        """(F, H, W, 3) uint8 RGB, repeated where instants repeat."""
        return self.images[self.image_of_instant]

    @property
    def num_distinct_frames(self) -> int:
        """U."""
        return len(self.images)

    @property
    def height(self) -> int:
        """Pixels, as displayed."""
        return self.images.shape[1]

    @property
    def width(self) -> int:
        """Pixels, as displayed."""
        return self.images.shape[2]


def instants_of_span(
    info: VideoInfo, start_seconds: float | None, end_seconds: float | None, num_frames: int
) -> npt.NDArray[np.float64]:
    """(F,) instants of a clip; an end after the video's end is the video's end.

    Raises:
        VideoError: TOO_SHORT, the clip begins after the video's end.
    """
    start = max(0.0, start_seconds or 0.0)
    end = info.duration_seconds if end_seconds is None else min(end_seconds, info.duration_seconds)
    if end <= start:
        raise VideoError(
            FailureCode.TOO_SHORT,
            f"the clip is {start:g} s to {'the end' if end_seconds is None else f'{end_seconds:g} s'}, "
            f"the video has {info.duration_seconds:.3f} s",
        )
    return uniform_instants(start, end, num_frames)


def decode(
    path: Path, info: VideoInfo, instants: npt.NDArray[np.float64], *, min_decodable: float = MIN_DECODABLE
) -> DecodedClip:
    """Frames at (F,) ascending instants in seconds since the first displayed frame.

    Raises:
        VideoError: less than `min_decodable` of the span can be decoded.
    """
    ((_, clip),) = decode_clips(path, info, [instants], min_decodable=min_decodable)
    if isinstance(clip, VideoError):
        raise clip
    return clip


def decode_clips(
    path: Path,
    info: VideoInfo,
    requests: Sequence[npt.NDArray[np.float64]],
    *,
    min_decodable: float = MIN_DECODABLE,
    alive: Callable[[], None] = unheard,
) -> Iterator[tuple[int, DecodedClip | VideoError]]:
    """Several clips of one video; sequential decoding reads it once.

    Args:
        path: the video.
        info: what `probe` said about it.
        requests: per clip (F,) ascending instants.
        min_decodable: smallest share of undamaged frames in a clip's span.
        alive: called for every frame that is decoded sequentially.

    Yields:
        The position of each request with its clip, or with the error of that clip; in the order they become ready.
    """
    remaining = dict(enumerate(requests))
    if decord_reader.is_right_for(info):
        try:
            for position, instants in enumerate(requests):
                clip = _from_decord(path, info, instants)
                yield position, clip
                del remaining[position]
        except decord_reader.Doubt as doubt:
            logger.info("%s: decoding sequentially, because %s", path.name, doubt)
    if remaining:
        yield from _sequential(path, info, remaining, min_decodable, alive)


def _from_decord(path: Path, info: VideoInfo, instants: npt.NDArray[np.float64]) -> DecodedClip:
    index = frames_on_screen(info.frame_seconds, instants)
    distinct, inverse = np.unique(index, return_inverse=True)
    return DecodedClip(
        images=decord_reader.read(path, info, distinct),
        image_of_instant=inverse.astype(np.int64),
        pts_seconds=info.frame_seconds[index],
        frame_index=index,
        decoder=decord_reader.decoder_name(),
        nominal_num_frames=info.nominal_num_frames,
        decoded_num_frames=info.num_frames,
    )


def _sequential(
    path: Path,
    info: VideoInfo,
    requests: dict[int, npt.NDArray[np.float64]],
    min_decodable: float,
    alive: Callable[[], None],
) -> Iterator[tuple[int, DecodedClip | VideoError]]:
    positions = list(requests)
    delivered: set[int] = set()
    try:
        for order, reading in pyav_reader.read(path, info, list(requests.values()), alive):
            delivered.add(positions[order])
            yield positions[order], _from_reading(info, reading, min_decodable)
    except VideoError as error:
        for position in positions:
            if position not in delivered:
                yield position, error


def _from_reading(info: VideoInfo, reading: pyav_reader.Reading, min_decodable: float) -> DecodedClip | VideoError:
    share = 1 - reading.num_damaged / max(1, reading.num_seen)
    if share < min_decodable:
        return VideoError(
            FailureCode.CORRUPT,
            f"{reading.num_damaged} of {reading.num_seen} frames are damaged (min_decodable = {min_decodable:g})",
        )
    return DecodedClip(
        images=reading.images,
        image_of_instant=np.array(reading.image_of_instant, np.int64),
        pts_seconds=np.array(reading.seconds, np.float64),
        frame_index=np.array(reading.frame_index, np.int64),
        decoder=pyav_reader.DECODER,
        nominal_num_frames=info.nominal_num_frames,
        decoded_num_frames=info.num_frames - reading.num_damaged,
    )
