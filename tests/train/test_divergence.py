"""NaN and infinity: noticed, named, and kept out of every checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cache.errors import ConfigError
from cache.run import Run
from tests.train.runs import run_training, tiny_config, weights_of, write_toys
from train import trainer
from train.losses import task_loss
from train.methods import causal
from train.trainer import Trainer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toys(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _save_after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_SAVES", 0.0)


def test_a_diverging_loss_stops_the_run_and_keeps_the_checkpoint_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(frozen=True)
    plain, calls = task_loss, iter(range(1000))

    def diverging(*arguments: Any) -> torch.Tensor:  # noqa: ANN401
        return plain(*arguments) * (1.0 if next(calls) < 4 else float("nan"))

    monkeypatch.setattr(causal, "task_loss", diverging)
    with pytest.raises(ConfigError, match="not finite in epoch 2"):
        run_training(folder, config)
    assert all(value.isfinite().all() for value in weights_of(Run.open(folder / "run")).values())


@pytest.mark.parametrize("task", ["activity", "atomic"])
@pytest.mark.parametrize("validation_split", ["", "test"])
def test_weights_ruined_by_a_last_step_reach_no_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, task: str, validation_split: str
) -> None:
    """The losses of the first epoch are finite; its last step leaves NaN, as an infinite gradient does."""
    plain, calls = Trainer._step, iter(range(1000))

    def ruining(trainer: Trainer, *arguments: Any) -> None:  # noqa: ANN401
        plain(trainer, *arguments)
        if next(calls) == 2:
            with torch.no_grad():
                trainer.model.get_parameter("text").fill_(float("nan"))

    monkeypatch.setattr(Trainer, "_step", ruining)
    with pytest.raises(ConfigError, match=r"NaN or infinite.*training diverged.*learning_rate"):
        run_training(folder, tiny_config(frozen=True, task=task, validation_split=validation_split))
    assert not (folder / "run" / "checkpoints").exists()
