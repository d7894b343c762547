import sys
from pathlib import Path

import pytest

from cache.errors import ConfigError, TooManyFailures
from cache.manifest import Dataset
from extract.extractor import extract
from extract.launch.failure_policy import FailureLimit
from tests.extract.kitchen import FAILURES, contents, make_config, make_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return make_dataset(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_actors_of_a_cluster_make_what_one_process_makes(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    config = make_config(folder, "frames", "visual_prompts", shard_size=2)
    summary = extract(dataset, tmp_path / "cache", config, device="cpu", ray="local", workers=1)
    assert sum(summary.streams["frames"].failed.values()) == len(FAILURES)
    extract(dataset, tmp_path / "alone", config)
    assert contents(tmp_path / "cache") == contents(tmp_path / "alone")
    with pytest.raises(TooManyFailures, match="1 of 11 clips failed"):
        extract(dataset, tmp_path / "other", config, device="cpu", ray="local", workers=1, max_failures=FailureLimit(0))


def test_without_the_package_the_extra_is_named(
    folder: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'pip install "deconfound\[ray\]"'):
        extract(dataset, tmp_path / "cache", make_config(folder, "frames"), ray="auto")
    assert not (tmp_path / "cache").exists()


def test_a_device_that_ray_does_not_hand_out_is_refused(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    with pytest.raises(ConfigError, match="give cpu, or cuda"):
        extract(dataset, tmp_path / "cache", make_config(folder, "frames"), device="mps", ray="auto")
