"""`joints import` as a person uses it, and a PeVL that trains on what it brought."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from cache import fingerprint
from cache.drop import drop
from cache.manifest import Dataset
from cache.plan import Plan
from cache.shard import write_shard
from cache.store import FeatureStore
from extract.skeletons.importing import import_skeletons, open_skeletons
from pipeline.commands.joints import joints
from tests.extract.skeletons.files import annotation, toyota_person, walk, write_openpose, write_pickle, write_toyota
from tests.toys import PROVENANCE, frame_rows, toy_dataset, toy_fingerprint, visual_prompt_rows
from tests.train.pose_runs import pose_config, write_pose_toys
from tests.train.runs import run_training

NUM_FRAMES = PROVENANCE.decoded_num_frames
SIZE = (PROVENANCE.height, PROVENANCE.width)


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


Command = Callable[..., Outcome]


@pytest.fixture
def joints_import(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `deconfound joints import` in this process."""
    from pipeline.cli import cli, main

    if "joints" not in cli.commands:
        monkeypatch.setitem(cli.commands, "joints", joints)
    root = logging.getLogger()

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["deconfound", "joints", "import", *map(str, words)])
        monkeypatch.setattr(root, "handlers", list(root.handlers))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`dataset` and `cache` for training, without joints."""
    write_pose_toys(tmp_path)
    drop(tmp_path / "cache", "joints")
    return tmp_path


def clips(folder: Path) -> list[str]:
    return [clip.id for clip in Dataset.read(folder / "dataset").clips]


def track(clip_id: str, num_joints: int = 17) -> np.ndarray[Any, np.dtype[np.float32]]:
    return walk(NUM_FRAMES, num_joints=num_joints, seed=int(clip_id[-3:]), start=(2, 2))


def write_all(folder: Path, ids: list[str]) -> Path:
    entries = [annotation(clip_id, [track(clip_id)], img_shape=SIZE) for clip_id in ids]
    return write_pickle(folder / "skeletons.pkl", {"split": {}, "annotations": entries})


def test_counts_are_printed_by_outcome_and_a_second_call_has_nothing_to_do(
    folder: Path, joints_import: Command
) -> None:
    ids = clips(folder)
    file = write_all(folder, ids[1:])
    words = (file, folder / "dataset", "--format", "mmaction2", "--cache", folder / "cache")
    first = joints_import(*words)
    assert first.code == 3
    assert "no_skeleton" in first.stdout
    assert f"{ids[0]}: the imported mmaction2 file has no skeleton of it" in first.stdout
    again = joints_import(*words, "--json")
    assert again.code == 3
    body = json.loads(again.stdout)
    assert (body["ok"], body["failed"], body["already_done"]) == (11, {"no_skeleton": 1}, True)
    assert body["failures"][ids[0]]["code"] == "no_skeleton"


def test_everything_imported_is_exit_code_0(folder: Path, joints_import: Command) -> None:
    file = write_all(folder, clips(folder))
    outcome = joints_import(file, folder / "dataset", "--format", "mmaction2", "--cache", folder / "cache")
    assert outcome.code == 0
    assert "12 clips looked up" in outcome.stdout


@pytest.mark.parametrize("stream", ["frames", "visual_prompts"])
def test_clips_that_wait_are_exit_code_3_and_the_stream_that_lacks_them_is_named(
    tmp_path: Path, joints_import: Command, stream: str
) -> None:
    dataset = toy_dataset(3)
    dataset.write(tmp_path / "dataset")
    mark = toy_fingerprint(stream)
    fingerprint.ensure(tmp_path / "cache" / stream, mark)
    Plan.ensure(tmp_path / "cache", ["clip-000"], 3)
    row = (frame_rows if stream == "frames" else visual_prompt_rows)("clip-000")
    write_shard(tmp_path / "cache" / stream, 0, stream, [row], fingerprint=mark)
    file = write_all(tmp_path, clips(tmp_path))
    words = (file, tmp_path / "dataset", "--format", "mmaction2", "--cache", tmp_path / "cache")
    outcome = joints_import(*words)
    assert outcome.code == 3
    assert f"without {stream} in the cache; `deconfound extract` them, then import again: 2" in outcome.stdout
    body = json.loads(joints_import(*words, "--json").stdout)
    assert (body["waiting"], body["instants_of"]) == (["clip-001", "clip-002"], stream)


def test_a_pickle_that_would_run_a_command_is_refused_in_one_line(folder: Path, joints_import: Command) -> None:
    (folder / "evil.pkl").write_bytes(f"cos\nsystem\n(Vtouch {folder}/was-here\ntR.".encode())
    outcome = joints_import(
        folder / "evil.pkl", folder / "dataset", "--format", "mmaction2", "--cache", folder / "cache"
    )
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "is refused: it asks for os.system." in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert not (folder / "was-here").exists()
    assert not (folder / "cache" / "joints").exists()


def test_openpose_is_a_folder(folder: Path, joints_import: Command) -> None:
    ids = clips(folder)
    scores = np.full((NUM_FRAMES, 18, 1), 0.5)
    for clip_id in ids:
        people = np.concatenate([track(clip_id, 18), scores], axis=2)
        write_openpose(folder / "openpose" / clip_id, "video", [[person] for person in people[:, :18]])
    outcome = joints_import(
        folder / "openpose", folder / "dataset", "--format", "openpose", "--cache", folder / "cache", "--json"
    )
    assert outcome.code == 0
    assert json.loads(outcome.stdout)["ok"] == 12
    assert FeatureStore.open(folder / "cache").joints[ids[0]].xy.shape == (8, 17, 2)


@pytest.mark.parametrize("format_name", ["mmaction2", "toyota"])
def test_pevl_trains_and_predicts_on_imported_joints(folder: Path, format_name: str) -> None:
    ids = clips(folder)
    path = write_all(folder, ids)
    if format_name == "toyota":
        path = folder / "json"
        path.mkdir()
        for clip_id in ids:
            frames = [[toyota_person(10 * joints)] for joints in track(clip_id, 13)]
            write_toyota(path / f"{clip_id}.json", frames)
    dataset = Dataset.read(folder / "dataset")
    summary = import_skeletons(dataset, folder / "cache", open_skeletons(path, format_name))
    assert summary.ok == len(ids)
    run = run_training(folder, replace(pose_config(folder), epochs=1))
    logits = run.predictions("test").logits
    assert np.isfinite(logits).all()
    assert logits.std(axis=0).min() > 0


def test_an_import_loads_no_torch(folder: Path) -> None:
    file = write_all(folder, clips(folder))
    script = (
        "import sys; from pathlib import Path; from cache.manifest import Dataset;"
        "from extract.skeletons.importing import import_skeletons, open_skeletons; import pipeline.commands.joints;"
        f"folder = Path({str(folder)!r}); found = open_skeletons(Path({str(file)!r}), 'mmaction2');"
        "summary = import_skeletons(Dataset.read(folder / 'dataset'), folder / 'cache', found);"
        "sys.exit(summary.ok != 12 or 'torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0
