import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.errors import CorruptShard
from cache.run import Run
from pipeline.cli import main
from tests.train.runs import run_training, tiny_config, write_toys

Train = Callable[..., tuple[int, str]]
RECIPE = """
[train]
task = "activity"
num_frames = 4
epochs = 1
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
dim = 16
sta_layers = 1
sta_heads = 2
qformer_heads = 2
qformer_ffn = 32
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toys(tmp_path)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def train(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """Runs `deconfound train` as the shell would; gives the exit code and what it said on stderr."""
    root = logging.getLogger()

    def run(*words: object) -> tuple[int, str]:
        given = ("--cache", folder / "cache", "--recipe", folder / "recipe.toml", "--run", folder / "run")
        command = ["deconfound", "train", folder / "dataset", *given, "--device", "cpu", *words]
        monkeypatch.setattr(sys, "argv", [str(word) for word in command])
        monkeypatch.setattr(root, "handlers", list(root.handlers))
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


def flip(path: Path, *, at: int = -3) -> Path:
    """Flips one bit of a file, by default in its last rows."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    return path


def shard_of(folder: Path, stream: str) -> Path:
    return sorted((folder / "cache" / stream).glob("shard-00001-*.h5"))[0]


@pytest.mark.parametrize("stream", ["visual_prompts", "frames"])
def test_a_flipped_shard_is_refused_by_name_before_anything_is_trained(folder: Path, train: Train, stream: str) -> None:
    path = flip(shard_of(folder, stream))
    code, told = train()
    assert code == 4
    assert f"{path} does not match its sha256; delete it and its .json, then extract again" in told
    assert not (folder / "run").exists()


def test_the_check_can_be_left_out(folder: Path, train: Train) -> None:
    flip(shard_of(folder, "visual_prompts"))
    code, _ = train("--no-verify")
    assert code == 0
    assert Run.open(folder / "run").info.status == "finished"


def test_a_shard_that_is_damaged_after_it_was_checked_is_refused(folder: Path) -> None:
    run_training(folder, tiny_config(epochs=1), name="before")
    path = flip(shard_of(folder, "frames"))
    with pytest.raises(CorruptShard, match=path.name):
        run_training(folder, tiny_config(epochs=1), name="after")


@pytest.mark.parametrize("name", ["shard-00001.json", "fingerprint.json"])
def test_a_flipped_sidecar_or_fingerprint_is_refused_also_without_the_check(
    folder: Path, train: Train, name: str
) -> None:
    path = flip(folder / "cache" / "visual_prompts" / name, at=40)
    code, told = train("--no-verify")
    assert code == 4
    assert str(path) in told


def test_a_flipped_text_embedding_is_refused_also_without_the_check(folder: Path, train: Train) -> None:
    path = flip(next((folder / "cache" / "text").glob("activity-*.h5")))
    code, told = train("--no-verify")
    assert code == 4
    assert path.name in told


def test_a_shard_that_was_cut_or_is_gone_is_refused_also_without_the_check(folder: Path, train: Train) -> None:
    path = shard_of(folder, "visual_prompts")
    path.write_bytes(path.read_bytes()[:-1])
    assert train("--no-verify")[0] == 4
    path.unlink()
    code, told = train("--no-verify")
    assert code == 4
    assert f"{path} is gone" in told
