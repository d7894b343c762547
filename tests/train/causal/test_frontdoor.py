"""Temporal layers, CMDCL's VCI and PCMCI's IVC: invariants of the method specification."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.causal.approximator import ApproximatorKind
from train.causal.frontdoor import (
    ElementwiseTransformation,
    RelationTransformation,
    TemporalEncoder,
    TemporalLayer,
    VisualIntervention,
    emphasise,
    fine_scores,
)


@pytest.fixture
def visual() -> Tensor:
    return torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def text() -> Tensor:
    return torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))


def temporal(layers: int = 2, *, feed_forward: bool = False) -> TemporalEncoder:
    torch.manual_seed(2)
    stack = [TemporalLayer(16, 4, feed_forward=feed_forward) for _ in range(layers)]
    return TemporalEncoder(16, num_frames=6, layers=stack)


def elementwise(kind: ApproximatorKind) -> VisualIntervention:
    transformation = ElementwiseTransformation(temperature=1.0, class_chunk=2)
    return VisualIntervention(16, transformation=transformation, approximator=kind)


def relational(kind: ApproximatorKind = "residual_mlp", *, bases: int = 4) -> VisualIntervention:
    torch.manual_seed(3)
    return VisualIntervention(16, transformation=RelationTransformation(16, bases), approximator=kind)


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
    module = elementwise("residual_mlp")
    assert torch.equal(module(visual, text), emphasise(visual, text, temperature=1.0, class_chunk=2))


@pytest.mark.parametrize("kind", ["elementwise", "relation"])
def test_the_approximator_reads_the_mediator_first_and_adds_to_what_was_gathered(
    kind: str, visual: Tensor, text: Tensor
) -> None:
    module = elementwise("residual_mlp") if kind == "elementwise" else relational()
    for parameter in module.approximator.parameters():
        nn.init.normal_(parameter, std=0.3)
    gathered = module.transform(visual, text)
    expected = gathered + module.approximator.mapping(torch.cat([text, gathered], dim=-1))  # g([t', v])
    torch.testing.assert_close(module(visual, text), expected)


def test_vci_itself_does_not_see_the_order_of_frames(visual: Tensor, text: Tensor) -> None:
    module = elementwise("mlp")
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


def test_ivc_starts_as_what_its_bases_gather(visual: Tensor, text: Tensor) -> None:
    module = relational()
    assert torch.equal(module(visual, text), module.transform(visual, text))
    assert not torch.equal(relational("mlp")(visual, text), module.transform(visual, text))


def test_one_basis_of_ivc_equals_the_formula(visual: Tensor, text: Tensor) -> None:
    module = RelationTransformation(16, 4)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    attention, coordinates = module.attention, slice(8, 12)  # the third of four bases
    queries = attention.query(module.norm(text))[..., coordinates]
    keys, values = (part[..., coordinates] for part in attention.key_value(visual).chunk(2, dim=-1))
    gathered = (queries @ keys.mT / 4**0.5).softmax(dim=-1) @ values
    nn.init.eye_(attention.proj.weight)  # W
    nn.init.zeros_(attention.proj.bias)
    torch.testing.assert_close(module(visual, text)[..., coordinates], gathered, atol=1e-5, rtol=1e-5)


def test_ivc_gathers_alike_whatever_the_scale_of_the_mediator(visual: Tensor, text: Tensor) -> None:
    module = RelationTransformation(16, 4)
    torch.testing.assert_close(module(visual, 0.1 * text), module(visual, text), atol=1e-3, rtol=1e-3)


def test_permuting_classes_permutes_what_ivc_returns(visual: Tensor, text: Tensor) -> None:
    module = relational("mlp")
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(module(visual, text[:, order]), module(visual, text)[:, order], atol=1e-5, rtol=1e-5)
    assert module(visual, text).std(dim=1).min() > 1e-4


def test_ivc_itself_does_not_see_the_order_of_frames(visual: Tensor, text: Tensor) -> None:
    module = relational("mlp")
    torch.testing.assert_close(module(visual.flip(1), text), module(visual, text), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(module(visual + torch.arange(6)[None, :, None], text), module(visual, text), atol=1e-2)


def test_bases_that_do_not_divide_the_width_are_refused_in_ivc() -> None:
    with pytest.raises(ValueError, match="width 16 cannot be split into 3"):
        RelationTransformation(16, 3)
