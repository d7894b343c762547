import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from cache.errors import CacheError, ConfigError, FingerprintMismatch, ManifestError
from cache.manifest import Dataset
from cache.run import Run
from tests import toys
from tests.toys import ACTIVITY, toy_text
from tests.train.runs import open_store, run_training, tiny_config, weights_of, write_toys
from train import trainer
from train.config import OptimizerConfig, TrainConfig
from train.data import TokenSource
from train.experiment import Experiment
from train.sampling import Indices, epoch_order
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


def stop_before_step(number: int) -> Callable[..., None]:
    """A `Trainer._step` that stops the run before its `number`-th step."""
    plain, left = Trainer._step, iter(range(number))

    def step(*arguments: Any) -> None:  # noqa: ANN401
        if next(left, None) is None:
            raise Stopped
        plain(*arguments)

    return step


def assert_equal_runs(first: Run, second: Run) -> None:
    """Weights and logits bit for bit, and every figure of metrics.jsonl but the time."""
    old, new = weights_of(first), weights_of(second)
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert np.array_equal(first.predictions("test").logits, second.predictions("test").logits)
    rows = [[_without_times(row) for row in run.metrics()] for run in (first, second)]
    assert rows[0] == rows[1]


def _without_times(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("seconds", "data_seconds", "clips_per_second")}


def test_training_lowers_the_loss_and_logs_every_epoch(folder: Path) -> None:
    run = run_training(folder, tiny_config(frozen=True, epochs=30))
    rows = run.metrics()
    assert [row["epoch"] for row in rows] == list(range(1, 31))
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["learning_rate"] < 1e-4 < rows[0]["learning_rate"]
    assert run.info.status == "finished"


def test_the_progress_line_shows_epoch_loss_and_validation_score(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr("cache.progress._SECONDS_BETWEEN_LINES", 0.0)
    run = run_training(folder, tiny_config(frozen=True, validation_split="test"), progress=True)
    row = run.metrics()[1]
    facts = f"epoch 2, loss {row['loss']:.4f}, test.acc1 {row['test.acc1']:.4f}"
    lines = [line for line in capsys.readouterr().err.splitlines() if line.endswith(facts)]
    assert [line.split(" ")[1] for line in lines] == ["6/9", "7/9", "8/9", "9/9"]


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(
    ("stop", "minutes"),
    [
        pytest.param(3, 15.0, id="after-an-epoch"),
        pytest.param(5, 1e-9, id="inside-an-epoch"),
        pytest.param(0, 15.0, id="at-once"),
    ],
)
def test_a_stopped_run_continues_as_if_nothing_had_happened(
    folder: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool, stop: int, minutes: float
) -> None:
    config = tiny_config(frozen=frozen, checkpoint_minutes=minutes, accumulate=2, task="atomic")
    whole = run_training(folder, config, name="whole")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stop_before_step(stop))
        with pytest.raises(Stopped):
            run_training(folder, config, name="stopped")
    torch.manual_seed(12345)
    assert Run.open(folder / "stopped").info.status == "running"
    assert_equal_runs(whole, run_training(folder, config, name="stopped"))


def test_a_run_stopped_at_every_step_is_the_uninterrupted_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(checkpoint_minutes=1e-9)
    whole = run_training(folder, config, name="whole")
    for _ in range(9):
        with monkeypatch.context() as patch, contextlib.suppress(Stopped):
            patch.setattr(Trainer, "_step", stop_before_step(1))
            run_training(folder, config, name="stopped")
    assert_equal_runs(whole, Run.open(folder / "stopped"))


def test_other_seeds_give_other_runs(folder: Path) -> None:
    first, second = (run_training(folder, tiny_config(frozen=True, seed=seed), name=f"s{seed}") for seed in (0, 1))
    assert not np.array_equal(first.predictions("test").logits, second.predictions("test").logits)


