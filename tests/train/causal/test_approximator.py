"""The approximators h and g against their formulas, written out with the error function."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.causal.approximator import Approximator, ApproximatorKind


def scrambled(kind: ApproximatorKind) -> Approximator:
    torch.manual_seed(0)
    module = Approximator(4, kind)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """First (C, D), to be broadcast, second (n, C, D) and residual (n, C, D)."""
    generator = torch.Generator().manual_seed(1)
    first, second, residual = torch.randn(5, 3, 4, generator=generator).split([1, 2, 2])
    return first[0], second, residual


@pytest.mark.parametrize(("kind", "has_residual"), [("residual_mlp", True), ("mlp", False)])
def test_the_mlp_normalises_the_concatenation_and_has_one_gelu(kind: ApproximatorKind, has_residual: bool) -> None:
    module, (first, second, residual) = scrambled(kind), inputs()
    scale, shift, weight, bias, last_weight, last_bias = module.state_dict().values()
    both = torch.cat([first.expand(2, -1, -1), second], dim=-1)
    hidden = F.layer_norm(both, (8,), scale, shift) @ weight.T + bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    expected = hidden @ last_weight.T + last_bias + (residual if has_residual else 0)
    torch.testing.assert_close(module(first, second, residual=residual), expected, atol=1e-5, rtol=1e-5)


def test_the_linear_approximator_is_one_matrix_on_the_concatenation() -> None:
    module, (first, second, residual) = scrambled("linear"), inputs()
    weight, bias = module.state_dict().values()
    expected = first @ weight[:, :4].T + second @ weight[:, 4:].T + bias
    torch.testing.assert_close(module(first, second, residual=residual), expected, atol=1e-5, rtol=1e-5)


def test_only_the_residual_form_starts_at_zero() -> None:
    first, second, residual = inputs()
    torch.manual_seed(0)
    assert torch.equal(Approximator(4, "residual_mlp")(first, second, residual=residual), residual)
    assert Approximator(4, "mlp")(first, second, residual=residual).std() > 0.01


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="'cubic' is unknown"):
        Approximator(4, "cubic")  # type: ignore[arg-type]
