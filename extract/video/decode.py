"""Frames of clips at given instants, by whichever decoder is right for the video.

The result is defined by one of them: sequential PyAV. decord only stands in where it gives the same pixels faster, and
any doubt sends the video back. Damage below `min_decodable` fails the clip; a scratch above it is kept and counted.
Frames come in pieces, because a clip may have any number of them; what is wrong with it may show only in the end.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.errors import FailureCode, VideoError
from extract.video import decord_reader, pyav_reader
from extract.video.pieces import Images, Piece
from extract.video.probe import MIN_DECODABLE, VideoInfo, unheard
from extract.video.sampling import (
    Sampling,
    Seconds,
    frames_on_screen,
    middles,
    nth_frame_instants,
    rate_instants,
    uniform_instants,
)

logger = logging.getLogger(__name__)

MAX_INSTANTS = 1_000_000
"""Of one clip: a damaged clock may claim a century."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedTimes:
    """What was decoded for one clip, without the pixels; a frame shown at several instants counts once.

    Attributes:
        image_of_instant: (F,) index of the distinct frame shown at each instant.
        pts_seconds: (F,) true times since the first displayed frame of the video.
        frame_index: (F,) in display order.
        num_distinct_frames: U.
        height: pixels, as displayed.
        width: pixels, as displayed.
    """

    image_of_instant: npt.NDArray[np.int64]
    pts_seconds: Seconds
    frame_index: npt.NDArray[np.int64]
    num_distinct_frames: int
    height: int
    width: int
    decoder: str
    nominal_num_frames: int
    decoded_num_frames: int


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedClip(DecodedTimes):
    """A whole clip; `images` are the distinct frames, (U, H, W, 3) uint8 RGB, as displayed."""

    images: Images

    @property
    def frames(self) -> Images:
        """(F, H, W, 3) uint8 RGB, repeated where instants repeat."""
        return self.images[self.image_of_instant]


def instants_of_span(
    info: VideoInfo, start_seconds: float | None, end_seconds: float | None, sampling: Sampling | int
) -> Seconds:
    """(F,) instants of a clip; an end after the video's end is the video's end. A number F stands for F uniform ones.

    Raises:
        VideoError: TOO_SHORT, the clip begins after the video's end; TOO_LARGE, more than `MAX_INSTANTS`.
    """
    if isinstance(sampling, int):
        sampling = Sampling(num_frames=sampling)
    start = max(0.0, start_seconds or 0.0)
    end = info.duration_seconds if end_seconds is None else min(end_seconds, info.duration_seconds)
    if end <= start:
        raise VideoError(
            FailureCode.TOO_SHORT,
            f"the clip is {start:g} s to {'the end' if end_seconds is None else f'{end_seconds:g} s'}, "
            f"the video has {info.duration_seconds:.3f} s",
        )
    if (end - start) * sampling.fps > MAX_INSTANTS:
        raise VideoError(
            FailureCode.TOO_LARGE,
            f"{end - start:g} s at extract.fps = {sampling.fps:g} are more than {MAX_INSTANTS} rows",
        )
    if sampling.fps:
        return rate_instants(start, end, sampling.fps)
    if sampling.num_frames:
        return uniform_instants(start, end, sampling.num_frames)
    return nth_frame_instants(
        info.frame_seconds,
        start,
        end,
        sampling.every_nth,
        duration=info.duration_seconds,
        tick=float(info.time_base),
    )


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
    requests: Sequence[Seconds],
    *,
    min_decodable: float = MIN_DECODABLE,
    alive: Callable[[], None] = unheard,
) -> Iterator[tuple[int, DecodedClip | VideoError]]:
    """Several whole clips of one video: what `decode_pieces` gives, put together.

    Yields:
        The position of each request with its clip, or with the error of that clip; in the order they become ready.
    """
    images: defaultdict[int, list[Images]] = defaultdict(list)
    for position, event in decode_pieces(path, info, requests, min_decodable=min_decodable, alive=alive):
        if isinstance(event, Piece):
            if event.first == 0:
                images[position].clear()
            images[position].append(event.images)
        elif isinstance(event, VideoError):
            images.pop(position, None)
            yield position, event
        else:
            kept = images.pop(position)
            yield position, DecodedClip(**vars(event), images=np.concatenate(kept) if len(kept) > 1 else kept[0])


