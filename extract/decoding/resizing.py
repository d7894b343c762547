"""Frames to the image encoder's input size, in the decode processes: no model and no open_clip here.

Why resizing happens on uint8: torch's antialiased bicubic on bytes equals open_clip's own (PIL) preprocessing within 2
grey levels at a fraction of the time; on floats, or without antialiasing, it differs by up to 98. Sizes and corners are
torchvision's, which is not imported: it would cost every decode process two seconds and 160 MB.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cache.encoder_spec import ImageEncoderSpec


def preprocess(frames: npt.NDArray[np.uint8], spec: ImageEncoderSpec) -> Tensor:
    """Resizes and crops frames as open_clip does; normalisation follows on the device.

    Within 2 grey levels of open_clip's own, within 6 for models that squash the picture.

    Args:
        frames: (F, H, W, 3) uint8 RGB.
        spec: image size S, interpolation and way of resizing.

    Returns:
        (F, 3, S, S) uint8.
    """
    side = spec.image_size
    if not len(frames):
        return torch.zeros(0, 3, side, side, dtype=torch.uint8)
    pictures = torch.from_numpy(np.require(frames, requirements=["C", "W"])).permute(0, 3, 1, 2)  # (F, 3, H, W)
    height, width = pictures.shape[2:]
    size = (side, side)
    if spec.resize_mode == "shortest":
        short = min(height, width)
        size = int(side * height / short), int(side * width / short)
    if size != (height, width):
        pictures = functional.interpolate(pictures, size, mode=spec.interpolation, align_corners=False, antialias=True)
    top, left = (round((length - side) / 2) for length in size)
    return pictures[..., top : top + side, left : left + side].contiguous()
