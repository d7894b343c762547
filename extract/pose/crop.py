"""Boxes to network input: the crop that HRNet was trained on, in closed form.

Why not a plain resize of the box: the official code pads the box to the network's aspect, enlarges it by a quarter, and
samples without a half-pixel term. Weights learned that exact grid; a crop that looks right moves every joint.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PADDING = 1.25
_MAX_FLOATS = 2**26  # of frames held as float32 at a time

Floats = npt.NDArray[np.float64]


def crop_regions(boxes: npt.ArrayLike, height: int, width: int) -> tuple[Floats, Floats]:
    """The region of the frame that each box stands for.

    Args:
        boxes: (m, 4) x1 y1 x2 y2 in pixels, each with positive sides.
        height: H of the network's input.
        width: W of the network's input.

    Returns:
        centre (m, 2) and size (m, 2), x before y, in pixels; the size has the aspect W/H and is padded by a quarter;
        the region may leave the frame.

    Raises:
        ValueError: a box is empty, turned round or not finite.
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    sides = corners[:, 2:] - corners[:, :2]
    if not (np.isfinite(corners).all() and (sides > 0).all()):
        bad = corners[~(np.isfinite(corners).all(axis=1) & (sides > 0).all(axis=1))][0]
        raise ValueError(f"box {bad.tolist()}: finite x1 < x2 and y1 < y2 are needed")
    aspect = width / height
    tall = np.maximum(sides[:, 1], sides[:, 0] / aspect)
    return (corners[:, :2] + corners[:, 2:]) / 2, PADDING * np.stack([tall * aspect, tall], axis=1)


def crop_people(frames: Tensor, boxes: npt.ArrayLike, *, height: int, width: int) -> Tensor:
    """Crops one box out of each frame and normalises it.

    Bilinear without antialiasing; black outside of the frame, before normalisation, as in the official code.

    Args:
        frames: (m, H_source, W_source, 3) uint8 RGB.
        boxes: (m, 4) x1 y1 x2 y2 in pixels.
        height: H of the network's input.
        width: W of the network's input.

    Returns:
        (m, 3, H, W) float32 on the device of `frames`.
    """
    centre, size = crop_regions(boxes, height, width)
    grid = _sampling_grid(centre, size, height, width, frames.shape[1:3]).to(frames.device)
    step = max(1, _MAX_FLOATS // max(1, frames[:1].numel()))
    chunks = [
        F.grid_sample(
            frames[start : start + step].permute(0, 3, 1, 2).float(),
            grid[start : start + step],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=True,
        )
        for start in range(0, len(frames), step)
    ]
    if not chunks:
        return torch.zeros(0, 3, height, width, device=frames.device)
    crops = torch.cat(chunks) / 255
    mean, std = (torch.tensor(values, device=frames.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (crops - mean) / std


def _sampling_grid(centre: Floats, size: Floats, height: int, width: int, source: torch.Size) -> Tensor:
    """(m, H, W, 2) in grid_sample's units: -1 is the centre of the first source pixel, 1 that of the last."""
    axes = []
    for axis, (length, source_length) in enumerate(((width, source[1]), (height, source[0]))):
        steps = (np.arange(length) - length / 2) / length
        pixels = centre[:, axis, None] + steps[None, :] * size[:, axis, None]  # (m, length), pixels of the source
        axes.append(torch.from_numpy(2 * pixels / max(source_length - 1, 1) - 1).float())
    columns, rows = axes
    shape = (len(centre), height, width)
    return torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=-1)
