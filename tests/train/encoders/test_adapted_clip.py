"""PeVL's encoders against open_clip's, and what adapters, time and the class token's weights do to them."""

from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor, nn

from tests.train.encoders.tiny_encoders import (
    FRAMES,
    close,
    frames,
    joints,
    pose_encoder,
    stir,
    text_encoder,
    video_encoder,
)
from tests.train.tiny_clip import ARCHITECTURE, reference, tiny_shape, towers_of
from train.clip_weights import clip_shape, tokenize
from train.encoders.adapted_clip import (
    AdaptedBlocks,
    Adapter,
    BlockAdapters,
    PoseEncoder,
    TextEncoder,
    VideoEncoder,
)
from train.encoders.clip_tower import ClipShape, ClipTowers
from train.layers import DropPath


@pytest.fixture
def shape(tmp_path: Path) -> ClipShape:
    return tiny_shape(tmp_path)


@pytest.fixture
def towers(shape: ClipShape) -> ClipTowers:
    return towers_of(reference(), shape)


def encode_image(towers: ClipTowers, tokens: Tensor) -> Tensor:
    """What CLIP makes of tokens: class token through ln_post and the projection."""
    return towers.image.ln_post(tokens[..., 0, :]) @ towers.image.proj


@pytest.mark.parametrize("adapters", [True, False])
def test_zero_adapters_give_what_open_clip_gives_for_each_frame(
    adapters: bool, shape: ClipShape, towers: ClipTowers
) -> None:
    with torch.no_grad():
        theirs = reference().encode_image(frames().flatten(0, 1)).unflatten(0, (2, FRAMES))  # type: ignore[operator]
        ours = encode_image(towers, video_encoder(shape, adapters=adapters)(towers.image, frames()))
    assert theirs.std() > 0.1
    assert close(ours, theirs)


def test_the_other_activation_gives_something_else(tmp_path: Path, shape: ClipShape) -> None:
    plain = towers_of(reference(), tiny_shape(tmp_path, quick_gelu=False))
    with torch.no_grad():
        theirs = reference().encode_image(frames().flatten(0, 1)).unflatten(0, (2, FRAMES))  # type: ignore[operator]
        ours = encode_image(plain, video_encoder(shape)(plain.image, frames()))
        gelu = reference(ARCHITECTURE | {"quick_gelu": False}).encode_image(frames()[0])  # type: ignore[operator]
    assert (ours - theirs).abs().max() > 1e-3
    assert close(ours[0], gelu)


@pytest.mark.slow
def test_the_base_model_gives_what_open_clip_gives() -> None:
    torch.manual_seed(0)
    theirs = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu")).eval()
    shape = clip_shape("ViT-B-16-quickgelu")
    towers = towers_of(theirs, shape)
    encoder = VideoEncoder(
        shape, num_frames=2, adapters=True, ratio=0.25, mlp_scale=0.5, drop_path=0.2, temporal=False
    ).eval()
    images = torch.randn(1, 2, 3, 224, 224)
    token_ids, _ = tokenize(["stir the milk, a video of daily action"], shape)
    with torch.no_grad():
        assert close(encode_image(towers, encoder(towers.image, images))[0], theirs.encode_image(images[0]))
        ours = text_encoder(shape)(towers.text, token_ids)[0, token_ids.argmax()] @ towers.text.text_projection
        assert close(ours, theirs.encode_text(token_ids)[0])