def decode_pieces(
    path: Path,
    info: VideoInfo,
    requests: Sequence[Seconds],
    *,
    min_decodable: float = MIN_DECODABLE,
    alive: Callable[[], None] = unheard,
) -> Iterator[tuple[int, Piece | DecodedTimes | VideoError]]:
    """The frames of several clips of one video as they come; sequential decoding reads it once.

    Args:
        path: the video.
        info: what `probe` said about it.
        requests: per clip (F,) ascending instants.
        min_decodable: smallest share of undamaged frames in a clip's span, and of those that the container promises.
        alive: called for every frame that is decoded sequentially, and for every piece.

    Yields:
        The position of a request with a piece of it. After its last piece what it was, or the error that makes all of
        its pieces void. Clips may be mixed.
    """
    remaining = dict(enumerate(requests))
    dense: dict[int, Seconds] = {}
    if decord_reader.is_right_for(info):
        dense = _too_dense_for_decord(info, remaining)
        try:
            for position in [position for position in remaining if position not in dense]:
                yield from ((position, event) for event in _from_decord(path, info, requests[position], alive))
                del remaining[position]
        except decord_reader.Doubt as doubt:
            logger.info("%s: decoding sequentially, because %s", path.name, doubt)
    if remaining:
        for position, event in _sequential(path, info, remaining | dense, min_decodable, alive):
            if position in dense and isinstance(event, DecodedTimes):
                yield position, replace(event, pts_seconds=info.frame_seconds[event.frame_index])
            else:
                yield position, event


def _too_dense_for_decord(info: VideoInfo, requests: Mapping[int, Seconds]) -> dict[int, Seconds]:
    """Requests that are read sequentially although decord would be right: instants at which the same frames are shown.

    The result must be that of decord to the last bit, so frames and times are those of the packet table here too.
    """
    index = {position: frames_on_screen(info.frame_seconds, instants) for position, instants in requests.items()}
    shown = middles(info.frame_seconds, info.duration_seconds)
    return {
        position: shown[chosen] for position, chosen in index.items() if not decord_reader.is_worth_it(info, chosen)
    }


def _from_decord(
    path: Path, info: VideoInfo, instants: Seconds, alive: Callable[[], None]
) -> Iterator[Piece | DecodedTimes]:
    index = frames_on_screen(info.frame_seconds, instants)
    distinct, inverse = np.unique(index, return_inverse=True)
    yield from decord_reader.read(path, info, distinct, alive)
    yield DecodedTimes(
        image_of_instant=inverse.astype(np.int64),
        pts_seconds=info.frame_seconds[index],
        frame_index=index,
        num_distinct_frames=len(distinct),
        height=info.height,
        width=info.width,
        decoder=decord_reader.decoder_name(),
        nominal_num_frames=info.nominal_num_frames,
        decoded_num_frames=info.num_frames,
    )


def _sequential(
    path: Path,
    info: VideoInfo,
    requests: Mapping[int, Seconds],
    min_decodable: float,
    alive: Callable[[], None],
) -> Iterator[tuple[int, Piece | DecodedTimes | VideoError]]:
    positions = list(requests)
    delivered: set[int] = set()
    try:
        for order, event in pyav_reader.read(path, info, list(requests.values()), alive):
            if isinstance(event, Piece):
                yield positions[order], event
            else:
                delivered.add(positions[order])
                yield positions[order], _from_reading(info, event, min_decodable)
    except VideoError as error:
        for position in positions:
            if position not in delivered:
                yield position, error


def _from_reading(info: VideoInfo, reading: pyav_reader.Reading, min_decodable: float) -> DecodedTimes | VideoError:
    share = 1 - reading.num_damaged / max(1, reading.num_seen)
    if share < min_decodable:
        return VideoError(
            FailureCode.CORRUPT,
            f"{reading.num_damaged} of {reading.num_seen} frames are damaged (min_decodable = {min_decodable:g})",
        )
    if reading.num_decoded < _fewest_frames(reading.num_promised, min_decodable):
        return VideoError(
            FailureCode.FRAME_COUNT,
            f"the container promises {reading.num_promised} frames from {reading.instants[0]:.2f} s to "
            f"{reading.instants[-1]:.2f} s, {reading.num_decoded} can be decoded (min_decodable = {min_decodable:g})",
        )
    return DecodedTimes(
        image_of_instant=np.array(reading.image_of_instant, np.int64),
        pts_seconds=np.array(reading.seconds, np.float64),
        frame_index=np.array(reading.frame_index, np.int64),
        num_distinct_frames=reading.num_images,
        height=info.height,
        width=info.width,
        decoder=pyav_reader.DECODER,
        nominal_num_frames=info.nominal_num_frames,
        decoded_num_frames=info.num_frames - reading.num_damaged,
    )


def _fewest_frames(promised: int, min_decodable: float) -> int:
    """Rounded down, so that one frame that is hard to count fails no short clip; but none at all is never enough."""
    return max(1, math.floor(min_decodable * promised)) if min_decodable else 0
