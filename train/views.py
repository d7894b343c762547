"""Views of a frame: where they lie in the cached JPEG, and how pixels and joints get into them.

A view is one box of whole JPEG pixels. Resizing, cropping and mirroring of the paper's recipe are composed into it, so
pixels are resampled once and joints move by exactly the numbers that the pixels move by. The one convention from here
on: pixel i covers [i, i + 1), so a picture of width W reaches from 0 to W, a patch is floor(x / patch size), and
mirroring maps x to W - x. The cache counts as HRNet does, a whole number being a pixel's centre; `joints_on_picture` is
where that ends.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from train.models.pevl_config import PeVLConfig

Extent = tuple[int, int]
"""Height and width of a picture, in pixels."""
_Box = tuple[int, int, int, int]
_TRIES = 10


@dataclass(frozen=True, kw_only=True)
class View:
    """A box of the JPEG, `height` x `width` pixels from (`top`, `left`), shown as `size` x `size`, maybe mirrored."""

    top: int
    left: int
    height: int
    width: int
    size: int
    mirrored: bool = False


def random_view(height: int, width: int, *, config: PeVLConfig, size: int, generator: np.random.Generator) -> View:
    """The training view: a crop of random area and aspect, and a flip, as AIM draws them.

    AIM resizes the frame first. Shares of its area do not depend on that, so the crop is drawn in JPEG pixels and
    resampled once; small crops keep their sharpness.

    Args:
        height: H of the JPEG.
        width: W of the JPEG.
        config: crop_area, crop_aspect, flip.
        size: S.
        generator: draws area, aspect, place and flip.
    """
    top, left, tall, wide = _random_box(height, width, config, generator)
    mirrored = bool(generator.random() < config.flip)
    return View(top=top, left=left, height=tall, width=wide, size=size, mirrored=mirrored)


def crop_views(height: int, width: int, *, size: int, crops: int) -> tuple[View, ...]:
    """The test views: short side to `size`, then square crops along the longer side (ThreeCrop, as AIM).

    Args:
        height: H of the JPEG.
        width: W of the JPEG.
        size: S.
        crops: 1 (centre) or 3 (left or top, centre, right or bottom).
    """
    side = min(height, width)
    shares = {1: (0.5,), 3: (0.0, 0.5, 1.0)}[crops]
    return tuple(
        View(top=int((height - side) * share), left=int((width - side) * share), height=side, width=side, size=size)
        for share in shares
    )


def view_frames(frames: Tensor, view: View) -> Tensor:
    """Frames as a view shows them. frames: (L, 3, H, W) uint8 -> (L, 3, S, S) uint8."""
    seen = functional.resized_crop(
        frames,
        view.top,
        view.left,
        view.height,
        view.width,
        [view.size, view.size],
        v2.InterpolationMode.BILINEAR,
        antialias=True,
    )
    return functional.horizontal_flip(seen) if view.mirrored else seen


def joints_on_picture(joints: Tensor, source: Extent, picture: Extent) -> Tensor:
    """Joints as the cache has them, moved to the JPEG that was made of the whole source frame.

    Args:
        joints: (T, J, 3) x, y, score; x and y in source pixels, a whole number being a pixel's centre.
        source: height and width of the video.
        picture: H and W of the JPEG.

    Returns:
        (T, J, 3), x and y in JPEG pixels, pixel i covering [i, i + 1).
    """
    scale = joints.new_tensor([picture[1] / source[1], picture[0] / source[0]])
    return torch.cat([(joints[..., :2] + 0.5) * scale, joints[..., 2:]], dim=-1)


def view_joints(joints: Tensor, view: View, *, flip_order: npt.NDArray[np.int64], min_score: float) -> Tensor:
    """Joints as a view shows them.

    Args:
        joints: (T, J, 3) x, y, score in JPEG pixels; x and y may be NaN where the score is 0.
        view: the view.
        flip_order: (J,) the order of the joints in a mirror image: left and right change places.
        min_score: a joint with a lower score is missing.

    Returns:
        (T, J, 3) x and y in pixels of the view, in [0, S); all three are 0 where a joint is missing or outside.
    """
    corner = joints.new_tensor([view.left, view.top])
    scale = joints.new_tensor([view.size / view.width, view.size / view.height])
    xy, score = (joints[..., :2] - corner) * scale, joints[..., 2:]
    if view.mirrored:
        order = torch.from_numpy(flip_order)
        xy, score = xy[:, order], score[:, order]
        xy = torch.stack([view.size - xy[..., 0], xy[..., 1]], dim=-1)
    inside = ((xy >= 0) & (xy < view.size)).all(dim=-1, keepdim=True)  # NaN compares as outside
    visible = inside & (score >= min_score) & (score > 0)
    return torch.where(visible, torch.cat([xy, score], dim=-1), 0.0)


def _random_box(height: int, width: int, config: PeVLConfig, generator: np.random.Generator) -> _Box:
    """Top, left, height, width of a crop whose area and log aspect are uniform; the centre square if none fits."""
    least_area, most_area = config.crop_area
    least_aspect, most_aspect = config.crop_aspect
    for _ in range(_TRIES):
        area = height * width * generator.uniform(least_area, most_area)
        aspect = math.exp(generator.uniform(math.log(least_aspect), math.log(most_aspect)))
        tall, wide = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < tall <= height and 0 < wide <= width:
            top, left = (int(generator.integers(slack + 1)) for slack in (height - tall, width - wide))
            return top, left, tall, wide
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side
