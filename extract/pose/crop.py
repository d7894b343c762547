"""Boxes to network input: the crop that HRNet was trained on, in closed form.

Why not a plain resize of the box: the official code pads the box to the network's aspect, enlarges it by a quarter, and
samples without a half-pixel term. Weights learned that exact grid; a crop that looks right moves every joint.
Weights trained for UDP learned another one: there the region spans the centres of the first and the last pixel, W - 1
steps and not W (Huang et al., CVPR 2020), so that a mirror image lies exactly on the image.
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


def num_steps(length: int, codec: str) -> int:
    """Pixels from one edge of a crop or heatmap to the other, as the codec counts: W, or W - 1 for `udp`."""
    return length - 1 if codec == "udp" else length


def crop_people(frames: Tensor, boxes: npt.ArrayLike, *, height: int, width: int, codec: str = "msra") -> Tensor:
    """Crops one box out of each frame and normalises it.

    Bilinear without antialiasing; black outside of the frame, before normalisation, as in the official code.

    Args:
        frames: (m, H_source, W_source, 3) uint8 RGB.
        boxes: (m, 4) x1 y1 x2 y2 in pixels.
        height: H of the network's input.
        width: W of the network's input.
        codec: `msra`, `dark` or `udp`; the first two crop alike.

    Returns:
        (m, 3, H, W) float32 on the device of `frames`.
    """
    centre, size = crop_regions(boxes, height, width)
    columns, rows = (
        _sampled_pixels(centre[:, axis], size[:, axis], length, codec) for axis, length in enumerate((width, height))
    )
    grid = _sampling_grid(columns, rows, frames.shape[1:3]).to(frames.device)
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


def _sampled_pixels(centre: Floats, size: Floats, length: int, codec: str) -> Floats:
    """Pixels of the source under the crop's pixels along one axis: centre and size (m,) -> (m, length)."""
    steps = num_steps(length, codec)
    return centre[:, None] + (np.arange(length) - steps / 2) / steps * size[:, None]


def _sampling_grid(columns: Floats, rows: Floats, source: torch.Size) -> Tensor:
    """(m, H, W, 2) in grid_sample's units: -1 is the centre of the first source pixel, 1 that of the last."""
    shape = (len(columns), rows.shape[1], columns.shape[1])
    height, width = source
    x, y = (
        torch.from_numpy(2 * pixels / max(length - 1, 1) - 1).float()
        for pixels, length in ((columns, width), (rows, height))
    )
    return torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1)