def open_clips_words(token_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Sentences (m, D) and what ln_final gives (m, N_t, text_width), both from open_clip."""
    model = reference()
    kept: list[Tensor] = []
    model.get_submodule("ln_final").register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    with torch.no_grad():
        sentences = model.encode_text(token_ids)  # type: ignore[operator]
    return sentences, kept[0]


@pytest.mark.parametrize("adapters", [True, False])
def test_zero_adapters_give_open_clips_sentences_and_words(
    adapters: bool, shape: ClipShape, towers: ClipTowers
) -> None:
    token_ids, _ = tokenize(["pour milk", "cut the bread into slices"], shape)
    sentences, words = open_clips_words(token_ids)
    with torch.no_grad():
        hidden = text_encoder(shape, adapters=adapters)(towers.text, token_ids)
        ends = hidden[torch.arange(2), token_ids.argmax(dim=1)] @ towers.text.text_projection
    assert close(hidden, words)
    assert close(ends, sentences)


def test_texts_cut_behind_their_end_give_the_same_words(shape: ClipShape, towers: ClipTowers) -> None:
    token_ids, _ = tokenize(["pour milk", "cut the bread into slices"], shape)
    encoder = text_encoder(shape)
    stir(encoder)
    with torch.no_grad():
        whole, cut = (encoder(towers.text, ids) for ids in (token_ids, token_ids[:, :7]))
    torch.testing.assert_close(cut, whole[:, :7], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"expected \(m, 12\) or shorter"):
        encoder(towers.text, torch.zeros(1, 13, dtype=torch.int64))


def test_zero_adapters_change_no_bit_of_the_frozen_encoders(shape: ClipShape, towers: ClipTowers) -> None:
    token_ids, _ = tokenize(["pour milk"], shape)
    with torch.no_grad():
        ours, frozen = (video_encoder(shape, adapters=on)(towers.image, frames()) for on in (True, False))
        assert torch.equal(ours, frozen)
        ours, frozen = (text_encoder(shape, adapters=on)(towers.text, token_ids) for on in (True, False))
        assert torch.equal(ours, frozen)


def changed_frames(encoder: VideoEncoder, towers: ClipTowers) -> list[bool]:
    """Which frames' tokens differ after the first frame is another picture."""
    other = frames(1)
    other[:, 0] = 3.0
    with torch.no_grad():
        difference = encoder(towers.image, frames(1)) - encoder(towers.image, other)
    return (difference.abs().amax(dim=(0, 2, 3)) > 1e-4).tolist()


def test_frames_do_not_mix_without_the_temporal_step(shape: ClipShape, towers: ClipTowers) -> None:
    encoder = video_encoder(shape)
    stir(encoder)
    assert changed_frames(encoder, towers) == [True, False, False, False]


def test_frames_mix_with_the_temporal_step_once_its_adapter_is_not_zero(shape: ClipShape, towers: ClipTowers) -> None:
    encoder = video_encoder(shape, temporal=True)
    assert changed_frames(encoder, towers) == [True, False, False, False]
    stir(encoder, "temporal")
    assert changed_frames(encoder, towers) == [True, True, True, True]
    assert changed_frames(video_encoder(shape, adapters=False, temporal=True), towers) == [True, True, True, True]


def test_the_temporal_step_joins_frames_at_the_same_position_only(towers: ClipTowers) -> None:
    blocks = AdaptedBlocks(32, 1, adapters=False, ratio=0.25, mlp_scale=0.5, drop_path=0.0, temporal=True)
    block = towers.image.transformer.blocks[0]
    tokens = torch.randn(1, 4, 3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        update = blocks._over_time(block, None, tokens)
        for position in range(3):
            alone = blocks._over_time(block, None, tokens[:, :, position : position + 1])
            torch.testing.assert_close(update[:, :, position : position + 1], alone)


def test_a_block_is_what_aims_equations_say(towers: ClipTowers) -> None:
    """The three residuals written out with nn.MultiheadAttention, on adapters that do something."""
    blocks = AdaptedBlocks(32, 1, adapters=True, ratio=0.25, mlp_scale=0.7, drop_path=0.0, temporal=True).eval()
    stir(blocks)
    assert blocks.adapters is not None
    own = blocks.adapters[0]
    assert isinstance(own, BlockAdapters)
    assert own.temporal is not None
    theirs = reference().get_submodule("visual.transformer.resblocks.0")
    attention, norm, norm_2, mlp = (theirs.get_submodule(name) for name in ("attn", "ln_1", "ln_2", "mlp"))
    tokens = torch.randn(1, 4, 3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, _ = blocks(towers.image.transformer.blocks[:1], tokens)
        x = tokens[0].transpose(0, 1)  # (s, t, d): over time
        x = x + own.temporal(attention(norm(x), norm(x), norm(x))[0])
        x = x.transpose(0, 1)  # (t, s, d): over space
        attended = attention(norm(x), norm(x), norm(x))[0]
        x = x + attended + own.spatial(attended)
        x = x + mlp(norm_2(x)) + 0.7 * own.mlp(norm_2(x))
    assert close(ours[0], x)


def test_the_gradient_reaches_what_is_trained_and_nothing_else(shape: ClipShape, towers: ClipTowers) -> None:
    pose, video, text = pose_encoder(shape), video_encoder(shape, temporal=True), text_encoder(shape)
    for encoder in (pose, video, text):
        stir(encoder)
    missing = joints()
    missing[0, 0, 0] = 0
    result = pose(towers.image, missing)
    assert result.weights is not None
    token_ids, _ = tokenize(["pour milk"], shape)
    hidden = text(towers.text, token_ids)
    total = result.tokens.square().sum() + video(towers.image, frames()).square().sum() + hidden.pow(3).sum()
    total.backward()
    for encoder in (pose, video, text):
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())
    assert all(p.grad is None for tower in towers for p in tower.parameters())


def test_encoders_hold_what_is_trained_and_never_the_tower(shape: ClipShape) -> None:
    assert [name for name, _ in video_encoder(shape, adapters=False).named_parameters()] == []
    assert [name for name, _ in text_encoder(shape, adapters=False).named_parameters()] == []
    frozen_pose = {name.partition(".")[0] for name, _ in pose_encoder(shape, adapters=False).named_parameters()}
    assert frozen_pose == {"embed"}
    assert not any("temporal" in name for name, _ in video_encoder(shape).named_parameters())
    assert sum("temporal.up.weight" in name for name, _ in pose_encoder(shape).named_parameters()) == 3


def count(module: nn.Module, name: str = "") -> int:
    return sum(parameter.numel() for key, parameter in module.named_parameters() if name in key)


def test_the_base_encoders_have_the_papers_numbers_of_parameters() -> None:
    """Pose 10.65 M + 0.39 M projection = 11.0 M; video 7.1 M; text 6.3 M (the paper prints 11, 7 and 6)."""
    shape = clip_shape("ViT-B-16-quickgelu")
    with torch.device("meta"):
        pose = PoseEncoder(shape, num_frames=48, num_joints=17, adapters=True, ratio=0.25, mlp_scale=0.5, drop_path=0.2)
        video = VideoEncoder(
            shape, num_frames=16, adapters=True, ratio=0.25, mlp_scale=0.5, drop_path=0.2, temporal=False
        )
        text = TextEncoder(shape, adapters=True, ratio=0.5, mlp_scale=0.5, drop_path=0.2)
    assert count(pose, "adapters") == 3 * 12 * (2 * 768 * 192 + 192 + 768) == 10_651_392
    assert round((count(pose, "adapters") + shape.width * shape.embed_dim) / 1e6, 1) == 11.0
    assert count(pose) - count(pose, "adapters") == (2 + 1 + 17 + 1 + 48 + 1) * 768
    assert count(video, "adapters") == 2 * 12 * 295_872
    assert count(text) == 2 * 12 * (2 * 512 * 256 + 256 + 512)


def test_drop_path_grows_linearly_and_sits_on_the_temporal_and_mlp_branches(shape: ClipShape) -> None:
    encoder = pose_encoder(shape, drop_path=0.2)
    found = [module.probability for module in encoder.modules() if isinstance(module, DropPath)]
    assert found == pytest.approx([0.0, 0.1, 0.2])
    torch.manual_seed(0)
    adapters = BlockAdapters(8, 0.5, temporal=True, mlp_scale=0.5, drop_path=0.9).train()
    for parameter in adapters.parameters():
        nn.init.ones_(parameter)
    branch = torch.ones(400, 2, 3, 8)
    for update in (adapters.over_time(branch), adapters.beside_mlp(branch)):
        kept = (update != 0).flatten(1)
        assert torch.equal(kept.any(dim=1), kept.all(dim=1))  # whole clips
        assert 20 < kept.any(dim=1).sum() < 60
    assert (adapters.over_space(branch) != 0).all()


def test_an_adapter_is_a_bottleneck_of_the_ratio() -> None:
    adapter = Adapter(32, 0.25)
    assert (adapter.down.out_features, adapter.up.in_features, adapter.up.out_features) == (8, 8, 32)
    assert torch.equal(adapter(torch.randn(2, 32)), torch.zeros(2, 32))
    with pytest.raises(ValueError, match="temporal=True"):
        BlockAdapters(8, 0.5, temporal=False, mlp_scale=0.5, drop_path=0.0).over_time(torch.ones(1, 8))


def test_the_time_embedding_starts_at_zero_and_is_added_to_all_tokens_of_a_frame_before_ln_pre(
    shape: ClipShape, towers: ClipTowers
) -> None:
    encoder = video_encoder(shape)
    assert encoder.time_embedding is not None
    assert torch.equal(encoder.time_embedding, torch.zeros(FRAMES, 32))
    with torch.no_grad():
        encoder.time_embedding[1] = torch.randn(32)
        embedded = towers.image.embed(frames().flatten(0, 1)).unflatten(0, (2, FRAMES))
        embedded[:, 1] += encoder.time_embedding[1]
        normed = towers.image.ln_pre(embedded.flatten(0, 1))
        expected = reference().get_submodule("visual.transformer")(normed)
        assert close(encoder(towers.image, frames()).flatten(0, 1), expected)


def test_frames_and_joints_of_another_shape_are_refused(shape: ClipShape, towers: ClipTowers) -> None:
    with pytest.raises(ValueError, match=r"expected \(n, 4, 3, 32, 32\)"):
        video_encoder(shape)(towers.image, frames()[:, :3])
    with pytest.raises(ValueError, match=r"expected \(n, 6, 5, 3\)"):
        pose_encoder(shape)(towers.image, joints()[..., :2])
