"""Several processes of one run: the same gradients, the same run, and one writer."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cache.errors import ConfigError
from cache.manifest import Dataset
from cache.run import Run
from tests.train.one_step import NUM_CLIPS, configs, gradients, pieces, trainer_of
from tests.train.pose_runs import write_pose_toys
from tests.train.runs import tiny_config, weights_of, write_toys
from train import parallel
from train.checkpoint import read_position
from train.loop import _check_share
from train.models.cmdcl import CMDCLConfig
from train.parallel import ALONE, Processes
from train.predict import predict

ROOT = Path(__file__).parents[2]


def torchrun(*command: str, count: int = 2, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs `python -m COMMAND` in several processes that know of each other."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", *command],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=check,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    write_toys(folder, num_clips=NUM_CLIPS)
    (folder / "pose").mkdir()
    write_pose_toys(folder / "pose", num_clips=NUM_CLIPS)
    return folder


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one_with_the_whole_batch(folder: Path) -> None:
    torchrun("tests.train.one_step", str(folder))
    for method, config in configs(folder).items():
        alone = trainer_of(folder, config, ALONE)
        for kind, piece in pieces().items():
            expected = gradients(alone, piece)
            first, second = (load_file(folder / f"{method}-{kind}-{rank}.safetensors") for rank in (0, 1))
            assert first.keys() == second.keys() == expected.keys()
            loss = first.pop("loss") + second.pop("loss")
            torch.testing.assert_close(loss, expected["loss"], atol=1e-4, rtol=1e-5)
            for name, value in first.items():
                assert torch.equal(value, second[name]), f"{method} {kind} {name} differs between processes"
                torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5, msg=f"{method} {kind} {name}")


@pytest.mark.slow
def test_a_killed_run_of_two_processes_continues_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Bit for bit, dropout included; and what two processes predicted is what one predicts from their checkpoint."""
    write_toys(tmp_path)
    torchrun("tests.train.whole_run", str(tmp_path), "whole", "0")
    # Writes of the first process: config.json, run.json, then three a checkpoint: the 24th is in the second epoch.
    killed = torchrun("tests.train.whole_run", str(tmp_path), "killed", "24", check=False)
    assert killed.returncode != 0
    before = read_position(tmp_path / "killed" / "checkpoints", "last")
    assert before is not None
    assert before.epoch == 1
    assert Run.open(tmp_path / "killed").info.status == "running"
    torchrun("tests.train.whole_run", str(tmp_path), "killed", "0")
    whole, continued = (Run.open(tmp_path / name) for name in ("whole", "killed"))
    expected, found = weights_of(whole), weights_of(continued)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert [row["loss"] for row in whole.metrics()] == [row["loss"] for row in continued.metrics()]
    stored = whole.predictions("test")
    assert stored.clip_ids == tuple(clip.id for clip in Dataset.read(tmp_path / "dataset").select("default", "test"))
    (alone,) = predict(whole.path)
    np.testing.assert_allclose(stored.logits, alone.logits, atol=1e-5)


def test_random_states_are_restored_by_rank_and_others_draw_apart(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trainer_of(folder, configs(folder)["cmdcl"], ALONE)
    caplog.clear()
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append({"cpu": torch.get_rng_state()})
    trainer.processes = Processes(rank=1, count=2)
    trainer._restore_random(states)
    assert torch.equal(torch.get_rng_state(), states[1]["cpu"])
    assert not caplog.text
    trainer.processes = Processes(rank=1, count=3)
    trainer._restore_random(states[:1])
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(trainer.config.seed + 1).get_state())
    trainer.processes = Processes(rank=0, count=3)
    trainer._restore_random(states)
    assert "trained by 2 processes and goes on with 3" in caplog.text


def test_a_launcher_that_does_not_say_where_the_others_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert parallel.asked_for() == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE = 2, but RANK, LOCAL_RANK, .*torchrun"):
        parallel.asked_for()


def test_each_of_several_processes_has_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parallel.device_name("cuda:1") == "cuda:1"
    for name, value in (
        ("WORLD_SIZE", "2"),
        ("RANK", "1"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "x"),
        ("MASTER_PORT", "1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [parallel.device_name(name) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(ConfigError, match="--device cuda:0 with 2 processes"):
        parallel.device_name("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert parallel.device_name("auto") == "cpu"


def test_fewer_clips_than_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size = 3 clips for 4 processes"):
        _check_share(tiny_config(batch_size=3), Processes(rank=0, count=4))
    with pytest.raises(ConfigError, match="a bank of biases"):
        _check_share(tiny_config(cmdcl=CMDCLConfig(tci_b="marginal")), Processes(rank=0, count=2))
    _check_share(tiny_config(cmdcl=CMDCLConfig(tci_b="marginal")), ALONE)
    exchanged = tiny_config(batch_size=8, accumulate=2, cmdcl=CMDCLConfig(scene="exchanged"))
    _check_share(exchanged, Processes(rank=0, count=2))
    with pytest.raises(ConfigError, match=r"batch_size = 8 in 6 parts .*two clips or more in one forward pass"):
        _check_share(exchanged, Processes(rank=0, count=3))


def test_a_lone_process_sends_nothing() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    assert ALONE.gather("x") == ["x"]
    assert not ALONE.gather_rows(rows, [2]).requires_grad
    assert ALONE.agree(True)
    assert [share.tolist() for share in Processes(rank=0, count=3).shares(np.arange(4))] == [[0, 1], [2], [3]]
