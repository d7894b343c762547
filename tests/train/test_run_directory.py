import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import ConfigError
from cache.run import Run
from tests.train.runs import run_training, tiny_config, write_toys
from train import run_directory, trainer
from train.config import TrainConfig, from_json
from train.predict import predict
from train.trainer import Trainer


class Stopped(BaseException):
    """Stands for a stop from outside: no code of ours catches it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toys(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _save_after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_SAVES", 0.0)


def failing_step(number: int, error: BaseException) -> Callable[..., None]:
    """A `Trainer._step` that raises at its `number`-th step, counted from 0."""
    plain, left = Trainer._step, iter(range(number))

    def step(*arguments: Any) -> None:  # noqa: ANN401
        if next(left, None) is None:
            raise error
        plain(*arguments)

    return step


def stop_after(folder: Path, config: TrainConfig, steps: int, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that was stopped after some steps."""
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", failing_step(steps, Stopped()))
        with pytest.raises(Stopped):
            run_training(folder, config)
    return Run.open(folder / "run")


_HOLDER = """
import sys
from pathlib import Path
from train.run_directory import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_trains_is_refused_until_that_process_is_gone(folder: Path) -> None:
    command = [sys.executable, "-c", _HOLDER, str(folder / "run")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=r"run is being trained by another process"):
            run_training(folder, tiny_config(frozen=True))
        assert not (folder / "run" / "run.json").exists()
        other.kill()
    assert run_training(folder, tiny_config(frozen=True)).info.status == "finished"


def test_a_run_that_another_process_finished_meanwhile_is_returned(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(frozen=True)
    run = run_training(folder, config)
    before = run.predictions_path("test").stat().st_mtime_ns
    monkeypatch.setattr(run_directory, "existing_run", _second(run))
    assert run_training(folder, config).info.status == "finished"
    assert run.predictions_path("test").stat().st_mtime_ns == before


def _second(run: Run) -> Callable[..., Run | None]:
    """An `existing_run` that sees the run at its second call only."""
    answers = iter([None, run])
    return lambda *_: next(answers)


def test_several_processes_of_one_run_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="WORLD_SIZE = 4"):
        run_training(folder, tiny_config(frozen=True))
    assert not (folder / "run").exists()


def test_settings_of_memory_and_time_may_change_when_a_run_continues(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(cmdcl=replace(tiny_config().cmdcl, dropout=0.0))
    stop_after(folder, config, 4, monkeypatch)
    changed = replace(
        config,
        accumulate=3,
        checkpoint_minutes=1.0,
        video_encoder=replace(config.video_encoder, gradient_checkpointing=True),
        cmdcl=replace(config.cmdcl, class_chunk=1),
    )
    used: list[TrainConfig] = []
    plain = Trainer.fit

    def recording(trainer: Trainer, *, progress: bool) -> None:
        used.append(trainer.config)
        plain(trainer, progress=progress)

    monkeypatch.setattr(Trainer, "fit", recording)
    assert run_training(folder, changed).info.status == "finished"
    assert used == [changed]
    assert from_json(Run.open(folder / "run").config["train"]) == changed


def test_memory_that_runs_out_names_the_keys_and_the_run_continues_with_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(frozen=True)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", failing_step(4, torch.OutOfMemoryError("CUDA out of memory. Tried")))
        with pytest.raises(ConfigError, match=r"train\.accumulate .* train\.video_encoder\.gradient_checkpointing"):
            run_training(folder, config)
    assert run_training(folder, replace(config, accumulate=2)).info.status == "finished"


def test_predictions_of_an_unfinished_run_say_so_and_are_renewed_at_its_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(frozen=True, epochs=6)
    run = stop_after(folder, config, 7, monkeypatch)
    (early,) = predict(run.path, split="train")
    assert "checkpoint: unfinished run, 2 of 6 epochs" in early.notices
    late = run_training(folder, config).predictions("train")
    assert not any("unfinished" in notice for notice in late.notices)
    assert not np.array_equal(late.logits, early.logits)
    assert np.array_equal(late.logits, predict(run.path, split="train")[0].logits)


def test_predictions_of_another_dataset_are_not_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(frozen=True)
    run = stop_after(folder, config, 4, monkeypatch)
    (early,) = predict(run.path, split="train")
    replace(early, dataset="other").write(run.predictions_path("train"))
    replace(early, split="unseen").write(run.predictions_path("unseen"))
    finished = run_training(folder, config)
    assert np.array_equal(finished.predictions("train").logits, early.logits)
    assert finished.splits == ("test", "train", "unseen")


def test_with_a_validation_split_an_unfinished_run_says_so_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(frozen=True, epochs=6, validation_split="test", predict_splits=("train",))
    run = stop_after(folder, config, 7, monkeypatch)
    found = predict(run.path, split="test")[0].notices
    assert "checkpoint: unfinished run, 2 of 6 epochs" in found
    assert any(notice.startswith("checkpoint: best on 'test', epoch") for notice in found)


def test_logits_of_the_split_that_chose_the_checkpoint_say_so_and_no_others(folder: Path) -> None:
    config = tiny_config(frozen=True, validation_split="test", predict_splits=("train",))
    run = run_training(folder, config)
    chosen = "best checkpoint chosen on 'test', a split that is also reported"
    assert chosen not in run.info.notices
    assert chosen not in run.predictions("train").notices
    assert chosen in predict(run.path, split="test")[0].notices
