"""Which frames of its video a clip has in the cache, and which frame of a skeleton each of them is.

Joints are imported for the very instants of the cache's frames, or visual prompts, so that training can use them
together. A tool numbers the frames of what it read: of the whole video, or of the clip that was cut out of it. Where
a clip is a span of its video, only the video tells which frames that is; and where the cache has no other stream yet,
only the video tells the instants. Videos are read as extraction reads them, in processes that can be killed.

The decision to question: a skeleton whose number of frames is not the video's is refused, unless told otherwise. The
tool has seen another video (another rate, another cut), and joints of the wrong moment look like joints.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from cache.errors import FailureCode, VideoError
from cache.manifest import Clip
from cache.rows import Provenance
from cache.store import StreamReader
from extract.decoding.decode_process import Prepared, PrepareSettings, VideoJob, prepare_video
from extract.skeletons.people import Indices
from extract.video.decode import instants_of_span
from extract.video.probe import VideoInfo, probe
from extract.video.sampling import Sampling, Seconds, frames_on_screen

_EVERY_FRAME = Sampling(every_nth=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Located(Prepared):
    """What a process says of a clip: its instants as always, and the numbers of its frames in the video.

    Attributes:
        first_frame: the one on screen when the clip begins.
        num_frames: of the clip.
        num_video_frames: of the video.
    """

    first_frame: int = 0
    num_frames: int = 0
    num_video_frames: int = 0


class Piece(NamedTuple):
    """A piece of video that a tool may have read."""

    name: str
    first_frame: int
    num_frames: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipFrames:
    """F instants of a clip, and the pieces of video that its skeleton may be of."""

    frame_index: Indices
    """(F,) in the video."""
    pts_seconds: Seconds
    """(F,)."""
    provenance: Provenance
    num_video_frames: int
    clip: tuple[int, int] | None = None
    """First frame and number of frames of a clip that is a span of its video."""

    @classmethod
    def cached(cls, reader: StreamReader, clip_id: str, located: Located | None = None) -> Self:
        """Those of a stream of the cache; `located` for a span."""
        provenance = reader.provenance(clip_id)
        return cls(
            frame_index=np.array(reader.frame_index(clip_id)),
            pts_seconds=np.array(reader.pts_seconds(clip_id)),
            provenance=provenance,
            num_video_frames=provenance.decoded_num_frames,
            clip=None if located is None else (located.first_frame, located.num_frames),
        )

    @classmethod
    def of_video(cls, located: Located) -> Self:
        """Those that extraction would take."""
        assert located.provenance is not None
        return cls(
            frame_index=located.frame_index,
            pts_seconds=located.pts_seconds,
            provenance=located.provenance,
            num_video_frames=located.num_video_frames,
            clip=(located.first_frame, located.num_frames),
        )

    def piece_of(self, num_frames: int, *, tolerance: int) -> "Piece":
        """The piece of video that a skeleton is of: the whole, or the clip.

        Args:
            num_frames: T of the skeleton.
            tolerance: how many frames more or fewer it may have; they are taken to be missing at the end.

        Raises:
            VideoError: FRAME_COUNT, it is of neither.
        """
        pieces = [Piece("the video", 0, self.num_video_frames)]
        pieces += [] if self.clip is None else [Piece("the clip", *self.clip)]
        best = min(pieces, key=lambda piece: abs(piece.num_frames - num_frames))
        difference = abs(best.num_frames - num_frames)
        if difference > tolerance:
            counts = ", ".join(dict.fromkeys(f"{piece.name} {piece.num_frames}" for piece in pieces))
            raise VideoError(
                FailureCode.FRAME_COUNT,
                f"the skeleton has {num_frames} frames, {counts}: it is not stretched; if frames are missing at the "
                f"end, --tolerate-frames {difference} with --retry-failed takes it as it is",
            )
        return best


def is_span(clip: Clip) -> bool:
    """True if a clip may be less than its video."""
    return bool(clip.start_seconds) or clip.end_seconds is not None


def locate_video(job: VideoJob, settings: PrepareSettings, alive: Callable[[], None]) -> Iterator[Located]:
    """What a decode process does here: the instants of its clips without pixels, and where the clips begin."""
    spans = {span.clip_id: (span.start_seconds, span.end_seconds) for span in job.spans}
    info: VideoInfo | None = None
    for prepared in prepare_video(job, settings, alive):
        if prepared.failure is not None:
            yield Located(**vars(prepared))
            continue
        if info is None:
            limits = settings.decoding
            info = probe(job.path, max_pixels=limits.max_pixels, min_decodable=limits.min_decodable, alive=alive)
        frames = frames_on_screen(info.frame_seconds, instants_of_span(info, *spans[prepared.clip_id], _EVERY_FRAME))
        yield Located(
            **vars(prepared),
            first_frame=int(frames[0]),
            num_frames=len(frames),
            num_video_frames=info.num_frames,
        )
