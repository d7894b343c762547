"""PeVL's masked attention against the equation to the letter, torch's own attention and extreme inputs."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from train.refinement import masked_attention_map

PATCHES = 16
Attended = tuple[Tensor, Tensor, Tensor, Tensor]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def attended() -> Attended:
    """Queries, keys, weights and empty rows of six frames; the fifth has no joint, the others three or four."""
    mask = torch.zeros(6, 1, 1, PATCHES)
    for frame in (0, 1, 2, 3, 5):
        mask[frame, 0, 0, [frame, 2 * frame + 1, 9, 15]] = random(4, seed=frame).softmax(dim=-1)
    return random(6, 2, 7, 4, seed=5), random(6, 2, PATCHES, 4, seed=6), mask, (mask == 0).all(dim=-1, keepdim=True)


def printed(queries: Tensor, keys: Tensor, weights: Tensor, indicator: Tensor) -> Tensor:
    """The equation to the letter, in double precision and without any care for overflow."""
    raised = weights.double() * (queries.double() @ keys.double().mT / queries.shape[-1] ** 0.5).exp()
    return raised / (raised.sum(dim=-1, keepdim=True) + indicator.double())


def test_masked_attention_and_its_gradients_equal_the_equation(attended: Attended) -> None:
    queries, keys, mask, empty = attended
    target = random(6, 2, 7, PATCHES, seed=7)
    gradients = []
    for function in (masked_attention_map, printed):
        leaves = queries.clone().requires_grad_(), keys.clone().requires_grad_(), mask.clone().requires_grad_()
        result = function(*leaves, empty)
        gradients.append([result.float(), *torch.autograd.grad((result * target).sum(), leaves)])
    for ours, expected in zip(gradients[0][:3], gradients[1][:3], strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    # Off the joints the mask is a constant zero: there the derivative is left out.
    torch.testing.assert_close(gradients[0][3], gradients[1][3] * (mask > 0), atol=1e-5, rtol=1e-4)


def test_attention_is_zero_off_the_joints_and_sums_to_one_where_there_is_a_joint(
    attended: Attended,
) -> None:
    queries, keys, mask, empty = attended
    attention = masked_attention_map(queries, keys, mask, empty)
    assert (attention[(mask == 0).expand_as(attention)] == 0).all()
    torch.testing.assert_close(attention.sum(dim=-1), (~empty).float()[..., 0].expand(-1, 2, 7))
    assert empty.sum() == 1


def test_scaling_the_mask_changes_nothing(attended: Attended) -> None:
    queries, keys, mask, empty = attended
    expected = masked_attention_map(queries, keys, mask, empty)
    torch.testing.assert_close(masked_attention_map(queries, keys, 37.5 * mask, empty), expected)


def test_a_uniform_mask_is_plain_softmax_attention(attended: Attended) -> None:
    queries, keys, mask, empty = attended
    values = random(6, 2, PATCHES, 4, seed=8)
    uniform = masked_attention_map(queries, keys, torch.full_like(mask, 1 / PATCHES), torch.zeros_like(empty))
    expected = F.scaled_dot_product_attention(queries, keys, values)
    torch.testing.assert_close(uniform @ values, expected, atol=1e-5, rtol=1e-4)


def test_extreme_logits_and_weights_stay_finite_in_values_and_gradients(attended: Attended) -> None:
    queries, keys, mask, empty = attended
    tiny = mask.clone()
    tiny[0, 0, 0, mask[0, 0, 0] > 0] = 1e-44
    leaves = (300 * queries).requires_grad_(), (300 * keys).requires_grad_(), tiny.requires_grad_()
    attention = masked_attention_map(*leaves, empty)
    (attention * random(6, 2, 7, PATCHES, seed=7)).sum().backward()
    assert torch.isfinite(attention).all()
    for leaf in leaves:
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_the_masked_softmax_stays_in_full_precision_under_autocast(attended: Attended) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attention = masked_attention_map(*attended)
    assert torch.equal(attention, masked_attention_map(*attended))