def test_accumulation_changes_nothing_but_rounding(folder: Path) -> None:
    no_dropout = replace(tiny_config().cmdcl, dropout=0.0)
    logits = [
        run_training(
            folder,
            tiny_config(
                frozen=True,
                accumulate=parts,
                cmdcl=no_dropout,
                epochs=1,
                batch_size=8,
                optimizer=OptimizerConfig(learning_rate=1e-3),
            ),
            name=f"parts-{parts}",
        )
        .predictions("test")
        .logits
        for parts in (1, 3)
    ]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-4)
    assert not np.array_equal(logits[0], np.zeros_like(logits[0]))


def test_a_finished_run_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(frozen=True)
    run = run_training(folder, config)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished run opened its cache")

    monkeypatch.setattr(Experiment, "open", refuse)
    assert run_training(folder, config).info == run.info
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_another_configuration_is_refused_with_the_differences(folder: Path) -> None:
    run_training(folder, tiny_config(frozen=True))
    with pytest.raises(ConfigError, match=r"train\.epochs: the run has 3, asked for 4"):
        run_training(folder, tiny_config(frozen=True, epochs=4))


def test_other_training_labels_are_refused_when_a_run_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(frozen=True)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stop_before_step(4))
        with pytest.raises(Stopped):
            run_training(folder, config)
    dataset = Dataset.read(folder / "dataset")
    first = replace(dataset.clips[1], labels={"activity": ("egg",)})
    changed = replace(dataset, clips=(dataset.clips[0], first, *dataset.clips[2:]))
    with pytest.raises(ConfigError, match="begun on other training clips or labels"):
        run_training(folder, config, dataset=changed)


