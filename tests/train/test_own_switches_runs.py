"""A run with all that is ours: a bank, exchanged scenes, evidence; continued, it is the uninterrupted one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.runs import HEADS, run_training, stop_after, tiny_config, weights_of, write_toys
from train import trainer
from train.causal.scene import Scene


def test_a_bank_continues_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toys(tmp_path)
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_SAVES", 0.0)
    config = tiny_config(
        frozen=True,
        checkpoint_minutes=1e-9,
        cmdcl=replace(HEADS, tci_b="marginal", bias_bank=5, scene="exchanged", evidence=True),
    )
    whole = run_training(tmp_path, config, name="whole")
    stop_after(tmp_path, config, 5, monkeypatch)
    torch.manual_seed(12345)
    continued = run_training(tmp_path, config, name="stopped")
    old, new = weights_of(whole), weights_of(continued)
    assert old["tci.path.bank.entries"].abs().sum() > 0
    assert old["evidence.match_bias"].abs().sum() > 0
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert np.array_equal(whole.predictions("test").logits, continued.predictions("test").logits)


def test_every_forward_pass_of_a_split_batch_holds_two_videos_to_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toys(tmp_path)
    counts: list[int] = []
    plain = Scene.forward

    def forward(self: Scene, visual: torch.Tensor) -> torch.Tensor:
        if self.training:
            counts.append(len(visual))
        return plain(self, visual)

    monkeypatch.setattr(Scene, "forward", forward)
    config = tiny_config(frozen=True, batch_size=7, accumulate=3, epochs=1, cmdcl=replace(HEADS, scene="exchanged"))
    run_training(tmp_path, config)
    assert sum(counts) == 12 - 4  # of its training videos
    assert min(counts) >= 2
