"""Cached JPEGs to what the video encoder sees: decoding, the test view, the augmented view, normalisation.

One draw of the augmentation holds for all frames of a clip: a crop that jumps from frame to frame would be motion.
Frames stay uint8 until they are on the device: a batch of floats is four times as large on the bus. JPEGs are decoded
by simplejpeg where it is installed (the extra `fast`), in two thirds of Pillow's time and to the same pixels.
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

from train.colour import Change, brightness, change_colours, contrast, drop_colour, hue, saturation
from train.config import AugmentConfig

try:
    import simplejpeg
except ImportError:
    simplejpeg = None


def decode(jpegs: Sequence[bytes | memoryview]) -> Tensor:
    """JPEG files of equal size to (L, 3, H, W) uint8 RGB, channels last in memory.

    Raises:
        ValueError: a file is not a readable JPEG.
    """
    decode_one = _decode_by_pillow if simplejpeg is None else _decode_by_simplejpeg
    return torch.from_numpy(np.stack([decode_one(jpeg) for jpeg in jpegs])).permute(0, 3, 1, 2)


def _decode_by_pillow(jpeg: bytes | memoryview) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"a cached frame is not a readable JPEG: {error}") from error


def _decode_by_simplejpeg(jpeg: bytes | memoryview) -> npt.NDArray[np.uint8]:
    try:
        return simplejpeg.decode_jpeg(jpeg)
    except ValueError as error:
        raise ValueError(f"a cached frame is not a readable JPEG: {error}") from error


def centre_view(frames: Tensor, *, resize: int, size: int) -> Tensor:
    """The test view: short side to `resize`, centre crop. frames: (L, 3, H, W) uint8 -> (L, 3, size, size)."""
    if min(frames.shape[-2:]) != resize:
        frames = functional.resize(frames, [resize], v2.InterpolationMode.BILINEAR, antialias=True)
    return functional.center_crop(frames, [size, size])


def augmented_view(
    frames: Tensor, *, size: int, config: AugmentConfig, generator: np.random.Generator, out: Tensor | None = None
) -> Tensor:
    """The training view: multi-scale crop, flip, colour jitter, grey.

    Args:
        frames: (L, 3, H, W) uint8; crops are fastest with channels last in memory, as `decode` gives them.
        size: S.
        config: what may be drawn.
        generator: draws it.
        out: where to put the view; a new tensor without it.

    Returns:
        (L, 3, S, S) uint8, contiguous: `out`, if it was given.
    """
    crop = _random_crop(frames, size, config.scales, generator).numpy()
    if generator.random() < config.flip:
        crop = crop[..., ::-1]
    changes = _jitter(config, generator) if generator.random() < config.jitter else []
    if generator.random() < config.grey:
        changes.append((drop_colour, 0.0))
    out = torch.empty(crop.shape, dtype=torch.uint8) if out is None else out
    if changes:
        change_colours(crop, changes, out.numpy())
    else:
        np.copyto(out.numpy(), crop)
    return out


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


def _jitter(config: AugmentConfig, generator: np.random.Generator) -> list[tuple[Change, float]]:
    """The four changes with their amounts, in a random order."""
    changes: tuple[tuple[Change, float, float], ...] = (
        (brightness, 1.0, config.brightness),
        (contrast, 1.0, config.contrast),
        (saturation, 1.0, config.saturation),
        (hue, 0.0, config.hue),
    )
    order = [changes[int(index)] for index in generator.permutation(len(changes))]
    return [(change, neutral + float(generator.uniform(-strength, strength))) for change, neutral, strength in order]