def test_skipped_clips_are_counted_in_the_log_and_in_the_run(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = Dataset.read(folder / "dataset")
    unlabelled = [replace(clip, labels={}) for clip in dataset.clips[1:3]]
    partly = replace(dataset, clips=(dataset.clips[0], *unlabelled, *dataset.clips[3:]))
    run = run_training(folder, tiny_config(frozen=True, epochs=1), dataset=partly)
    notice = "split train: 6 clips, 2 skipped: no label for task activity (2)"
    assert notice in caplog.text
    assert notice in run.info.notices


def test_bf16_trains_and_predicts_finite_logits(folder: Path) -> None:
    run = run_training(folder, tiny_config(precision="bf16"))
    assert np.isfinite(run.predictions("test").logits).all()


def test_every_epoch_has_an_order_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: dict[int, list[int]] = {}
    plain = TokenSource.batches

    def recording(source: TokenSource, pieces: Iterable[Indices], epoch: int | None) -> Any:  # noqa: ANN401
        pieces = list(pieces)
        if epoch is not None:
            orders[epoch] = np.concatenate(pieces).tolist()
        return plain(source, pieces, epoch)

    monkeypatch.setattr(TokenSource, "batches", recording)
    run_training(folder, tiny_config(frozen=True, seed=5))
    assert orders == {epoch: epoch_order(8, 5, epoch).tolist() for epoch in range(3)}
    assert len({tuple(order) for order in orders.values()}) == 3


def test_the_first_best_epoch_is_the_one_predicted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a constant learning rate a run of two epochs is the beginning of a longer one."""
    config = tiny_config(frozen=True, epochs=5, optimizer=OptimizerConfig(learning_rate=1e-2, schedule="constant"))
    last = run_training(folder, config, name="last").predictions("test").logits
    second = run_training(folder, replace(config, epochs=2), name="second").predictions("test").logits
    scores = [0.2, 0.7, 0.4, 0.7, 0.1]
    remaining = iter(scores)
    monkeypatch.setattr(trainer, "score", lambda *_: next(remaining))
    run = run_training(folder, replace(config, validation_split="test"))
    assert [row["test.acc1"] for row in run.metrics()] == scores
    found = run.predictions("test")
    assert np.array_equal(found.logits, second)
    assert not np.allclose(found.logits, last, atol=1e-3)
    assert "checkpoint: best on 'test', epoch 2 of 5" in found.notices
    assert "best checkpoint chosen on 'test', a split that is also reported" in found.notices


def test_the_score_of_an_epoch_is_that_of_its_logits_on_the_validation_split(folder: Path) -> None:
    config = tiny_config(
        frozen=True, task="atomic", epochs=6, validation_split="test", optimizer=OptimizerConfig(learning_rate=3e-2)
    )
    run = run_training(folder, config)
    scores = [row["test.map_macro"] for row in run.metrics()]
    found = run.predictions("test")
    present = found.targets.any(axis=0)
    assert average_precision_score(found.targets[:, present], found.logits[:, present]) == max(scores)
    assert len(set(scores)) > 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"task": "weather"}, ManifestError, "no task 'weather'"),
        ({"protocol": "other"}, ManifestError, "no protocol 'other'"),
        ({"predict_splits": ("unseen",)}, ManifestError, "no split 'unseen'"),
        ({"num_frames": 9}, ConfigError, "holds 8 instants"),
        ({"cmdcl": replace(tiny_config().cmdcl, dim=32)}, ConfigError, r"Set train\.cmdcl\.dim = 16"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    folder: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_training(folder, tiny_config(frozen=True, **changes))
    assert not (folder / "run").exists()
    assert not (folder / "cache" / "video_tokens").exists()


@pytest.mark.parametrize("changed", [{"name": "other"}, {"weights": "ab" * 32}, {"quick_gelu": True}, {"seed": 1}])
def test_texts_of_another_image_text_model_are_refused(folder: Path, changed: dict[str, Any]) -> None:
    for path in (folder / "cache" / "text").glob("*"):
        path.unlink()
    text = toy_text(ACTIVITY, name=toys.ENCODER)
    foreign = replace(text.fingerprint, model={**text.fingerprint.model, **changed})
    replace(text, fingerprint=foreign).write(folder / "cache")
    with pytest.raises(FingerprintMismatch, match=rf"two image-text models \(model\.{next(iter(changed))}"):
        run_training(folder, tiny_config(frozen=True))


def test_prompts_that_were_not_embedded_are_refused(folder: Path) -> None:
    dataset = Dataset.read(folder / "dataset")
    other = replace(dataset.tasks[0], prompts=("a video of tea", "toast", "egg"))
    with pytest.raises(CacheError, match="no text embeddings"):
        run_training(folder, tiny_config(), dataset=replace(dataset, tasks=(other, dataset.tasks[1])))


def test_a_damaged_shard_is_noticed_before_training(folder: Path) -> None:
    (path,) = (folder / "cache" / "visual_prompts").glob("shard-00001*.h5")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CacheError, match="sha256"):
        run_training(folder, tiny_config(frozen=True))
    assert open_store(folder).streams == ("frames", "text", "visual_prompts")


_KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from cache import atomic
from tests.train.runs import run_training, tiny_config
from train import trainer
trainer.SECONDS_BETWEEN_SAVES = 0.0
plain, left = atomic._write_temporary, [int(sys.argv[2])]
def mortal(path, data):
    temporary = plain(path, data)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return temporary
atomic._write_temporary = mortal
run_training(Path(sys.argv[1]), tiny_config(frozen=True), name="killed")
"""


def test_a_run_killed_while_it_saves_continues_to_the_same_weights(folder: Path) -> None:
    config: TrainConfig = tiny_config(frozen=True)
    whole = run_training(folder, config, name="whole")
    root = Path(__file__).parents[2]
    # Sums depend on the number of threads, so both processes must have the same.
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    # Writes: config.json, run.json, then weights, optimiser and JSON of each epoch. The 7th is in the second epoch.
    command = [sys.executable, "-c", _KILLED_RUN, str(folder), "7"]
    result = subprocess.run(command, env=environment, cwd=root, capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()
    checkpoints = folder / "killed" / "checkpoints"
    assert list(checkpoints.glob(".*.tmp"))
    assert_equal_runs(whole, run_training(folder, config, name="killed"))
    assert not list(checkpoints.glob(".*.tmp"))
