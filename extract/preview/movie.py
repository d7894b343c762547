"""A clip as a film: every row of the joints, at the speed of the video where that can be watched.

Why rows of a long clip run faster than the video: 64 rows of a ten-minute clip would stand still for ten seconds each.
The strip above the picture tells the true time.
"""

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from cache import atomic
from extract.preview.clip_view import ClipView
from extract.preview.panel import draw_panel, panel_size

SLOWEST, FASTEST = 2, 30
"""Rows per second."""
_SHORT_SIDE, _LONGEST_SIDE = 480, 1280
_ENCODING = {"preset": "veryfast", "crf": "20", "threads": "1"}


def write_movie(view: ClipView, path: Path, *, min_score: float) -> None:
    """Writes a clip as H.264 in MP4; the file is whole or absent.

    Raises:
        CacheError: a cached frame is not a JPEG.
        StorageError: the disk is full.
    """
    width = movie_width(view)
    height = panel_size(view, width)[1]
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rows_per_second(view), options=_ENCODING)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        for picture in _pictures(view, width, min_score):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode())
    atomic.write_bytes(path, buffer.getbuffer())


def rows_per_second(view: ClipView) -> Fraction:
    """The video's own pace, unless that is too slow or too fast to look at."""
    steps = np.diff([figure.seconds for figure in view.figures])
    steps = steps[steps > 0]
    pace = 1 / float(np.median(steps)) if len(steps) else SLOWEST
    return Fraction(float(np.clip(pace, SLOWEST, FASTEST))).limit_denominator(1000)


def movie_width(view: ClipView) -> int:
    """Width of the picture: short side 480, long side at most 1280; small frames are enlarged."""
    scale = min(_SHORT_SIDE / min(view.height, view.width), _LONGEST_SIDE / max(view.height, view.width))
    return max(2, round(view.width * scale))


def _pictures(view: ClipView, width: int, min_score: float) -> Iterator[Image.Image]:
    """Panels of even height and width, as H.264 wants them."""
    for figure in view.figures:
        panel = draw_panel(view, figure, width=width, min_score=min_score)
        even = Image.new("RGB", (panel.width + panel.width % 2, panel.height + panel.height % 2))
        even.paste(panel)
        yield even
