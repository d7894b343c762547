"""TensorBoard's files, read back with its own reader: metrics.jsonl, every epoch once, however a run was stopped."""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cache.errors import ConfigError
from cache.run import Run
from tests.train.runs import run_training, tiny_config, write_toys
from tests.train.test_trainer import Stopped, stop_before_step
from train import trainer
from train.tensorboard_log import TensorBoardLog
from train.trainer import Trainer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toys(tmp_path)
    return tmp_path


Scalars = dict[str, list[tuple[int, float]]]


def events(run: Path) -> EventAccumulator:
    """All that is in the folder; what a viewer would drop as out of order is kept."""
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    reader.Reload()
    return reader


def scalars(run: Path) -> Scalars:
    reader = events(run)
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def rows_as_scalars(run: Run) -> Scalars:
    found: Scalars = defaultdict(list)
    for row in run.metrics():
        for key, value in row.items():
            if key != "epoch":
                found[key.replace(".", "/")].append((row["epoch"], float(np.float32(value))))
    return dict(found)


def test_every_number_of_every_epoch_is_a_scalar(folder: Path) -> None:
    config = tiny_config(frozen=True, epochs=4, validation_split="test")
    run = run_training(folder, config, tensorboard=True)
    found = scalars(run.path)
    assert found == rows_as_scalars(run)
    assert found.keys() >= {"loss", "learning_rate", "seconds", "test/acc1"}
    assert [step for step, _ in found["loss"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("seconds_between_saves", [0.0, 1e9], ids=["saved-every-epoch", "epochs-are-repeated"])
def test_a_continued_run_has_every_epoch_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, seconds_between_saves: float
) -> None:
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_SAVES", seconds_between_saves)
    config = tiny_config(frozen=True, epochs=4)
    for steps in (7, 4):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_step", stop_before_step(steps))
            with pytest.raises(Stopped):
                run_training(folder, config, tensorboard=True)
    run = run_training(folder, config, tensorboard=True)
    assert scalars(run.path) == rows_as_scalars(run)
    assert len(list((run.path / "tensorboard").iterdir())) == 1


def test_a_kill_between_metrics_and_scalars_loses_no_epoch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(frozen=True, epochs=4)
    plain, left = TensorBoardLog.add, iter(range(1))

    def add(log: TensorBoardLog, row: dict[str, float]) -> None:
        if next(left, None) is None:
            raise Stopped
        plain(log, row)

    with monkeypatch.context() as patch:
        patch.setattr(TensorBoardLog, "add", add)
        with pytest.raises(Stopped):
            run_training(folder, config, tensorboard=True)
    (path,) = (folder / "run" / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-5])  # and half a record
    run = run_training(folder, config, tensorboard=True)
    assert scalars(run.path) == rows_as_scalars(run)


def test_a_run_that_was_trained_without_gets_its_scalars_later(folder: Path) -> None:
    config = tiny_config(frozen=True)
    run = run_training(folder, config)
    assert not (run.path / "tensorboard").exists()
    run_training(folder, config, tensorboard=True)
    assert scalars(run.path) == rows_as_scalars(run)


def test_time_is_the_time_trained(folder: Path) -> None:
    log = TensorBoardLog(folder / "run" / "tensorboard")
    rows = [{"epoch": epoch, "loss": 1.0, "seconds": 10.0 * epoch} for epoch in (1, 2, 3)]
    log.begin(rows[:2])
    log.add(rows[2])
    times = [event.wall_time for event in events(folder / "run").Scalars("loss")]
    assert np.diff(times).tolist() == pytest.approx([20.0, 30.0])


def test_without_the_package_the_extra_is_named_before_anything_is_trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r'pip install "deconfound\[tensorboard\]"'):
        run_training(folder, tiny_config(frozen=True), tensorboard=True)
    assert not (folder / "run").exists()
    assert not (folder / "cache" / "video_tokens").exists()
    run_training(folder, tiny_config(frozen=True, epochs=1))  # which asks for nothing
