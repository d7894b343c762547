"""Evidence: by hand, what its part within the video cannot see, and what fits its gain."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from train.causal.evidence import Evidence, match_and_evidence


@pytest.fixture
def text() -> Tensor:
    return F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture
def prompts() -> Tensor:
    return F.normalize(torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(1)), dim=-1)


def path(text: Tensor, *, boost: float = 3.0) -> Evidence:
    return Evidence(7 * text, temperature=0.1, boost=boost)


def test_a_match_is_the_chosen_frames_cosine_and_evidence_what_it_has_beyond_the_mean(
    text: Tensor, prompts: Tensor
) -> None:
    cosines = torch.tensor([F.cosine_similarity(text[2], frame, dim=0) for frame in prompts[1]])
    match, evidence = match_and_evidence(3 * text, prompts, 0.1)
    torch.testing.assert_close(match[1, 2], ((cosines / 0.1).softmax(dim=0) * cosines).sum())
    torch.testing.assert_close(evidence[1, 2], match[1, 2] - cosines.mean())
    sharp, _ = match_and_evidence(text, prompts, 1e-4)
    torch.testing.assert_close(sharp[1, 2], cosines.max(), atol=1e-4, rtol=1e-4)


def test_evidence_does_not_see_what_all_frames_share_and_the_match_does(text: Tensor, prompts: Tensor) -> None:
    basis = F.normalize(torch.randn(3, 1, 16, generator=torch.Generator().manual_seed(5)), dim=-1)
    within = prompts - (prompts * basis).sum(-1, keepdim=True) * basis  # frames beside the scene's direction
    scale = 0.6 / within.norm(dim=-1, keepdim=True)
    one, other = within * scale + 0.8 * basis, within * scale - 0.8 * basis  # two scenes, all of length 1
    (match, before), (moved, after) = (match_and_evidence(text, frames, 0.1) for frames in (one, other))
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)
    assert (match - moved).abs().max() > 0.1
    _, nothing = match_and_evidence(text, prompts[:, :1].expand(-1, 7, -1), 0.1)
    assert (nothing.abs() < 1e-6).all()


def test_a_logit_gets_the_boosted_gain_times_the_match(text: Tensor, prompts: Tensor) -> None:
    module = path(text)
    torch.nn.init.constant_(module.log_gain, 0.5)
    torch.nn.init.normal_(module.evidence_bias)
    torch.nn.init.normal_(module.match_bias)
    match, evidence = match_and_evidence(text, prompts, 0.1)
    torch.testing.assert_close(module(prompts), 3 * math.exp(0.5) * match + module.match_bias.detach())
    by_evidence, by_match = module.fits(prompts)
    torch.testing.assert_close(by_evidence, math.exp(0.5) * evidence + module.evidence_bias)
    torch.testing.assert_close(by_match, module(prompts))
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(path(text[order])(prompts), path(text)(prompts)[:, order])


def test_the_gain_is_fitted_by_evidence_and_never_by_the_match_or_the_logits(text: Tensor, prompts: Tensor) -> None:
    module = path(text)
    assert not module(prompts).requires_grad
    by_evidence, by_match = module.fits(prompts)
    by_match.sum().backward()
    assert module.log_gain.grad is None
    assert module.match_bias.grad is not None
    assert module.evidence_bias.grad is None
    by_evidence.sum().backward()
    assert module.log_gain.grad is not None
    assert "text" in module.state_dict()  # CLIP's own, part of a checkpoint and of no optimiser
    assert {name for name, _ in module.named_parameters()} == {"log_gain", "evidence_bias", "match_bias"}


@pytest.mark.parametrize(("sign", "low", "high"), [(1, 15.0, 1e9), (-1, 0.0, 0.5)])
def test_the_gain_grows_where_evidence_tells_labels_and_vanishes_where_it_misleads(
    text: Tensor, sign: int, low: float, high: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    videos = F.normalize(torch.randn(300, 7, 16, generator=generator), dim=-1)
    _, evidence = match_and_evidence(text, videos, 0.1)
    labels = (sign * (evidence - evidence.mean(dim=0)) + 0.05 * torch.randn(300, 5, generator=generator) > 0).float()
    module = path(text)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(1000):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(module.fits(videos)[0], labels).backward()
        optimizer.step()
    assert low < module.log_gain.exp() < high
