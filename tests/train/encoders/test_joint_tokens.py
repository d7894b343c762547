"""Joints as tokens and as heatmaps, against sums written out."""

import math

import pytest
import torch
from torch import Tensor

from cache.errors import ConfigError
from train.encoders.joint_tokens import ClassAndTime, HeatmapTokens, JointTokens, draw_heatmaps

WIDTH, FRAMES, JOINTS, SIZE = 8, 3, 4, 32
CLASS = torch.arange(float(WIDTH))


def tokeniser() -> JointTokens:
    torch.manual_seed(0)
    return JointTokens(WIDTH, num_frames=FRAMES, num_joints=JOINTS, image_size=SIZE)


def joints() -> Tensor:
    positions = SIZE * torch.rand(2, FRAMES, JOINTS, 2, generator=torch.Generator().manual_seed(1))
    return torch.cat([positions, torch.full((2, FRAMES, JOINTS, 1), 0.7)], dim=-1)


def test_a_joint_is_its_place_between_minus_one_and_one_plus_who_it_is() -> None:
    model = tokeniser()
    given = joints()
    given[1, 2, 3, :2] = torch.tensor([32.0, 8.0])
    tokens = model(given, CLASS)
    assert tokens.shape == (2, FRAMES, 1 + JOINTS, WIDTH)
    expected = model.place.weight @ torch.tensor([1.0, -0.5]) + model.place.bias + model.joint_embedding[3]
    torch.testing.assert_close(tokens[1, 2, 4], expected)


def test_the_class_token_comes_first_and_starts_as_clips() -> None:
    tokens = tokeniser()(joints(), CLASS)
    assert torch.equal(tokens[:, :, 0], CLASS.expand(2, FRAMES, WIDTH))


def test_a_missing_joint_has_the_missing_vector_wherever_it_is_said_to_be() -> None:
    model = tokeniser()
    given = joints()
    given[0, 1, 2] = torch.tensor([5.0, 9.0, 0.0])
    tokens = model(given, CLASS)
    torch.testing.assert_close(tokens[0, 1, 3], model.missing + model.joint_embedding[2])
    others = torch.ones(2, FRAMES, 1 + JOINTS, dtype=torch.bool)
    others[0, 1, 3] = False
    torch.testing.assert_close(tokens[others], model(joints(), CLASS)[others])


def test_missing_is_not_the_middle_of_the_frame() -> None:
    model = tokeniser()
    middle = joints()
    middle[..., :2] = SIZE / 2
    missing = torch.zeros_like(middle)
    assert (model(middle, CLASS) - model(missing, CLASS))[:, :, 1:].abs().amax(dim=-1).min() > 0.1


def test_the_gradient_reaches_the_missing_vector_from_missing_joints_alone() -> None:
    model = tokeniser()
    given = joints()
    model(given, CLASS).sum().backward()
    assert model.missing.grad is not None
    assert torch.equal(model.missing.grad, torch.zeros(WIDTH))
    given[:, 0, 0, 2] = 0
    model.zero_grad()
    model(given, CLASS).sum().backward()
    torch.testing.assert_close(model.missing.grad, torch.full((WIDTH,), 2.0))


def test_place_and_identity_weigh_the_same_at_first() -> None:
    torch.manual_seed(0)
    model = JointTokens(512, num_frames=2, num_joints=17, image_size=SIZE)
    corners = 2 * torch.randint(2, (400, 2)).float() - 1
    assert model.place(corners).std().item() == pytest.approx(math.sqrt(2) * 512**-0.5, rel=0.1)
    assert model.joint_embedding.std().item() == pytest.approx(512**-0.5, rel=0.1)


def test_class_offset_and_time_start_at_zero_and_are_added() -> None:
    model = ClassAndTime(WIDTH, FRAMES)
    tokens = torch.randn(2, FRAMES, 5, WIDTH)
    assert torch.equal(model(tokens, CLASS)[:, :, 1:], tokens)
    torch.nn.init.ones_(model.class_offset)
    with torch.no_grad():
        model.time_embedding[1] = 10.0
    expected = torch.cat([(CLASS + 1).expand(2, FRAMES, 1, WIDTH), tokens], dim=2)
    expected[:, 1] += 10.0
    torch.testing.assert_close(model(tokens, CLASS), expected)


def test_a_heatmap_is_a_gaussian_as_high_as_the_score_at_half_the_resolution() -> None:
    maps = draw_heatmaps(torch.tensor([[[9.0, 21.0, 0.5], [3.0, 3.0, 0.0]]]), image_size=SIZE, size=16)
    assert maps.shape == (1, 2, 16, 16)
    assert torch.equal(maps[0, 1], torch.zeros(16, 16))
    assert divmod(int(maps[0, 0].argmax()), 16) == (10, 4)  # row is y
    assert maps[0, 0, 10, 4].item() == pytest.approx(0.5)
    assert maps[0, 0, 12, 5].item() == pytest.approx(0.5 * math.exp(-(2**2 + 1**2) / 8))


def test_heatmap_tokens_read_the_patch_that_holds_the_joint() -> None:
    torch.manual_seed(0)
    model = HeatmapTokens(WIDTH, num_frames=1, num_joints=1, image_size=128, patch_size=16)
    assert model.num_tokens == 16
    nothing = model(torch.zeros(1, 1, 1, 3), CLASS)
    there = model(torch.tensor([[[[80.0, 48.0, 1.0]]]]), CLASS)  # heatmap pixel (40, 24): column 2, row 1
    changed = (there - nothing).abs().amax(dim=-1)[0, 0]
    assert changed.shape == (17,)
    assert int(changed.argmax()) == 1 + 4 * 1 + 2
    assert changed[0] == 0
    assert model.patches.bias is not None
    torch.testing.assert_close(nothing[0, 0, 1:], model.positions + model.patches.bias)


@pytest.mark.parametrize(("image_size", "patch_size"), [(224, 32), (15, 5)])
def test_a_view_that_heatmaps_cannot_halve_into_patches_is_refused(image_size: int, patch_size: int) -> None:
    with pytest.raises(ConfigError, match='use "coordinates"'):
        HeatmapTokens(WIDTH, num_frames=1, num_joints=1, image_size=image_size, patch_size=patch_size)
