from pathlib import Path

import pytest
import torch
from torch import nn

from cache import atomic
from cache.errors import CacheError, ConfigError, CorruptShard
from train import checkpoint
from train.checkpoint import Position
from train.config import OptimizerConfig
from train.optimizer import build_optimizer
from train.random_state import random_states, restore_random_states


class Killed(BaseException):
    """Stands for a kill: no code of ours catches it."""


def model_filled_with(value: float) -> nn.Module:
    model = nn.Linear(3, 2)
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


def stepped_optimizer(model: nn.Module, steps: int) -> torch.optim.Optimizer:
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=1e-9))
    for _ in range(steps):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    return optimizer


def save(folder: Path, epoch: int) -> None:
    """A checkpoint in which weights, optimiser and position all say which epoch they are of."""
    model = model_filled_with(float(epoch))
    optimizer = stepped_optimizer(model, epoch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float(epoch))
    checkpoint.save(folder, "last", Position(epoch=epoch), model, optimizer, [random_states()])


def epochs_of(folder: Path) -> tuple[int, float, float]:
    """The epochs that position, weights and optimiser of the checkpoint say."""
    model = nn.Linear(3, 2)
    position = checkpoint.load_weights(folder, "last", model)
    optimizer = build_optimizer(model, OptimizerConfig())
    restore_random_states(*checkpoint.load_optimizer(folder, model, optimizer))
    step = next(iter(optimizer.state.values()))["step"]
    return position.epoch, float(model.bias[0].item()), float(step)


def test_a_checkpoint_brings_back_weights_optimiser_and_generators(tmp_path: Path) -> None:
    torch.manual_seed(3)
    save(tmp_path, 2)
    expected = torch.rand(4)
    torch.manual_seed(99)
    assert epochs_of(tmp_path) == (2, 2.0, 2.0)
    assert torch.equal(torch.rand(4), expected)


def test_only_the_files_of_the_newest_checkpoint_stay(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save(tmp_path, epoch)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last-000003-000000.safetensors",
        "last.json",
        "optimizer-000003-000000.safetensors",
    ]


def test_a_kill_at_any_write_leaves_one_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dies before the n-th file operation of the second save, for every n until the save survives."""
    outcomes = []
    for deadly in range(100):
        folder = tmp_path / str(deadly)
        save(folder, 1)
        left = iter(range(deadly))
        with monkeypatch.context() as patch:

            def mortal(operation: object, left: object = left) -> object:
                def run(*arguments: object, **options: object) -> object:
                    if next(left, None) is None:  # type: ignore[call-overload]
                        raise Killed
                    return operation(*arguments, **options)  # type: ignore[operator]

                return run

            patch.setattr(atomic, "write_bytes", mortal(atomic.write_bytes))
            patch.setattr(Path, "replace", mortal(Path.replace))
            patch.setattr(Path, "unlink", mortal(Path.unlink))
            try:
                save(folder, 2)
                survived = True
            except Killed:
                survived = False
        epoch, weights, steps = epochs_of(folder)
        assert epoch == weights == steps
        outcomes.append(epoch)
        save(folder, 3)
        assert epochs_of(folder) == (3, 3.0, 3.0)
        if survived:
            break
    assert outcomes == sorted(outcomes)
    assert outcomes[0] == 1
    assert outcomes[-1] == 2
    assert len(outcomes) >= 8


@pytest.mark.parametrize("family", ["last", "optimizer"])
def test_a_damaged_or_absent_file_is_noticed(tmp_path: Path, family: str) -> None:
    save(tmp_path, 1)
    path = tmp_path / f"{family}-000001-000000.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptShard, match="sha256"):
        epochs_of(tmp_path)
    path.unlink()
    with pytest.raises(CorruptShard, match="absent"):
        epochs_of(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, value: float) -> None:
    save(tmp_path, 1)
    model = model_filled_with(2.0)
    with torch.no_grad():
        model.get_parameter("bias")[1] = value
    for kind in ("last", "best"):
        with pytest.raises(ConfigError, match=r"first in bias: training diverged.*learning_rate"):
            checkpoint.save(tmp_path, kind, Position(epoch=2), model, None)
    assert epochs_of(tmp_path) == (1, 1.0, 1.0)
    assert checkpoint.read_position(tmp_path, "best") is None


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(CorruptShard, match="does not fit the model"):
        checkpoint.load_weights(tmp_path, "last", nn.Linear(4, 2))


def test_no_checkpoint_says_what_to_run(tmp_path: Path) -> None:
    assert checkpoint.read_position(tmp_path, "last") is None
    with pytest.raises(CacheError, match="run `deconfound train`"):
        checkpoint.load_weights(tmp_path, "best", nn.Linear(3, 2))
