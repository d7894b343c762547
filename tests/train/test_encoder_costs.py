"""Formulas of the large encoders against the encoders themselves, at full size on the meta device."""

import open_clip
import pytest
import torch

from tests.train.counting import count, num_params
from train.clip_weights import clip_shape
from train.encoder_costs import image_tower, text_tower, timesformer
from train.encoders.clip_tower import ImageTower, TextTower
from train.encoders.timesformer import TimeSformer, TimeSformerConfig
from train.layer_costs import Cost, attention, linear

META = torch.device("meta")
SMALL = TimeSformerConfig(
    image_size=32, patch_size=8, width=12, depth=3, heads=2, mlp_ratio=3, num_frames=5, drop_path=0.0
)


@pytest.mark.parametrize("config", [TimeSformerConfig(num_frames=16), SMALL], ids=["base", "small"])
def test_a_timesformer_costs_what_torch_counts(config: TimeSformerConfig) -> None:
    size = config.image_size
    with META:
        encoder = TimeSformer(config).eval()
        counted = count(lambda: encoder(torch.empty(1, config.num_frames, 3, size, size)))
    cost = timesformer(config)
    assert cost.params == cost.trainable == num_params(encoder)
    assert cost.linear == counted.learned()
    assert cost.with_attention == counted.total()


def test_what_a_module_counter_misses_of_a_timesformer_are_its_embeddings() -> None:
    with META:
        encoder = TimeSformer(SMALL)
    embeddings = (encoder.cls_token, encoder.pos_embed, encoder.time_embed)
    assert timesformer(SMALL).unseen == num_params(*embeddings)


@pytest.mark.parametrize("name", ["ViT-B-16-quickgelu", "ViT-L-14-quickgelu"])
def test_clip_costs_what_torch_counts_in_open_clip(name: str) -> None:
    shape = clip_shape(name)
    with META:
        model = open_clip.create_model(name, device="meta").train()  # in eval, fused layers hide from the counter
        image = count(lambda: model.encode_image(torch.empty(1, 3, shape.image_size, shape.image_size)))
        text = count(lambda: model.encode_text(torch.empty(1, shape.context_length, dtype=torch.long)))
    assert image_tower(shape).with_attention == image.total()
    projection = shape.text_width * shape.embed_dim  # once, for the sentence
    assert text_tower(shape).with_attention + projection == text.total()
    scale = 1  # the logit scale belongs to neither tower
    assert image_tower(shape).params + text_tower(shape).params + scale == num_params(model)


def test_towers_have_the_parameters_of_ours() -> None:
    shape = clip_shape("ViT-B-16-quickgelu")
    with META:
        assert image_tower(shape).params == num_params(ImageTower(shape))
        assert text_tower(shape).params == num_params(TextTower(shape))


def test_a_small_layer_costs_what_a_hand_counts() -> None:
    assert linear(3, 5, tokens=7) == Cost(params=20, trainable=20, linear=105)
    # Two tokens ask three, width 4: four projections of 16 + 4, two of them on each side; 2 x 2 x 3 x 4 products.
    assert attention(2, 3, 4) == Cost(params=80, trainable=80, linear=2 * 32 + 2 * 48, attention=48)
