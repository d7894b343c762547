"""Class embeddings, visual prompts and their cosines."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from cache.errors import ConfigError
from train.causal.joint_space import class_embeddings, frame_cosines, unit_prompts

TEXT = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
PROMPTS = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("trained", [True, False])
def test_class_embeddings_keep_their_direction_at_length_one(trained: bool) -> None:
    parameter = class_embeddings(10 * TEXT.half(), dim=16, trained=trained)
    assert parameter.dtype == torch.float32
    assert parameter.requires_grad == trained
    torch.testing.assert_close(parameter.detach(), TEXT / TEXT.norm(dim=-1, keepdim=True), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(parameter.norm(dim=-1), torch.ones(5))


def test_class_embeddings_of_another_width_are_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"width 16 and the model's dim is 32: set dim = 16"):
        class_embeddings(TEXT, dim=32, trained=True)


def test_prompts_have_length_one_whatever_their_scale() -> None:
    prompts = unit_prompts(10 * PROMPTS, num_frames=7, dim=16)
    torch.testing.assert_close(prompts.norm(dim=-1), torch.ones(3, 7))
    torch.testing.assert_close(prompts, unit_prompts(PROMPTS, num_frames=7, dim=16))


@pytest.mark.parametrize("shape", [(3, 6, 16), (3, 7, 8), (7, 16)])
def test_prompts_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(n, 7, 16\)"):
        unit_prompts(torch.zeros(shape), num_frames=7, dim=16)


def test_cosines_equal_those_computed_one_by_one_and_stay_precise_under_autocast() -> None:
    prompts = F.normalize(PROMPTS, dim=-1)
    expected = torch.stack([F.cosine_similarity(TEXT[:, None], video[None], dim=-1) for video in PROMPTS])
    torch.testing.assert_close(frame_cosines(3 * TEXT, prompts), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(frame_cosines(TEXT, prompts), frame_cosines(TEXT, prompts.float()))
        torch.testing.assert_close(frame_cosines(TEXT, prompts), expected)
