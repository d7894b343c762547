import io

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from train import frames as pictures
from train.config import AugmentConfig
from train.frames import augmented_view, centre_view, decode, normalise

PLAIN = AugmentConfig(scales=(1.0,), flip=0.0, jitter=0.0, grey=0.0)


def jpeg_of(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def gradient(height: int = 24, width: int = 32) -> torch.Tensor:
    """(2, 3, H, W) uint8: red grows to the right, green downwards, blue is the frame number."""
    frames = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    frames[:, 0] = torch.arange(width, dtype=torch.uint8) * 4
    frames[:, 1] = torch.arange(height, dtype=torch.uint8)[:, None] * 4
    frames[1, 2] = 200
    return frames


@pytest.fixture(params=["simplejpeg", "pillow"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two decoders in turn."""
    name: str = request.param
    if name == "pillow":
        monkeypatch.setattr(pictures, "simplejpeg", None)
    else:
        pytest.importorskip("simplejpeg", reason="the extra `fast` is not installed")
    return name


@pytest.mark.usefixtures("decoder")
def test_decoding_gives_rgb_frames_in_order() -> None:
    red, blue = np.zeros((2, 16, 20, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    frames = decode([jpeg_of(red), memoryview(jpeg_of(blue))])
    assert frames.shape == (2, 3, 16, 20)
    assert frames.dtype == torch.uint8
    assert frames[0, :, 8, 8].tolist() == pytest.approx([255, 0, 0], abs=3)
    assert frames[1, :, 8, 8].tolist() == pytest.approx([0, 0, 255], abs=3)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_both_decoders_give_the_same_pixels(subsampling: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg", reason="the extra `fast` is not installed")
    generator = np.random.default_rng(subsampling)
    small = generator.integers(0, 256, (3, 9, 15, 3), dtype=np.uint8)
    jpegs = []
    for picture in small:
        buffer = io.BytesIO()
        Image.fromarray(picture).resize((91, 53)).save(buffer, "JPEG", quality=95, subsampling=subsampling)
        jpegs.append(buffer.getvalue())
    fast = decode(jpegs)
    monkeypatch.setattr(pictures, "simplejpeg", None)
    assert torch.equal(decode(jpegs), fast)


@pytest.mark.usefixtures("decoder")
def test_a_broken_jpeg_is_an_error_and_not_a_grey_frame() -> None:
    whole = jpeg_of(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for data in (b"not a picture", whole[: len(whole) // 2]):
        with pytest.raises(ValueError, match="not a readable JPEG"):
            decode([data])


def test_the_test_view_without_resizing_is_the_middle_of_the_frame() -> None:
    frames = gradient()
    assert torch.equal(centre_view(frames, resize=24, size=16), frames[:, :, 4:20, 8:24])


def test_the_test_view_scales_the_short_side_first() -> None:
    view = centre_view(gradient(48, 64), resize=24, size=24)
    assert view.shape == (2, 3, 24, 24)
    assert torch.allclose(view[0, 1, :, 0].float(), 2.0 * 4 * torch.arange(24) + 2, atol=3)


def test_all_frames_of_a_clip_get_the_same_crop() -> None:
    view = augmented_view(
        gradient(), size=24, config=AugmentConfig(jitter=0.0, grey=0.0), generator=np.random.default_rng(5)
    )
    assert torch.equal(view[0, :2], view[1, :2])


def test_an_augmentation_of_nothing_is_a_square_piece_of_the_frame() -> None:
    frames = gradient()
    view = augmented_view(frames, size=24, config=PLAIN, generator=np.random.default_rng(0))
    left = int(view[0, 0, 0, 0]) // 4
    assert torch.equal(view, frames[:, :, :, left : left + 24])


def test_flip_mirrors() -> None:
    plain = augmented_view(gradient(24, 24), size=24, config=PLAIN, generator=np.random.default_rng(0))
    config = AugmentConfig(scales=(1.0,), flip=1.0, jitter=0.0, grey=0.0)
    flipped = augmented_view(gradient(24, 24), size=24, config=config, generator=np.random.default_rng(0))
    assert torch.equal(flipped, plain.flip(-1))


def test_grey_has_no_colour_and_jitter_changes_colours() -> None:
    grey = augmented_view(
        gradient(), size=24, config=AugmentConfig(jitter=0.0, grey=1.0), generator=np.random.default_rng(0)
    )
    assert torch.equal(grey[:, 0], grey[:, 1])
    jittered = AugmentConfig(scales=(1.0,), flip=0.0, jitter=1.0, grey=0.0)
    view = augmented_view(gradient(24, 24), size=24, config=jittered, generator=np.random.default_rng(0))
    assert not torch.equal(view, gradient(24, 24))


def test_the_same_generator_gives_the_same_view() -> None:
    views = [
        augmented_view(gradient(), size=16, config=AugmentConfig(), generator=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


def test_a_view_may_be_put_where_it_is_needed() -> None:
    for seed, config in enumerate((AugmentConfig(), PLAIN)):
        place = torch.zeros(3, 2, 3, 16, 16, dtype=torch.uint8)
        draws = (np.random.default_rng(seed) for _ in range(2))
        alone, put = (
            augmented_view(gradient(), size=16, config=config, generator=next(draws), out=out)
            for out in (None, place[1])
        )
        assert torch.equal(place[1], alone)
        assert put.data_ptr() == place[1].data_ptr()
        assert not place[0].any()
        assert not place[2].any()


def test_normalising_maps_the_mean_to_zero_and_one_std_to_one() -> None:
    frames = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    normal = normalise(frames, (1.0, 0.5, 0.0), (0.5, 0.5, 0.5))
    assert normal[0, :, 0, 0].tolist() == [0.0, 1.0, 2.0]
