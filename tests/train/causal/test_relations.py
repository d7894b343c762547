"""Relation layers: graphs, aggregations, the prior, and what they refuse."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.causal.relations import Aggregation, RelationLayer, Relations
from train.layers import split_heads

AGGREGATIONS: tuple[Aggregation, ...] = ("concat", "sum", "hadamard")


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


def layer(
    aggregation: Aggregation = "concat",
    *,
    bases: int = 4,
    prior: bool = False,
    feed_forward: bool = False,
    scrambled: bool = True,
) -> RelationLayer:
    torch.manual_seed(1)
    module = RelationLayer(16, bases, aggregation=aggregation, prior=prior, feed_forward=feed_forward)
    if scrambled:
        for name, parameter in module.named_parameters():
            if name != "prior":
                nn.init.normal_(parameter, std=0.3)
    return module


def by_hand(module: RelationLayer, tokens: Tensor) -> Tensor:
    """The formula with explicit graphs, basis by basis."""
    graphs = module.graphs(tokens)  # (n, K, s, s)
    values = module.value(module.norm(tokens))
    if module.aggregation == "hadamard":
        product = graphs.prod(dim=1)
        joined = product / product.sum(dim=-1, keepdim=True) @ values
    elif module.aggregation == "sum":
        joined = torch.stack([graphs[:, k] @ part for k, part in enumerate(values.chunk(module.bases, -1))]).sum(dim=0)
    else:
        joined = torch.cat([graphs[:, k] @ part for k, part in enumerate(values.chunk(module.bases, -1))], dim=-1)
    return tokens + module.proj(joined)


@pytest.mark.parametrize("bases", [1, 4, 16])
def test_rows_of_every_graph_sum_to_one(bases: int, tokens: Tensor) -> None:
    graphs = layer(bases=bases).graphs(tokens)
    assert graphs.shape == (2, bases, 5, 5)
    assert (graphs >= 0).all()
    torch.testing.assert_close(graphs.sum(dim=-1), torch.ones(2, bases, 5))
    assert not torch.allclose(graphs.sum(dim=-2), torch.ones(2, bases, 5), atol=1e-2)


def test_a_graph_equals_the_formula_for_one_basis(tokens: Tensor) -> None:
    module = layer()
    normed = F.layer_norm(tokens, (16,), module.norm.weight, module.norm.bias)
    queries = (normed @ module.query_key.weight[:16].T + module.query_key.bias[:16])[..., 8:12]
    keys = (normed @ module.query_key.weight[16:].T + module.query_key.bias[16:])[..., 8:12]
    torch.testing.assert_close(module.graphs(tokens)[:, 2], (queries @ keys.mT / 4**0.5).softmax(dim=-1))


@pytest.mark.parametrize("bases", [1, 4])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_layer_equals_the_formula_with_explicit_graphs(
    aggregation: Aggregation, bases: int, tokens: Tensor
) -> None:
    module = layer(aggregation, bases=bases)
    torch.testing.assert_close(module(tokens), by_hand(module, tokens), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(module(tokens), tokens, atol=1e-2)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_permuting_tokens_permutes_the_result(aggregation: Aggregation, tokens: Tensor) -> None:
    module, order = layer(aggregation, feed_forward=True), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(module(tokens[:, order]), module(tokens)[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("prior", [True, False])
def test_at_the_start_nothing_is_changed_and_only_the_output_moves(
    aggregation: Aggregation, prior: bool, tokens: Tensor
) -> None:
    module = layer(aggregation, prior=prior, scrambled=False)
    assert torch.equal(module(tokens), tokens)
    module(tokens).square().sum().backward()
    moved = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved == {"proj.weight", "proj.bias"}


def test_the_product_of_equal_graphs_is_the_softmax_of_summed_scores(tokens: Tensor) -> None:
    module = layer("hadamard")
    with torch.no_grad():
        for parameter in (module.query_key.weight, module.query_key.bias):
            halves = parameter.unflatten(0, (2, 4, 4))
            halves.copy_(halves[:, :1].clone().expand_as(halves))  # every basis is the first
    queries, keys = (split_heads(part, 4) for part in module.query_key(module.norm(tokens)).chunk(2, dim=-1))
    logits = queries[:, 0] @ keys[:, 0].mT / 2
    expected = tokens + module.proj((4 * logits).softmax(dim=-1) @ module.value(module.norm(tokens)))
    torch.testing.assert_close(module(tokens), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_prior_is_uniform_at_first_and_learned(aggregation: Aggregation, tokens: Tensor) -> None:
    module, plain = layer(aggregation, prior=True), layer(aggregation)
    assert module.prior is not None
    plain.load_state_dict({name: value for name, value in module.state_dict().items() if name != "prior"})
    torch.testing.assert_close(module(tokens), plain(tokens))
    module(tokens).square().sum().backward()
    assert module.prior.grad is not None
    assert module.prior.grad.abs().max() > 0


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_prior_on_one_basis_leaves_that_basis_alone_times_k(aggregation: Aggregation, tokens: Tensor) -> None:
    module = layer(aggregation, prior=True)
    with torch.no_grad():
        assert module.prior is not None
        module.prior[1] = 100.0
    graph, values = module.graphs(tokens)[:, 1], module.value(module.norm(tokens))
    if aggregation == "concat":
        joined = torch.zeros(2, 5, 16)
        joined[..., 4:8] = 4 * graph @ values[..., 4:8]
    elif aggregation == "sum":
        joined = 4 * graph @ values[..., 16:32]
    else:
        joined = (4 * graph.log()).softmax(dim=-1) @ values
    torch.testing.assert_close(module(tokens), tokens + module.proj(joined), atol=1e-5, rtol=1e-5)


def test_the_feed_forward_layer_is_used_when_asked_for(tokens: Tensor) -> None:
    module = layer(feed_forward=True)
    assert module.feed_forward is not None
    assert module.feed_forward_norm is not None
    related = by_hand(module, tokens)
    expected = related + module.feed_forward(module.feed_forward_norm(related))
    torch.testing.assert_close(module(tokens), expected, atol=1e-5, rtol=1e-5)


def test_graphs_of_a_stack_are_those_of_its_last_layer(tokens: Tensor) -> None:
    first, last = layer(), layer("sum")
    stack = Relations([first, last])
    assert torch.equal(stack(tokens), last(first(tokens)))
    assert torch.equal(stack.graphs(tokens), last.graphs(first(tokens)))
    assert not torch.allclose(stack.graphs(tokens), first.graphs(tokens), atol=1e-2)


def test_graphs_stay_in_full_precision_under_autocast(tokens: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        graphs = layer().graphs(tokens)
    assert graphs.dtype == torch.float32
    torch.testing.assert_close(graphs.sum(dim=-1), torch.ones(2, 4, 5))


def test_bases_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width 16 cannot be split into 3"):
        layer(bases=3)


def test_an_unknown_aggregation_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"'mean' is unknown: use one of \('concat', 'sum', 'hadamard'\)"):
        layer("mean")  # type: ignore[arg-type]
