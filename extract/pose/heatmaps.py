"""Heatmaps to joints in source pixels.

Why numpy: of equal maxima the first in row-major order must win, on every device; torch leaves the choice open on CUDA.
Why a joint without a positive value is missing and not at (0, 0): zero is a real pixel, and a mean over invented
zeros passes unnoticed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from extract.pose.crop import crop_regions, num_steps

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]

_MIN_LOG = 1e-10
_UDP_RANGE = (1e-3, 50.0)


def decode_joints(heatmaps: Floats, boxes: npt.ArrayLike, *, codec: str, stride: int = 4) -> tuple[Floats, Floats]:
    """Joints of one person per heatmap stack.

    Args:
        heatmaps: (m, J, h, w), finite.
        boxes: (m, 4) the boxes that were cropped, x1 y1 x2 y2 in source pixels.
        codec: `msra`, `dark` or `udp`; the one of the crop and of the weights.
        stride: input pixels per heatmap pixel.

    Returns:
        xy (m, J, 2) in source pixels, NaN where missing; may lie outside of the frame. score (m, J): the maximum of the
        map, about 0..1, 0 where missing.

    Raises:
        ValueError: a heatmap is not finite.
    """
    if not np.isfinite(heatmaps).all():
        raise ValueError("heatmaps hold NaN or infinity")
    height, width = heatmaps.shape[-2:]
    peaks, score = find_peaks(heatmaps)
    points = REFINEMENTS[codec](heatmaps, peaks)
    centre, size = crop_regions(boxes, height * stride, width * stride)
    steps = np.array([num_steps(width, codec), num_steps(height, codec)])
    xy = centre[:, None] + (points - steps / 2) * (size / steps)[:, None]  # (m, J, 2)
    missing = score <= 0
    xy[missing] = np.nan
    return xy.astype(np.float32), np.where(missing, np.float32(0), score)


def find_peaks(heatmaps: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """The first maximum of each map in row-major order: (m, J, 2) x y, and its value (m, J)."""
    flat = heatmaps.reshape(*heatmaps.shape[:2], heatmaps.shape[2] * heatmaps.shape[3])
    index = flat.argmax(axis=-1)
    score = np.take_along_axis(flat, index[..., None], axis=-1)[..., 0]
    rows, columns = np.divmod(index, heatmaps.shape[-1])
    return np.stack([columns, rows], axis=-1), score


def refine_msra(heatmaps: Floats, peaks: npt.NDArray[np.int64]) -> Points:
    """A quarter pixel towards the larger neighbour on each axis; peaks near the border stay (official code)."""
    height, width = heatmaps.shape[-2:]
    x, y = peaks[..., 0], peaks[..., 1]
    inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    at = _neighbours(heatmaps, np.where(inner, x, 1), np.where(inner, y, 1))
    shift = 0.25 * np.stack([np.sign(at(1, 0) - at(-1, 0)), np.sign(at(0, 1) - at(0, -1))], axis=-1)
    return peaks + shift * inner[..., None]


def refine_dark(heatmaps: Floats, peaks: npt.NDArray[np.int64]) -> Points:
    """One Newton step on the logarithm of the blurred map (Zhang et al., CVPR 2020)."""
    height, width = heatmaps.shape[-2:]
    x, y = peaks[..., 0], peaks[..., 1]
    inner = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    at = _neighbours(np.log(np.maximum(_blur(heatmaps), _MIN_LOG)), np.where(inner, x, 2), np.where(inner, y, 2))
    dx, dy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    dxx, dyy = ((at(2 * i, 2 * j) - 2 * at(0, 0) + at(-2 * i, -2 * j)) / 4 for i, j in ((1, 0), (0, 1)))
    dxy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    return _newton(peaks, (dx, dy), (dxx, dxy, dyy), inner)


def refine_udp(heatmaps: Floats, peaks: npt.NDArray[np.int64]) -> Points:
    """As `refine_dark` with next neighbours, up to the border, where edge values repeat (mmpose's UDPHeatmap)."""
    logarithms = np.log(np.clip(_blur(heatmaps), *_UDP_RANGE))
    padded = np.pad(logarithms, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    at = _neighbours(padded, peaks[..., 0] + 1, peaks[..., 1] + 1)
    dx, dy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    dxx, dyy = (at(i, j) - 2 * at(0, 0) + at(-i, -j) for i, j in ((1, 0), (0, 1)))
    around = at(1, 0) + at(0, 1) + at(-1, 0) + at(0, -1)
    dxy = (at(1, 1) + at(-1, -1) + 2 * at(0, 0) - around) / 2
    return _newton(peaks, (dx, dy), (dxx, dxy, dyy), np.ones(peaks.shape[:2], dtype=np.bool_))


def _newton(
    peaks: npt.NDArray[np.int64],
    gradient: tuple[Points, Points],
    hessian: tuple[Points, Points, Points],
    inner: npt.NDArray[np.bool_],
) -> Points:
    """One step from each peak to where the gradient vanishes; where `inner` (m, J) is False the peak stays."""
    dx, dy = gradient
    dxx, dxy, dyy = hessian
    determinant = dxx * dyy - dxy**2
    solvable = inner & (determinant != 0)
    safe = np.where(solvable, determinant, 1)
    step = np.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], axis=-1) / safe[..., None]  # -Hessian^-1 gradient
    return peaks.astype(np.float64) + np.where(solvable[..., None], step, 0.0)


