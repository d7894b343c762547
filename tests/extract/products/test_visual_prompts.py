from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.errors import FailureCode
from extract.frozen_models import FrozenModels
from extract.image_encoder import ImageEncoder
from extract.products import shared_batches
from extract.products.visual_prompts import VisualPrompts
from tests.extract.kitchen import make_config
from tests.extract.products.prepared_clips import FLAT, clip, drain

NUM_FRAMES = 20  # no multiple of the batch size, 8: batches may be shared


class Doubling(ImageEncoder):
    """Stands in for an image encoder: the embedding of an image is its first pixel and twice it, or worse."""

    def __init__(self, encoder: ImageEncoder) -> None:
        self.spec, self.config = encoder.spec, encoder.config
        self.device = torch.device("cuda")  # as far as the batching is concerned
        self.num_calls = 0

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        assert len(images) == self.config.batch_size
        self.num_calls += 1
        first = images[:, 0, 0, 0].float()
        return torch.stack([first, torch.where(first == 13, torch.inf, 2 * first)], dim=1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ImageEncoder:
    return ImageEncoder.load(make_config(tmp_path_factory.mktemp("tiny")).image_encoder, torch.device("cpu"))


@pytest.mark.parametrize("shared", [True, False])
def test_every_image_finds_its_clip_whatever_shares_its_batch(
    encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    monkeypatch.setattr(shared_batches, "is_place_independent", lambda *_: shared)
    double = Doubling(encoder)
    prompts = VisualPrompts(double, num_frames=NUM_FRAMES)
    rows = {row.clip_id: row for row in drain(prompts, [clip(name, values) for name, values in FLAT.items()])}
    assert list(rows) == list(FLAT)
    for name, values in FLAT.items():
        expected = np.array([[value, 2 * value] for value in values], np.float16)
        np.testing.assert_array_equal(rows[name].fields["visual_prompts"], expected)
    assert double.num_calls == (4 if shared else 1 + 3 + 1 + 1)


def test_an_image_that_is_shown_twice_is_encoded_once(encoder: ImageEncoder) -> None:
    double = Doubling(encoder)
    (row,) = drain(VisualPrompts(double, num_frames=NUM_FRAMES), [clip("a", [4, 5], [0, 0, 1])])
    np.testing.assert_array_equal(row.fields["visual_prompts"], [[4, 8], [4, 8], [5, 10]])


def test_infinity_fails_its_own_clip_only(encoder: ImageEncoder) -> None:
    prompts = VisualPrompts(Doubling(encoder), num_frames=NUM_FRAMES)
    good, bad = drain(prompts, [clip("good", [1, 2]), clip("bad", [3, 13])])
    assert good.failure is None
    assert bad.failure is not None
    assert bad.failure.code == FailureCode.NON_FINITE


def test_rows_of_a_real_encoder_do_not_depend_on_their_neighbours(encoder: ImageEncoder) -> None:
    noise = np.random.default_rng(0)
    clips = [clip(f"{number}", [0] * (number % 5 + 1)) for number in range(7)]
    for one in clips:
        one.pixels["inputs"][...] = noise.integers(0, 256, one.pixels["inputs"].shape)
    forward = {row.clip_id: row for row in drain(VisualPrompts(encoder, num_frames=NUM_FRAMES), clips)}
    backward = {row.clip_id: row for row in drain(VisualPrompts(encoder, num_frames=NUM_FRAMES), clips[::-1])}
    for name, row in forward.items():
        np.testing.assert_array_equal(row.fields["visual_prompts"], backward[name].fields["visual_prompts"])


def test_clips_of_any_length_keep_the_configured_batch_size_even_on_a_cpu(
    encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shared, calls in ((True, 4), (False, 1 + 3 + 1 + 1)):  # 29 images, 8 at once
        monkeypatch.setattr(shared_batches, "is_place_independent", lambda *_, shared=shared: shared)
        double = Doubling(encoder)
        double.device = torch.device("cpu")
        clips = [clip(name, values) for name, values in FLAT.items()]
        rows = {row.clip_id: row for row in drain(VisualPrompts(double, num_frames=None), clips)}
        assert {name: row.num_rows for name, row in rows.items()} == {name: len(v) for name, v in FLAT.items()}
        assert double.num_calls == calls


def test_models_take_the_configured_batch_size_where_clips_differ_in_length(tmp_path: Path) -> None:
    config = make_config(tmp_path, "visual_prompts", "joints", batch_size=8)  # and 4 for joints
    config = replace(config, pose=replace(config.pose, model="hrnet_w8_tiny"))
    for sampling, sizes in (({"num_frames": 3}, (3, 3)), ({"sampling": "fps", "fps": 2.0, "num_frames": 3}, (8, 4))):
        models = FrozenModels(replace(config, **sampling), "cpu")
        assert (models.visual_prompts.batch.full, models.joints.batch.full) == sizes
