"""--boxes, --detector and --whole-frame: three answers to one question, in the words of the configuration."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.errors import ConfigError
from extract.config import PoseConfig
from pipeline.cli import main
from pipeline.commands.options import people_overrides
from pipeline.config import load_recipe

Plan = Callable[..., tuple[int, str]]


def pose(*overrides: str) -> PoseConfig:
    return load_recipe(None, ['extract.streams=["joints"]', *overrides]).extract.pose


@pytest.mark.parametrize("name", ["boxes.jsonl", 'folder = "1"/b\\oxes #2.jsonl', "коробки.jsonl"])
def test_the_options_become_the_configuration_of_their_names(name: str) -> None:
    path = Path("data") / name
    config = pose(*people_overrides(path, None, None, False))
    assert (config.boxes, config.boxes_file) == ("file", str(path))
    assert pose(*people_overrides(None, None, None, True)).boxes == "whole_frame"
    config = pose(*people_overrides(None, "ssdlite320_mobilenet_v3_large", None, False))
    assert (config.boxes, config.detector, config.detector_weights) == ("detector", "ssdlite320_mobilenet_v3_large", "")
    config = pose(*people_overrides(None, "fasterrcnn_resnet50_fpn", "none", False))
    assert (config.boxes, config.detector_weights) == ("detector", "none")
    assert people_overrides(None, None, None, False) == []


def test_two_sources_and_weights_of_no_detector_are_refused() -> None:
    with pytest.raises(ConfigError, match="--whole-frame and --boxes both say"):
        people_overrides(Path("boxes.jsonl"), None, None, True)
    with pytest.raises(ConfigError, match="--boxes and --detector both say"):
        people_overrides(Path("boxes.jsonl"), "fasterrcnn_resnet50_fpn", None, False)
    with pytest.raises(ConfigError, match="--detector-weights needs --detector NAME"):
        people_overrides(None, None, "none", True)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Plan:
    """Runs `deconfound plan` over a dataset of one absent video; exit code and stderr."""
    (tmp_path / "videos").mkdir()
    entry = {"id": "one", "video": "one.mp4", "split": "train", "action": "pour"}
    (tmp_path / "clips.jsonl").write_text(json.dumps(entry) + "\n")

    def run(*words: object) -> tuple[int, str]:
        command = ["deconfound", "plan", tmp_path, "--cache", tmp_path / "cache", *words]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


def test_mistakes_are_told_before_the_dataset_is_read(plan: Plan) -> None:
    code, error = plan("--streams", "joints")
    assert code == 2
    assert all(word in error for word in ("--whole-frame", "--boxes FILE", "--detector NAME"))
    code, error = plan("--streams", "joints", "--whole-frame", "--detector", "fasterrcnn_resnet50_fpn")
    assert (code, "both say where people are" in error) == (2, True)
    code, error = plan("--whole-frame")
    assert code == 2
    assert "--streams frames,visual_prompts,text,joints" in error
    code, error = plan("--streams", "joints", "--detector", "yolo")
    assert code == 2
    assert "'fasterrcnn_resnet50_fpn'" in error
