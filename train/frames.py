"""Cached JPEGs to what the video encoder sees: decoding, the test view, the augmented view, normalisation.

One draw of the augmentation holds for all frames of a clip: a crop that jumps from frame to frame would be motion.
Frames stay uint8 until they are on the device: a batch of floats is four times as large on the bus.
"""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from train.config import AugmentConfig


def decode(jpegs: Sequence[bytes | memoryview]) -> Tensor:
    """JPEG files of equal size to (L, 3, H, W) uint8 RGB.

    Raises:
        ValueError: a file is not a readable JPEG.
    """
    return torch.from_numpy(np.stack([_decode_one(jpeg) for jpeg in jpegs])).permute(0, 3, 1, 2)


def _decode_one(jpeg: bytes | memoryview) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"a cached frame is not a readable JPEG: {error}") from error


def centre_view(frames: Tensor, *, resize: int, size: int) -> Tensor:
    """The test view: short side to `resize`, centre crop. frames: (L, 3, H, W) uint8 -> (L, 3, size, size)."""
    if min(frames.shape[-2:]) != resize:
        frames = functional.resize(frames, [resize], v2.InterpolationMode.BILINEAR, antialias=True)
    return functional.center_crop(frames, [size, size])


def augmented_view(frames: Tensor, *, size: int, config: AugmentConfig, generator: np.random.Generator) -> Tensor:
    """The training view: multi-scale crop, flip, colour jitter, grey.

    frames: (L, 3, H, W) uint8 -> (L, 3, size, size) uint8.
    """
    frames = _random_crop(frames, size, config.scales, generator)
    if generator.random() < config.flip:
        frames = functional.horizontal_flip(frames)
    if generator.random() < config.jitter:
        frames = _jitter(frames, config, generator)
    if generator.random() < config.grey:
        frames = functional.rgb_to_grayscale(frames, num_output_channels=3)
    return frames


def normalise(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """frames: (..., 3, H, W) uint8 -> float32, (rgb / 255 - mean) / std."""
    shift = torch.tensor(mean, device=frames.device).view(3, 1, 1)
    scale = torch.tensor(std, device=frames.device).view(3, 1, 1)
    return (frames.float() / 255 - shift) / scale


def _random_crop(frames: Tensor, size: int, scales: Sequence[float], generator: np.random.Generator) -> Tensor:
    height, width = frames.shape[-2:]
    side = max(1, round(min(height, width) * scales[int(generator.integers(len(scales)))]))
    top, left = (int(generator.integers(extent - side + 1)) for extent in (height, width))
    return functional.resized_crop(
        frames, top, left, side, side, [size, size], v2.InterpolationMode.BILINEAR, antialias=True
    )


def _jitter(frames: Tensor, config: AugmentConfig, generator: np.random.Generator) -> Tensor:
    changes = (
        (functional.adjust_brightness, 1.0, config.brightness),
        (functional.adjust_contrast, 1.0, config.contrast),
        (functional.adjust_saturation, 1.0, config.saturation),
        (functional.adjust_hue, 0.0, config.hue),
    )
    for index in generator.permutation(len(changes)):
        change, neutral, strength = changes[int(index)]
        frames = change(frames, neutral + float(generator.uniform(-strength, strength)))
    return frames
