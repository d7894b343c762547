"""CMDCL's temporal layers and VCI: invariants of the method specification."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.causal.frontdoor import TemporalEncoder, VisualIntervention, emphasise, fine_scores


@pytest.fixture
def visual() -> Tensor:
    return torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def text() -> Tensor:
    return torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))


def temporal(layers: int = 2, *, feed_forward: bool = False) -> TemporalEncoder:
    torch.manual_seed(2)
    return TemporalEncoder(16, num_frames=6, layers=layers, heads=4, feed_forward=feed_forward)


def test_fine_scores_sum_to_one_over_frames_for_every_class_and_coordinate(visual: Tensor, text: Tensor) -> None:
    scores = fine_scores(visual, text, 1.0)
    assert scores.shape == (2, 5, 6, 16)
    torch.testing.assert_close(scores.sum(dim=2), torch.ones(2, 5, 16))
    assert not torch.allclose(scores.sum(dim=1), torch.ones(2, 6, 16), atol=1e-2)


def test_fine_scores_equal_the_formula_for_one_entry(visual: Tensor, text: Tensor) -> None:
    frames = F.layer_norm(visual[1], (16,))[:, 3]
    mediator = F.layer_norm(text[1, 4], (16,))[3]
    torch.testing.assert_close(fine_scores(visual, text, 0.5)[1, 4, :, 3], (frames * mediator / 0.5).softmax(dim=0))


def test_the_emphasised_vector_lies_between_the_frames(visual: Tensor, text: Tensor) -> None:
    emphasised = emphasise(visual, text, temperature=0.3, class_chunk=64)
    assert (emphasised >= visual.amin(dim=1, keepdim=True) - 1e-5).all()
    assert (emphasised <= visual.amax(dim=1, keepdim=True) + 1e-5).all()


@pytest.mark.parametrize("class_chunk", [1, 2, 64])
def test_the_chunk_size_changes_neither_values_nor_gradients(class_chunk: int, visual: Tensor, text: Tensor) -> None:
    visual.requires_grad_()
    text.requires_grad_()
    whole = (fine_scores(visual, text, 0.7) * visual.unsqueeze(1)).sum(dim=2)
    chunked = emphasise(visual, text, temperature=0.7, class_chunk=class_chunk)
    torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=1e-5)
    weights = torch.randn(whole.shape, generator=torch.Generator().manual_seed(3))
    expected = torch.autograd.grad((whole * weights).sum(), (visual, text))
    found = torch.autograd.grad((chunked * weights).sum(), (visual, text))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(emphasise(visual, text, temperature=0.7, class_chunk=class_chunk), chunked)


def test_scores_stay_in_full_precision_under_autocast(visual: Tensor, text: Tensor) -> None:
    expected = emphasise(visual, text, temperature=1.0, class_chunk=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = emphasise(visual, text, temperature=1.0, class_chunk=2)
    assert torch.equal(found, expected)


def test_at_the_start_the_deconfounded_vector_is_the_emphasised_one(visual: Tensor, text: Tensor) -> None:
    module = VisualIntervention(16, temperature=1.0, approximator="residual_mlp", class_chunk=2)
    assert torch.equal(module(visual, text), emphasise(visual, text, temperature=1.0, class_chunk=2))


def test_vci_itself_does_not_see_the_order_of_frames(visual: Tensor, text: Tensor) -> None:
    module = VisualIntervention(16, temperature=1.0, approximator="mlp", class_chunk=2)
    torch.testing.assert_close(module(visual.flip(1), text), module(visual, text), atol=1e-5, rtol=1e-5)


def test_only_positions_let_the_temporal_layers_see_the_order_of_frames(visual: Tensor) -> None:
    encoder = temporal()
    torch.testing.assert_close(encoder(visual.flip(1)), encoder(visual).flip(1), atol=1e-5, rtol=1e-5)
    nn.init.normal_(encoder.time_embed)
    assert not torch.allclose(encoder(visual.flip(1)), encoder(visual).flip(1), atol=1e-2)


def test_without_layers_only_positions_are_added(visual: Tensor) -> None:
    encoder = temporal(layers=0)
    assert torch.equal(encoder(visual), visual)
    nn.init.ones_(encoder.time_embed)
    assert torch.equal(encoder(visual), visual + 1)


def test_a_temporal_layer_normalises_the_sum_of_its_input_and_its_attention(visual: Tensor) -> None:
    encoder = temporal(layers=1)
    attention = encoder.get_submodule("layers.0.attention")
    torch.testing.assert_close(encoder(visual), F.layer_norm(visual + attention(visual), (16,)))


def test_the_optional_feed_forward_layer_is_used_and_costs_parameters(visual: Tensor) -> None:
    plain, fed = temporal(layers=1), temporal(layers=1, feed_forward=True)
    count = [sum(p.numel() for p in encoder.parameters()) for encoder in (plain, fed)]
    assert count[1] - count[0] == 16 * 64 + 64 + 64 * 16 + 16 + 2 * 16
    assert not torch.allclose(plain(visual), fed(visual), atol=1e-3)
