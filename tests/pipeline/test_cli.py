"""The command line as a person uses it: every command on real (small) videos, results on stdout, exit codes."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from cache.manifest import Dataset
from cache.run import Run
from pipeline.cli import main
from tests.extract.tiny_clip import tiny_clip
from tests.extract.videos import make_video


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.stdout)


Command = Callable[..., Outcome]


@pytest.fixture
def deconfound(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process, as the shell would."""

    root = logging.getLogger()

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["deconfound", *map(str, words)])
        monkeypatch.setattr(root, "handlers", list(root.handlers))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six videos, and one broken file."""
    folder = tmp_path_factory.mktemp("cli")
    for label in ("pour", "stir"):
        (folder / "videos" / label).mkdir(parents=True)
        for number in range(6):
            make_video(folder / "videos" / label / f"{number}.mp4", num_frames=12, seed=number + 10 * (label == "stir"))
    (folder / "videos" / "stir" / "broken.mp4").write_bytes(b"\0" * 500)
    return folder


def settings(folder: Path) -> list[str]:
    encoder = tiny_clip(folder)
    return [
        *("--set", f"extract.image_encoder.model={encoder.model}"),
        *("--set", "extract.image_encoder.pretrained=none"),
        *("--set", "extract.image_encoder.batch_size=4"),
        *("--set", "extract.num_frames=4"),
        *("--set", "extract.shard_size=5"),
    ]


TRAINING = """
description = "a model of a few thousand parameters"
[train]
task = "action"
num_frames = 4
epochs = 2
batch_size = 4
[train.video_encoder]
pretrained = "none"
image_size = 16
resize = 16
patch_size = 8
width = 16
depth = 1
heads = 2
[train.cmdcl]
dim = 24
sta_layers = 1
sta_heads = 2
qformer_heads = 2
qformer_ffn = 32
"""


@pytest.mark.slow
def test_a_folder_of_videos_becomes_a_report(folder: Path, deconfound: Command) -> None:
    dataset, cache, run, report = (folder / name for name in ("dataset", "cache", "run", "report"))
    prepared = deconfound("prepare", "folder", "--videos", folder / "videos", "--out", dataset)
    assert prepared.code == 0
    assert len(Dataset.read(dataset).clips) == 13

    planned = deconfound("plan", dataset, "--cache", cache, *settings(folder), "--json")
    assert planned.json["streams"]["frames"]["num_left"] == 13
    assert not cache.exists()

    extracted = deconfound("extract", dataset, "--cache", cache, *settings(folder), "--json")
    assert extracted.code == 3
    assert extracted.json["streams"]["frames"] == {"ok": 12, "failed": {"not_a_video": 1}}
    again = deconfound("extract", dataset, "--cache", cache, *settings(folder))
    assert again.code == 3
    assert "nothing to do" in again.stdout

    assert "broken.mp4" in deconfound("status", cache).stdout
    counted = deconfound("status", cache, "--json").json["streams"]
    assert "stir/broken.mp4" in counted["frames"]["failures"]
    assert (counted["visual_prompts"]["rows"], counted["visual_prompts"]["left"]) == (48, 0)
    verified = deconfound("verify", cache, "--deep", "--json")
    assert verified.code == 0
    assert {len(stream["content_sha256"]) for stream in verified.json["streams"].values()} == {64}

    recipe = folder / "tiny.toml"
    recipe.write_text(TRAINING)
    trained = deconfound("train", dataset, "--cache", cache, "--recipe", recipe, "--run", run, "--seed", 3)
    assert trained.code == 0
    assert json.loads((run / "config.json").read_text())["train"]["seed"] == 3
    assert deconfound("predict", run, "--split", "train").code == 0
    explained = deconfound("predict", run, "--explain", "--split", "test")  # the number may be left out
    assert f"explained: {run / 'explanations'}" in explained.stdout
    refused = deconfound("predict", run, "--explain", 2, "--clip", "pour/0.mp4")
    assert (refused.code, "one of the two" in refused.stderr) == (2, True)

    text = deconfound("evaluate", run).stdout
    assert "random weights" in text
    assert "Acc@1" in text
    evaluated = deconfound("evaluate", run, "--report", report, "--json").json
    assert set(evaluated["runs"][0]["splits"]) == {"train", "test"}
    assert "random weights" in (report / "index.html").read_text()
    assert "Inside the runs" in (report / "index.html").read_text()

    check_recognition(folder, deconfound)


def check_recognition(folder: Path, deconfound: Command) -> None:
    """New videos get the scores that the same videos had in the run, without dataset, cache or recipe."""
    run, known = folder / "run", Run.open(folder / "run").predictions("train")
    (folder / "dataset").rename(folder / "dataset-away")
    (folder / "cache").rename(folder / "cache-away")
    videos = [folder / "videos" / clip_id for clip_id in known.clip_ids[:2]]
    broken = folder / "videos" / "stir" / "broken.mp4"
    found = deconfound("recognise", run, *videos, broken, "--top", 2, "--json")
    assert found.code == 3
    *recognised, failed = found.json["videos"]
    assert (failed["classes"], failed["failure"]["code"]) == ([], "not_a_video")
    for row, logits in zip(recognised, known.logits, strict=False):
        scores = {entry["class"]: entry["score"] for entry in row["classes"]}
        shares = np.exp(logits) / np.exp(logits).sum()
        assert scores == pytest.approx(dict(zip(known.class_names, shares, strict=True)), abs=1e-5)
        assert row["classes"][0]["class"] == known.class_names[int(np.argmax(logits))]
    assert deconfound("recognise", run, *videos).stdout.count("%") == 4
    refused = deconfound("recognise", run, *videos, "--set", "extract.num_frames=3")
    assert refused.code == 2
    assert "num_frames" in refused.stderr
    absent = deconfound("recognise", run, folder / "nothing.mp4")
    assert absent.code == 2
    assert "nothing.mp4" in absent.stderr


def test_other_settings_than_the_cache_has_are_refused_with_the_difference(tmp_path: Path, deconfound: Command) -> None:
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4", num_frames=6)
    deconfound("prepare", "folder", "--videos", tmp_path / "videos", "--out", tmp_path / "dataset")
    arguments = ["extract", tmp_path / "dataset", "--cache", tmp_path / "cache", "--streams", "frames"]
    assert deconfound(*arguments, "--set", "extract.num_frames=3").code == 0
    refused = deconfound(*arguments, "--set", "extract.num_frames=2")
    assert refused.code == 2
    assert "num_frames: the cache has 3, asked for 2" in refused.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("extract", "nowhere", "--cache", "c"), "deconfound prepare"),
        (("plan", "nowhere", "--cache", "c", "--set", "extract.num_frame=3"), "did you mean extract.num_frames"),
        (("plan", "nowhere", "--cache", "c", "--streams", "joints"), "extract.pose.boxes"),
        (("status", "nowhere"), "not a cache"),
        (("evaluate", "nowhere"), "deconfound train"),
        (("train", "nowhere", "--cache", "c", "--recipe", "cmdcl", "--run", "r"), "did you mean"),
        (("extract",), "Missing argument"),
        (("extract", "nowhere", "--cache", "c", "--workers", "0"), "--workers"),
        (("--log-file", "/proc/nowhere/log", "status", "c"), "/proc/nowhere"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deconfound: Command, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = deconfound(*words)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_there_say_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deconfound: Command
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4", num_frames=6)
    deconfound("prepare", "folder", "--videos", tmp_path / "videos", "--out", tmp_path / "dataset")
    outcome = deconfound("extract", tmp_path / "dataset", "--cache", tmp_path / "cache")
    assert outcome.code == 2
    assert "--set extract.image_encoder.pretrained=PATH" in outcome.stderr
    assert not (tmp_path / "cache").exists()


def test_a_damaged_cache_is_exit_code_4(tmp_path: Path, deconfound: Command) -> None:
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos" / "a.mp4", num_frames=6)
    deconfound("prepare", "folder", "--videos", tmp_path / "videos", "--out", tmp_path / "dataset")
    cache = tmp_path / "cache"
    deconfound("extract", tmp_path / "dataset", "--cache", cache, "--streams", "frames")
    shard = next((cache / "frames").glob("*.h5"))
    image = bytearray(shard.read_bytes())
    image[-9] ^= 4
    shard.write_bytes(image)
    assert deconfound("verify", cache).code == 0
    damaged = deconfound("verify", cache, "--deep", "--json")
    assert damaged.code == 4
    assert "sha256" in damaged.json["streams"]["frames"]["problems"][0]


def test_doctor_says_what_is_missing_for_which_command(deconfound: Command) -> None:
    findings = deconfound("doctor", "--json").json
    assert findings["versions"]["torch"] != "absent"
    assert "PyAV" in findings["decoders"]
    absent = [name for name, place in findings["weights"].items() if place == "absent"]
    assert len([line for line in findings["missing"] if line.startswith("for `")]) == len(absent)


def test_a_shadowed_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deconfound: Command) -> None:
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "evaluate"]:
        monkeypatch.delitem(sys.modules, name)
    outcome = deconfound("status", "anywhere")
    assert outcome.code == 2
    assert str(tmp_path / "evaluate") in outcome.stderr
