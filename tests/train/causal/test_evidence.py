"""Within-video evidence: by hand, what it cannot see, and what fits its gain."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from train.causal.backdoor import bias_scores, gather_bias
from train.causal.evidence import Evidence, within_evidence


@pytest.fixture
def text() -> Tensor:
    return F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture
def prompts() -> Tensor:
    return F.normalize(torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(1)), dim=-1)


def path(text: Tensor, *, boost: float = 3.0) -> Evidence:
    return Evidence(7 * text, temperature=0.1, boost=boost)


def test_within_evidence_is_the_chosen_frames_cosine_minus_the_mean(text: Tensor, prompts: Tensor) -> None:
    cosines = torch.tensor([F.cosine_similarity(text[2], frame, dim=0) for frame in prompts[1]])
    by_hand = ((cosines / 0.1).softmax(dim=0) * cosines).sum() - cosines.mean()
    torch.testing.assert_close(within_evidence(3 * text, prompts, 0.1)[1, 2], by_hand)
    sharp = within_evidence(text, prompts, 1e-4)[1, 2]
    torch.testing.assert_close(sharp, cosines.max() - cosines.mean(), atol=1e-4, rtol=1e-4)


def test_within_evidence_does_not_see_what_all_frames_share(text: Tensor, prompts: Tensor) -> None:
    basis = F.normalize(torch.randn(3, 1, 16, generator=torch.Generator().manual_seed(5)), dim=-1)
    within = prompts - (prompts * basis).sum(-1, keepdim=True) * basis  # frames beside the scene's direction
    scale = 0.6 / within.norm(dim=-1, keepdim=True)
    one, other = within * scale + 0.8 * basis, within * scale - 0.8 * basis  # two scenes, all of length 1
    before, after = (within_evidence(text, frames, 0.1) for frames in (one, other))
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(
        gather_bias(bias_scores(text, one, 0.1), one), gather_bias(bias_scores(text, other, 0.1), other)
    )
    assert (within_evidence(text, prompts[:, :1].expand(-1, 7, -1), 0.1).abs() < 1e-6).all()


def test_a_logit_gets_the_boosted_gain_times_the_evidence(text: Tensor, prompts: Tensor) -> None:
    module = path(text)
    torch.nn.init.constant_(module.log_gain, 0.5)
    torch.nn.init.normal_(module.bias)
    expected = 3 * math.exp(0.5) * within_evidence(text, prompts, 0.1)
    torch.testing.assert_close(module(prompts), expected)
    torch.testing.assert_close(module.alone(prompts), expected / 3 + module.bias)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(path(text[order])(prompts), path(text)(prompts)[:, order])


def test_only_its_own_loss_trains_the_gain(text: Tensor, prompts: Tensor) -> None:
    module = path(text)
    assert not module(prompts).requires_grad
    module.alone(prompts).sum().backward()
    assert module.log_gain.grad is not None
    assert module.bias.grad is not None
    assert "text" in module.state_dict()  # CLIP's own, part of a checkpoint and of no optimiser
    assert {name for name, _ in module.named_parameters()} == {"log_gain", "bias"}


@pytest.mark.parametrize(("sign", "low", "high"), [(1, 3.0, 1e9), (-1, 0.0, 0.5)])
def test_the_gain_grows_where_evidence_tells_labels_and_vanishes_where_it_misleads(
    text: Tensor, sign: int, low: float, high: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    videos = F.normalize(torch.randn(300, 7, 16, generator=generator), dim=-1)
    evidence = within_evidence(text, videos, 0.1)
    labels = (sign * (evidence - evidence.mean(dim=0)) + 0.05 * torch.randn(300, 5, generator=generator) > 0).float()
    module = path(text)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(1000):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(module.alone(videos), labels).backward()
        optimizer.step()
    assert low < module.log_gain.exp() < high
