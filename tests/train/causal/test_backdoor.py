"""CMDCL's TCI and PCMCI's ICH: invariants of the method specification."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from train.causal.approximator import ApproximatorKind
from train.causal.backdoor import (
    Correction,
    FrameWeights,
    TextualIntervention,
    TransportIntervention,
    bias_scores,
    gather_bias,
)
from train.causal.joint_space import frame_cosines
from train.causal.transport import TransportConfig, transport_plan


@pytest.fixture
def text() -> Tensor:
    return F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture
def prompts() -> Tensor:
    return F.normalize(torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(1)), dim=-1)


def intervention(kind: ApproximatorKind = "residual_mlp", *, zero: bool = False) -> TextualIntervention:
    torch.manual_seed(2)
    module = TextualIntervention(16, temperature=0.1, approximator=kind)
    if not zero:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return module


def test_scores_are_a_distribution_over_frames(text: Tensor, prompts: Tensor) -> None:
    scores = bias_scores(text, prompts, 0.01)
    assert scores.shape == (3, 5, 7)
    assert (scores >= 0).all()
    torch.testing.assert_close(scores.sum(dim=-1), torch.ones(3, 5))
    assert not torch.allclose(scores.sum(dim=1), torch.ones(3, 7), atol=1e-2)


def test_scores_equal_cosines_computed_one_by_one(text: Tensor, prompts: Tensor) -> None:
    scores = bias_scores(2 * text, prompts, 0.1)
    expected = torch.tensor([F.cosine_similarity(text[2], frame, dim=0) for frame in prompts[1]])
    torch.testing.assert_close(scores[1, 2], (expected / 0.1).softmax(dim=0))


def test_text_may_differ_between_videos(text: Tensor, prompts: Tensor) -> None:
    per_video = torch.stack([text, text.flip(0), text])
    scores = bias_scores(per_video, prompts, 0.1)
    torch.testing.assert_close(scores[0], bias_scores(text, prompts, 0.1)[0])
    torch.testing.assert_close(scores[1], bias_scores(text, prompts, 0.1)[1].flip(0))


def test_bias_embeddings_lie_between_the_frames(text: Tensor, prompts: Tensor) -> None:
    bias = gather_bias(bias_scores(text, prompts, 0.1), prompts)
    assert (bias >= prompts.amin(dim=1, keepdim=True) - 1e-5).all()
    assert (bias <= prompts.amax(dim=1, keepdim=True) + 1e-5).all()


def test_identical_frames_give_uniform_scores_and_that_frame(text: Tensor, prompts: Tensor) -> None:
    still = prompts[:, :1].expand(-1, 7, -1)
    scores = bias_scores(text, still, 0.01)
    torch.testing.assert_close(scores, torch.full((3, 5, 7), 1 / 7))
    torch.testing.assert_close(gather_bias(scores, still), prompts[:, :1].expand(-1, 5, -1))


def test_a_high_temperature_is_uniform_and_a_low_one_picks_the_best_frame(text: Tensor, prompts: Tensor) -> None:
    torch.testing.assert_close(bias_scores(text, prompts, 1e6), torch.full((3, 5, 7), 1 / 7))
    best = (text @ prompts.transpose(1, 2)).argmax(dim=-1)
    torch.testing.assert_close(bias_scores(text, prompts, 1e-5), F.one_hot(best, 7).float())


def test_the_order_of_frames_does_not_matter(text: Tensor, prompts: Tensor) -> None:
    module = intervention()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(module(text, prompts[:, order]), module(text, prompts), atol=1e-5, rtol=1e-5)


def test_permuting_classes_permutes_the_debiased_text(text: Tensor, prompts: Tensor) -> None:
    module = intervention()
    torch.testing.assert_close(module(text.flip(0), prompts), module(text, prompts).flip(1))


def test_at_the_start_the_debiased_text_is_the_text(text: Tensor, prompts: Tensor) -> None:
    assert torch.equal(intervention(zero=True)(text, prompts), text.expand(3, -1, -1))


def test_the_first_step_moves_only_the_last_layer_and_what_lies_behind_the_residual(
    text: Tensor, prompts: Tensor
) -> None:
    module = intervention(zero=True)
    text.requires_grad_()
    module(text, prompts).square().sum().backward()
    moved = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved == {"approximator.mapping.3.weight", "approximator.mapping.3.bias"}
    torch.testing.assert_close(text.grad, 3 * 2 * text)


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_the_literal_approximators_have_no_residual(kind: ApproximatorKind, text: Tensor, prompts: Tensor) -> None:
    module = intervention(kind)
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(module(text, prompts), torch.zeros(3, 5, 16))


def test_scores_stay_in_full_precision_under_autocast(text: Tensor, prompts: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = bias_scores(text, prompts, 0.01)
        bias = gather_bias(scores, prompts)
    assert torch.equal(scores, bias_scores(text, prompts, 0.01))
    assert torch.equal(bias, gather_bias(scores, prompts))


def transport(
    correction: Correction = "add",
    weights: FrameWeights = "plan",
    *,
    grad: bool = False,
    scrambled: bool = True,
) -> TransportIntervention:
    torch.manual_seed(2)
    module = TransportIntervention(
        16,
        correction=correction,
        weights=weights,
        transport=TransportConfig(eps=0.1, grad=grad),
        temperature=0.1,
        approximator="residual_mlp",
    )
    if scrambled:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize("correction", ["add", "concat_mlp"])
def test_ich_starts_at_the_text_itself(correction: Correction, text: Tensor, prompts: Tensor) -> None:
    corrected, _ = transport(correction, scrambled=False)(text, prompts)
    assert torch.equal(corrected, text.expand(3, -1, -1))


def test_tci_gives_the_approximator_the_text_first_and_adds_to_the_text(text: Tensor, prompts: Tensor) -> None:
    module = intervention()
    bias = gather_bias(bias_scores(text, prompts, 0.1), prompts)
    expected = text + module.approximator.mapping(torch.cat([text.expand(3, -1, -1), bias], dim=-1))
    torch.testing.assert_close(module(text, prompts), expected)


def test_ich_adds_the_normalised_barycentres_of_the_plan(text: Tensor, prompts: Tensor) -> None:
    module = transport()
    assert module.norm is not None
    assert module.projection is not None
    plan = transport_plan(frame_cosines(text, prompts), eps=0.1, iters=50, tolerance=1e-5)
    gathered = 5 * plan @ prompts  # C times the plan: a convex combination per class
    expected = text + module.norm(gathered) @ module.projection.weight.T
    corrected, weights = module(text, prompts)
    torch.testing.assert_close(corrected, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 5))
    torch.testing.assert_close(weights.sum(dim=1), torch.full((3, 7), 5 / 7), atol=1e-4, rtol=0)


def test_ich_with_softmax_weights_and_the_approximator_is_tci(text: Tensor, prompts: Tensor) -> None:
    module, tci = transport("concat_mlp", "softmax"), intervention()
    assert module.approximator is not None
    module.approximator.load_state_dict(tci.approximator.state_dict())
    corrected, weights = module(text, prompts)
    assert torch.equal(corrected, tci(text, prompts))
    assert torch.equal(weights, bias_scores(text, prompts, 0.1))
    assert not torch.allclose(transport("concat_mlp", "plan")(text, prompts)[1], weights, atol=1e-2)


def test_the_plan_takes_text_that_differs_between_videos(text: Tensor, prompts: Tensor) -> None:
    module = transport()
    corrected, _ = module(torch.stack([text, text.flip(0), text]), prompts)
    torch.testing.assert_close(corrected[0], module(text, prompts)[0][0])
    torch.testing.assert_close(corrected[1], module(text, prompts)[0][1].flip(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grad", [True, False])
def test_gradients_pass_through_the_plan_only_when_asked(grad: bool, text: Tensor, prompts: Tensor) -> None:
    text.requires_grad_()
    corrected, weights = transport(grad=grad)(text, prompts)
    assert weights.requires_grad == grad
    corrected.sum().backward()
    assert text.grad is not None
    additive_path = torch.full((5, 16), 3.0)
    assert torch.allclose(text.grad, additive_path, atol=1e-4) == (not grad)


def test_permuting_classes_permutes_the_corrected_text(text: Tensor, prompts: Tensor) -> None:
    module = transport()
    torch.testing.assert_close(module(text.flip(0), prompts)[0], module(text, prompts)[0].flip(1), atol=1e-5, rtol=1e-5)


def test_choices_that_ich_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="'subtract'"):
        transport("subtract")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'mean'"):
        transport("add", "mean")  # type: ignore[arg-type]
