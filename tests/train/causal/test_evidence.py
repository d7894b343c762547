"""Within-video evidence: by hand, what it cannot see, and how queries move."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from train.causal.backdoor import bias_scores, gather_bias
from train.causal.evidence import EvidenceQueries, within_evidence


@pytest.fixture
def text() -> Tensor:
    return F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture
def prompts() -> Tensor:
    return F.normalize(torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(1)), dim=-1)


def path(*, drop: float = 0.5) -> EvidenceQueries:
    torch.manual_seed(2)
    return EvidenceQueries(16, temperature=0.1, gain=30.0, drop=drop)


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


def test_queries_move_along_one_direction_by_the_evidence(text: Tensor, prompts: Tensor) -> None:
    module, queries = path().eval(), text.expand(3, -1, -1)
    moved = module(queries, text, prompts) - queries
    expected = 30 * within_evidence(text, prompts, 0.1)[1, 2] * module.direction
    torch.testing.assert_close(moved[1, 2], expected, atol=1e-5, rtol=1e-5)
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = module(queries[:, order], text[order], prompts)
    torch.testing.assert_close(permuted, module(queries, text, prompts)[:, order], atol=1e-5, rtol=1e-5)


def test_in_training_a_video_loses_the_evidence_of_all_its_classes_or_of_none(text: Tensor, prompts: Tensor) -> None:
    module, many = path().train(), prompts.repeat(100, 1, 1)
    queries = text.expand(300, -1, -1)
    moved = (module(queries, text, many) - queries).abs().amax(dim=2) > 0
    assert (moved.all(dim=1) | ~moved.any(dim=1)).all()
    assert 100 < moved[:, 0].sum() < 200
    whole = path(drop=0.0)
    torch.testing.assert_close(whole.train()(queries, text, many), whole.eval()(queries, text, many))
