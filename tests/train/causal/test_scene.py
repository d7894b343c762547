"""What all frames share: kept, removed or exchanged, checked against its definition."""

from typing import Any

import pytest
import torch
from torch import Tensor

from train.causal.scene import EXCHANGED, Scene


@pytest.fixture
def visual() -> Tensor:
    return torch.randn(200, 5, 3, generator=torch.Generator().manual_seed(0))


def own(visual: Tensor) -> Tensor:
    return visual.mean(dim=1, keepdim=True)


def test_the_papers_keep_the_scene_bit_for_bit(visual: Tensor) -> None:
    assert torch.equal(Scene("kept").train()(visual), visual)


@pytest.mark.parametrize("training", [True, False])
def test_a_removed_scene_can_be_any(visual: Tensor, training: bool) -> None:
    module = Scene("removed").train(training)
    torch.testing.assert_close(module(visual), visual - own(visual))
    torch.testing.assert_close(module(visual + torch.randn(200, 1, 3)), module(visual), atol=1e-5, rtol=1e-5)


def test_in_training_half_of_the_videos_get_the_scene_of_another_and_keep_what_happens(visual: Tensor) -> None:
    torch.manual_seed(0)
    found = Scene("exchanged").train()(visual)
    torch.testing.assert_close(found - own(found), visual - own(visual), atol=1e-5, rtol=1e-5)
    moved = ((own(found) - own(visual)).abs() > 1e-5).any(dim=2).flatten()
    assert 70 < moved.sum() < 130
    assert pytest.approx(0.5) == EXCHANGED
    distances = torch.cdist(
        own(found)[moved].squeeze(1), own(visual).squeeze(1), compute_mode="donot_use_mm_for_euclid_dist"
    )
    assert (distances.min(dim=1).values < 1e-5).all()  # each is the scene of some video of the batch
    assert len(distances.argmin(dim=1).unique()) == moved.sum()  # and no scene is given away twice


def test_under_autocast_what_happens_survives_a_large_scene(visual: Tensor) -> None:
    large = visual + 100 * torch.ones(3)
    exact = Scene("removed")(large.bfloat16().float())
    found = Scene("removed")(large.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=0, rtol=2**-8)


def test_testing_leaves_videos_as_they_are_and_draws_nothing(visual: Tensor) -> None:
    before = torch.get_rng_state()
    assert torch.equal(Scene("exchanged").eval()(visual), visual)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_reach_a_scene_through_the_video_that_got_it() -> None:
    torch.manual_seed(1)
    visual = torch.zeros(4, 2, 1, requires_grad=True)
    weights = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    (weights * Scene("exchanged").train()(visual).sum(dim=(1, 2))).sum().backward()
    assert visual.grad is not None
    assert visual.grad.sum() == pytest.approx(2 * 1111)  # exchanged, not lost
    assert not torch.equal(visual.grad[:, 0, 0], weights)


def test_an_unknown_mode_is_refused_by_name() -> None:
    unknown: Any = "swapped"
    with pytest.raises(ValueError, match=r"swapped.*kept, removed, exchanged"):
        Scene(unknown)
