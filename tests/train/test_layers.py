"""The shared layers against torch's own implementations."""

import pytest
import torch
from torch import nn

from train.layers import CrossAttention, DropPath, SelfAttention


def test_self_attention_equals_torchs_multihead_attention() -> None:
    torch.manual_seed(0)
    ours, theirs = SelfAttention(32, 4), nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.proj.weight,
            "out_proj.bias": ours.proj.bias,
        }
    )
    tokens = torch.randn(2, 5, 32)
    torch.testing.assert_close(ours(tokens), theirs(tokens, tokens, tokens)[0], atol=1e-5, rtol=1e-5)


def test_cross_attention_equals_torchs_multihead_attention() -> None:
    torch.manual_seed(0)
    ours, theirs = CrossAttention(32, 4), nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([ours.query.weight, ours.key_value.weight]),
            "in_proj_bias": torch.cat([ours.query.bias, ours.key_value.bias]),
            "out_proj.weight": ours.proj.weight,
            "out_proj.bias": ours.proj.bias,
        }
    )
    queries, memory = torch.randn(2, 3, 32), torch.randn(2, 7, 32)
    torch.testing.assert_close(ours(queries, memory), theirs(queries, memory, memory)[0], atol=1e-5, rtol=1e-5)


def test_drop_path_drops_whole_rows_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = DropPath(0.25).train()(torch.ones(20_000, 3))
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert (dropped == dropped[:, :1]).all()
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)


def test_drop_path_does_nothing_in_evaluation() -> None:
    assert torch.equal(DropPath(0.9).eval()(torch.ones(8, 3)), torch.ones(8, 3))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width 30 cannot be split into 4 heads"):
        SelfAttention(30, 4)
