"""Frames with maps laid over them, as one small JPEG per clip: what a page shows of where a model looks.

The decision to question: under a map a frame turns grey and the map orange, so that a red apple is no attention, and
patches stay squares: a smoothed map would promise a precision that a patch does not have.
"""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Floats = npt.NDArray[np.floating]
Picture = npt.NDArray[np.uint8]
_TILE = 80
_GAP = 3
_ORANGE = np.array([213.0, 94.0, 0.0])
_STRONGEST = 0.85
_SATURATED = 98  # percentile of a clip's map that has the full colour already: attention sinks hide all else
_QUALITY = 72


def strip(
    pictures: Sequence[bytes],
    maps: Sequence[Floats],
    *,
    joints: Floats | None = None,
    joint_weights: Floats | None = None,
) -> bytes:
    """Frames in a row, and the same frames under each map below it.

    Args:
        pictures: F JPEGs of square views.
        maps: (F, P) each, patches row by row; what is not positive is left out, and each map has its own scale.
        joints: (F, J, 3), x and y in shares of the side and score; drawn on the first row where the score is above 0.
        joint_weights: (F, J): the larger, the larger the dot.

    Returns:
        A JPEG.

    Raises:
        ValueError: a map of another number of frames, or whose patches form no square.
    """
    frames = [_frame(jpeg) for jpeg in pictures]
    wrong = [values.shape for values in maps if len(values) != len(frames)]
    if wrong or not frames:
        raise ValueError(f"{len(frames)} frames with maps of {wrong}: give every map as many frames, and one at least")
    first = frames
    if joints is not None and joint_weights is not None:
        first = [_with_joints(*of_frame) for of_frame in zip(frames, joints, joint_weights, strict=True)]
    rows = [first, *(_under_map(frames, values) for values in maps)]
    height, width = (count * (_TILE + _GAP) - _GAP for count in (len(rows), len(frames)))
    sheet = np.full((height, width, 3), 128, np.uint8)
    for line, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            top, left = line * (_TILE + _GAP), column * (_TILE + _GAP)
            sheet[top : top + _TILE, left : left + _TILE] = tile
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _frame(jpeg: bytes) -> Picture:
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB").resize((_TILE, _TILE), Image.Resampling.LANCZOS))


def _under_map(frames: Sequence[Picture], values: Floats) -> list[Picture]:
    positive = np.clip(values.astype(np.float64), 0, None)
    top = np.percentile(positive, _SATURATED) or positive.max() or 1.0
    shares = np.clip(positive / top, 0, 1)
    return [_tinted(frame, _grid(of_frame)) for frame, of_frame in zip(frames, shares, strict=True)]


def _grid(shares: Floats) -> Floats:
    """(P,) to (_TILE, _TILE), patches as squares."""
    side = round(len(shares) ** 0.5)
    if side * side != len(shares):
        raise ValueError(f"{len(shares)} patches do not form a square")
    places = np.arange(_TILE) * side // _TILE
    return shares.reshape(side, side)[places][:, places]


def _tinted(frame: Picture, strength: Floats) -> Picture:
    grey = frame.mean(axis=-1, keepdims=True) * 0.8 + 30
    alpha = _STRONGEST * strength[..., None]
    return (grey * (1 - alpha) + _ORANGE * alpha).astype(np.uint8)


def _with_joints(frame: Picture, joints: Floats, weights: Floats) -> Picture:
    image = Image.fromarray(frame)
    pen = ImageDraw.Draw(image)
    seen = joints[:, 2] > 0
    largest = weights[seen].max(initial=0.0) or 1.0
    for (x, y), weight in zip(joints[seen, :2] * _TILE, weights[seen], strict=True):
        radius = 1.0 + 5.0 * float(weight / largest) ** 0.5
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline="white", fill=(213, 94, 0))
    return np.asarray(image)
