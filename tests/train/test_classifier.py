"""The Q-Former layer against torch's decoder layer, and the per-class linear classifier by hand."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.classifier import ClassDecoder, GroupWiseLinear, LightQFormer, QFormerLayer


def torch_decoder_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of our first layer under the names of nn.TransformerDecoderLayer."""
    ours = {name.removeprefix("layers.0."): value for name, value in state.items()}
    theirs: dict[str, Tensor] = {}
    for ending in ("weight", "bias"):
        theirs |= {
            f"self_attn.in_proj_{ending}": ours[f"self_attention.qkv.{ending}"],
            f"self_attn.out_proj.{ending}": ours[f"self_attention.proj.{ending}"],
            f"multihead_attn.in_proj_{ending}": torch.cat(
                [ours[f"cross_attention.query.{ending}"], ours[f"cross_attention.key_value.{ending}"]]
            ),
            f"multihead_attn.out_proj.{ending}": ours[f"cross_attention.proj.{ending}"],
            f"linear1.{ending}": ours[f"feed_forward.fc1.{ending}"],
            f"linear2.{ending}": ours[f"feed_forward.fc2.{ending}"],
        }
        theirs |= {f"norm{i + 1}.{ending}": ours[f"norms.{i}.{ending}"] for i in range(3)}
    return theirs


def test_the_layer_equals_torchs_post_norm_decoder_layer() -> None:
    torch.manual_seed(0)
    ours = LightQFormer(16, layers=1, heads=4, hidden=32, dropout=0.1).eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs = nn.TransformerDecoderLayer(16, 4, 32, activation="gelu", batch_first=True, norm_first=False).eval()
    theirs.load_state_dict(torch_decoder_state(ours.state_dict()))
    queries, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    torch.testing.assert_close(ours(queries, memory), theirs(queries, memory), atol=1e-5, rtol=1e-5)


def test_linear_layers_start_small_and_without_bias() -> None:
    torch.manual_seed(0)
    qformer = LightQFormer(128, layers=2, heads=4, hidden=256, dropout=0.0)
    weights = [p for name, p in qformer.named_parameters() if name.endswith("weight") and p.ndim == 2]
    assert len(weights) == 2 * 7
    for weight in weights:
        torch.testing.assert_close(weight.std(), torch.tensor(0.02), atol=1e-3, rtol=0)
    biases = [p for name, p in qformer.named_parameters() if name.endswith("bias")]
    assert len(biases) == 2 * (7 + 3)  # those of the norms too
    assert not any(bias.any() for bias in biases)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    qformer = LightQFormer(16, layers=1, heads=4, hidden=32, dropout=0.5)
    queries, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    assert not torch.equal(qformer(queries, memory), qformer(queries, memory))
    qformer.eval()
    assert torch.equal(qformer(queries, memory), qformer(queries, memory))


PLACES = {"self_attention": "dropout", "cross_attention": "dropout", "feed_forward.dropout": "p", "dropout": "p"}
"""Where a layer drops something -> the attribute with its probability."""


@pytest.mark.parametrize("place", PLACES)
def test_dropout_acts_at_each_of_its_places(place: str) -> None:
    torch.manual_seed(0)
    layer = QFormerLayer(16, heads=4, hidden=32, dropout=0.5).train()
    queries, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    for other in PLACES.keys() - {place}:
        setattr(layer.get_submodule(other), PLACES[other], 0.0)
    assert not torch.allclose(layer(queries, memory), layer(queries, memory), atol=1e-3)
    setattr(layer.get_submodule(place), PLACES[place], 0.0)
    assert torch.equal(layer(queries, memory), layer(queries, memory))


def test_dropout_reaches_every_branch_and_no_residual() -> None:
    torch.manual_seed(0)
    layer = QFormerLayer(16, heads=4, hidden=32, dropout=0.5).train()
    layer.dropout.p = 1.0
    queries, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    torch.testing.assert_close(layer(queries, memory), F.layer_norm(queries, (16,)), atol=1e-4, rtol=1e-4)


def test_each_class_has_its_own_dot_product() -> None:
    linear = GroupWiseLinear(2, 3)
    linear.load_state_dict({"weight": torch.tensor([[1.0, 2, 3], [0, 1, 0]]), "bias": torch.tensor([10.0, 20])})
    features = torch.tensor([[[1.0, 1, 1], [5, 6, 7]]])
    torch.testing.assert_close(linear(features), torch.tensor([[16.0, 26.0]]))


def test_the_per_class_linear_starts_within_its_bound() -> None:
    torch.manual_seed(0)
    linear = GroupWiseLinear(100, 16)
    assert linear.weight.abs().max().item() <= 0.25
    assert linear.weight.abs().max().item() > 0.24


def test_the_decoder_classifies_what_the_queries_have_read() -> None:
    torch.manual_seed(0)
    decoder = ClassDecoder(5, 16, layers=2, heads=4, hidden=32, dropout=0.0)
    queries, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    decoded = decoder.qformer(queries, memory)
    expected = torch.einsum("ncd,cd->nc", decoded, decoder.classifier.weight) + decoder.classifier.bias
    torch.testing.assert_close(decoder(queries, memory), expected)
    assert not torch.allclose(decoder(queries, memory.flip(2)), expected, atol=1e-4)
