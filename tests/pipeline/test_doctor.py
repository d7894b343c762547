from pathlib import Path

import pytest

from extract.config import PoseConfig
from extract.pose.detector import DETECTOR_SOURCES
from pipeline.doctor import examine


def test_the_doctor_looks_for_the_detector_where_it_would_be_found_and_loads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    name = PoseConfig().detector
    absent = examine()
    assert absent.weights[name] == "absent"
    (line,) = (line for line in absent.missing if f"--detector {name}" in line)
    assert DETECTOR_SOURCES[name].url in line
    path = tmp_path / "hub/checkpoints" / DETECTOR_SOURCES[name].filename
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no weights")
    assert examine().weights[name] == str(path)
