import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from extract import open_clip_model
from extract.config import ImageEncoderConfig
from extract.decoding.resizing import preprocess
from extract.image_encoder import ImageEncoder, image_encoder_fingerprint, image_encoder_spec
from tests.extract.tiny_clip import tiny_clip

CPU = torch.device("cpu")
SIZES = [(240, 320), (360, 640), (641, 359), (224, 224), (37, 51), (500, 223), (225, 224), (90, 1000)]


def pictures(height: int, width: int, count: int = 2) -> npt.NDArray[np.uint8]:
    """Smooth colours with sharp edges and noise, as in real frames."""
    generator = np.random.default_rng(height)
    rows, columns = np.mgrid[:height, :width]
    smooth = 127 + 120 * np.sin(rows / 17 + columns / 23)
    edges = 80.0 * ((rows // 9 + columns // 7) % 2)
    noise = generator.normal(0, 20, (count, height, width, 3))
    return (smooth[None, ..., None] - edges[None, ..., None] + noise).clip(0, 255).astype(np.uint8)


def by_open_clip(frames: npt.NDArray[np.uint8], size: int, interpolation: str, resize_mode: str) -> torch.Tensor:
    transform = open_clip.transform.image_transform(
        size, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), interpolation=interpolation, resize_mode=resize_mode
    )
    return torch.stack([transform(Image.fromarray(frame)) for frame in frames]) * 255


@pytest.mark.parametrize(
    ("interpolation", "resize_mode", "largest", "mean"),
    # Squashing a tall picture rounds between other passes than Pillow does.
    [("bicubic", "shortest", 2, 0.01), ("bilinear", "shortest", 2, 0.01), ("bicubic", "squash", 6, 0.3)],
)
def test_preprocessing_equals_open_clips_own_within_a_few_grey_levels(
    interpolation: str, resize_mode: str, largest: int, mean: float
) -> None:
    spec, _ = image_encoder_spec(ImageEncoderConfig(model="ViT-B-32-quickgelu", pretrained="none"))
    changes: dict[str, Any] = {"interpolation": interpolation, "resize_mode": resize_mode}
    spec = dataclasses.replace(spec, **changes)
    for height, width in SIZES:
        frames = pictures(height, width)
        ours = preprocess(frames, spec)
        assert ours.dtype == torch.uint8
        assert ours.shape == (2, 3, 224, 224)
        difference = (ours.float() - by_open_clip(frames, 224, interpolation, resize_mode)).abs()
        assert difference.max() <= largest + 0.01, (height, width)
        assert difference.mean() <= mean, (height, width)


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessing_equals_torchvisions_bit_by_bit(interpolation: str, resize_mode: str) -> None:
    spec, _ = image_encoder_spec(ImageEncoderConfig(model="ViT-B-32-quickgelu", pretrained="none"))
    changes: dict[str, Any] = {"interpolation": interpolation, "resize_mode": resize_mode}
    spec = dataclasses.replace(spec, **changes)
    for height, width in [*SIZES, (241, 427), (1080, 1920)]:
        frames = pictures(height, width, count=1)
        resized = functional.resize(
            torch.from_numpy(frames).permute(0, 3, 1, 2),
            [224] if resize_mode == "shortest" else [224, 224],
            interpolation=InterpolationMode(interpolation),
            antialias=True,
        )
        assert torch.equal(preprocess(frames, spec), functional.center_crop(resized, [224, 224])), (height, width)


def test_preprocessing_leaves_read_only_frames_alone(tmp_path: Path) -> None:
    spec, _ = image_encoder_spec(tiny_clip(tmp_path))
    frames = pictures(40, 60)
    frames.setflags(write=False)
    assert preprocess(frames, spec).shape == (2, 3, 32, 32)
    assert preprocess(frames[:0], spec).shape == (0, 3, 32, 32)


def test_embeddings_equal_open_clips_own(tmp_path: Path) -> None:
    config = tiny_clip(tmp_path, seed=2)
    encoder = ImageEncoder.load(config, CPU)
    network = open_clip_model.build(config, CPU)
    images = preprocess(pictures(48, 64, count=4), encoder.spec)
    normalise = open_clip.transform.Normalize(mean=encoder.spec.mean, std=encoder.spec.std)
    with torch.no_grad():
        expected = network.encode_image(normalise(images.float() / 255))  # type: ignore[operator]
    torch.testing.assert_close(encoder.encode(images), expected)
    assert encoder.encode_all(images).dtype == torch.float32


def test_rows_do_not_depend_on_how_work_was_cut(tmp_path: Path) -> None:
    encoder = ImageEncoder.load(tiny_clip(tmp_path), CPU)
    images = preprocess(pictures(48, 64, count=9), encoder.spec)
    together = encoder.encode_all(images)
    assert together.shape == (9, 24)
    for start, stop in ((0, 1), (1, 4), (4, 9)):
        assert torch.equal(encoder.encode_all(images[start:stop]), together[start:stop])
    assert encoder.encode_all(images[:0]).shape == (0, 24)


def test_a_smaller_batch_after_running_out_of_memory_gives_close_rows(tmp_path: Path) -> None:
    encoder = ImageEncoder.load(tiny_clip(tmp_path), CPU)
    images = preprocess(pictures(48, 64, count=5), encoder.spec)
    torch.testing.assert_close(encoder.encode_all(images, batch_size=2), encoder.encode_all(images))


def test_bf16_is_close_and_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    half, full = tiny_clip(tmp_path, precision="bf16"), tiny_clip(tmp_path)
    encoders = [ImageEncoder.load(config, CPU) for config in (half, full)]
    images = preprocess(pictures(48, 64, count=4), encoders[0].spec)
    rows = [encoder.encode_all(images) for encoder in encoders]
    assert rows[0].dtype == torch.float32
    assert not torch.equal(rows[0], rows[1])
    assert torch.nn.functional.cosine_similarity(rows[0], rows[1]).min() > 0.999
    assert image_encoder_fingerprint(half) != image_encoder_fingerprint(full)


def test_the_fingerprint_holds_the_seed_of_random_weights_only(tmp_path: Path) -> None:
    model, preprocessing, _ = image_encoder_fingerprint(tiny_clip(tmp_path, seed=5))
    assert (model["weights"], model["weights_name"], model["seed"]) == ("none", "none", 5)
    assert preprocessing["image_size"] == 32
    torch.save(open_clip_model.build(tiny_clip(tmp_path), CPU).state_dict(), tmp_path / "tiny.pt")
    model, _, _ = image_encoder_fingerprint(tiny_clip(tmp_path, pretrained=str(tmp_path / "tiny.pt")))
    assert len(model["weights"]) == 64
    assert "seed" not in model


def test_the_towers_are_frozen(tmp_path: Path) -> None:
    network = open_clip_model.build(tiny_clip(tmp_path), CPU)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