REFINEMENTS: Mapping[str, Callable[[Floats, npt.NDArray[np.int64]], Points]] = {
    "msra": refine_msra,
    "dark": refine_dark,
    "udp": refine_udp,
}
"""How each codec gets from the highest pixel to the point between pixels."""


def merge_mirrored(
    heatmaps: Tensor, mirrored: Tensor, flip_order: npt.NDArray[np.int64], *, codec: str = "msra"
) -> Tensor:
    """Mean of the heatmaps of an image and of its mirror image.

    The mirrored maps are turned back, left and right joints change places, and the maps move one pixel to the right:
    with stride 4 they lie 0.75 pixels to the left, and 0.25 to the right after that (official SHIFT_HEATMAP). With
    the codec `udp` they lie in place and do not move.

    Args:
        heatmaps: (b, J, h, w) of the images.
        mirrored: (b, J, h, w) of `images.flip(-1)`.
        flip_order: (J,) joint order of a mirror image.
        codec: of the weights.
    """
    turned = mirrored.flip(-1)[:, flip_order.tolist()]
    if codec == "udp":
        return (heatmaps + turned) / 2
    shifted = turned.clone()
    shifted[..., 1:] = turned[..., :-1]
    return (heatmaps + shifted) / 2


def _neighbours(heatmaps: Array, x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]) -> Callable[[int, int], Points]:
    people, joints = np.ogrid[: heatmaps.shape[0], : heatmaps.shape[1]]
    return lambda dx, dy: heatmaps[people, joints, y + dy, x + dx].astype(np.float64)


def _blur(heatmaps: Floats) -> Array:
    """Gaussian as OpenCV's for the kernel that DARK uses, scaled back to each map's maximum."""
    radius = 5 if heatmaps.shape[-2] <= 64 else 8  # the maps were trained with sigma 2, or 3 at 384 x 288
    sigma = 0.3 * (radius - 1) + 0.8
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    blurred = heatmaps.astype(np.float64)
    for axis in (-1, -2):
        length = blurred.shape[axis]
        padding = [(0, 0)] * 4
        padding[axis] = (radius, radius)
        padded = np.pad(blurred, padding)
        blurred = sum(
            weight * np.take(padded, range(shift, shift + length), axis=axis) for shift, weight in enumerate(kernel)
        )
    peak = blurred.max(axis=(-2, -1), keepdims=True)
    return blurred * heatmaps.max(axis=(-2, -1), keepdims=True) / np.where(peak == 0, 1, peak)
