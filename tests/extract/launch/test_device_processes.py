"""Several processes share one cache: the same content as one, whatever happens to one of them."""

import os
import signal
from pathlib import Path

import pytest

from cache import fingerprint
from cache.errors import ConfigError, DeconfoundError, Stopped, TooManyFailures, WeightsError
from cache.manifest import Dataset
from cache.plan import Plan
from cache.store import FeatureStore
from extract.config import ExtractConfig, ImageEncoderConfig
from extract.extractor import extract
from extract.launch.device_processes import MAX_RESTARTS, DeviceProcesses
from extract.launch.failure_policy import FailureLimit, FailureWatch
from extract.launch.launcher import device_names
from extract.shards.loop import WorkSettings
from extract.shards.work import shard_tasks
from extract.streams import Resolver
from tests.extract.kitchen import FAILURES, contents, make_config, make_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launch")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return make_dataset(folder)


@pytest.fixture(scope="module")
def expected(folder: Path, dataset: Dataset) -> dict[str, str | None]:
    extract(dataset, folder / "alone", make_config(folder, "frames", "visual_prompts"))
    return contents(folder / "alone")


@pytest.mark.slow
def test_two_devices_make_what_one_makes(
    folder: Path, dataset: Dataset, expected: dict[str, str | None], tmp_path: Path
) -> None:
    told: list[tuple[int, int, int]] = []
    summary = extract(
        dataset,
        tmp_path / "cache",
        make_config(folder, "frames", "visual_prompts", shard_size=2),
        device="cpu,cpu",
        workers=1,
        progress=lambda *counts: told.append(counts),
    )
    assert summary.streams["frames"].failed == dict.fromkeys(sorted(FAILURES.values()), 1)
    assert contents(tmp_path / "cache") == expected
    assert told[-1] == (len(dataset.clips), len(FAILURES), len(dataset.clips))


@pytest.mark.slow
def test_a_model_that_does_not_load_is_told_before_anything_is_written(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"no weights")
    encoder = ImageEncoderConfig(model="ViT-B-32", pretrained=str(tmp_path / "weights.pt"))
    config = ExtractConfig(streams=("visual_prompts",), image_encoder=encoder)
    with pytest.raises((WeightsError, ConfigError)):
        extract(dataset, tmp_path / "cache", config, device="cpu,cpu")
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_limit_of_failures_holds_over_all_processes(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    config = make_config(folder, "frames", shard_size=1)
    with pytest.raises(TooManyFailures, match="2 of 11 clips failed"):
        extract(dataset, tmp_path / "cache", config, device="cpu,cpu", workers=1, max_failures=FailureLimit(1))


@pytest.mark.slow
def test_a_signal_stops_all_processes_and_keeps_what_is_ready(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    config = make_config(folder, "frames", shard_size=50)

    def interrupt(done: int, _failed: int, _total: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        extract(dataset, tmp_path / "cache", config, device="cpu,cpu", workers=1, progress=interrupt)
    reader = FeatureStore.open(tmp_path / "cache").frames
    assert len(reader.clip_ids) + len(reader.failures) >= 3
    assert extract(dataset, tmp_path / "cache", config).num_clips_decoded < len(dataset.clips)


class Killer(FailureWatch):
    """Kills a process of the launcher after so many clips, so many times."""

    def __init__(self, processes: DeviceProcesses, times: int) -> None:
        super().__init__(11)
        self.processes, self.times = processes, times

    def done(self, clip_id: str) -> None:
        super().done(clip_id)
        busy = [member for member in self.processes._members if member.share and member.process.is_alive()]
        if self.times and busy:
            self.times -= 1
            busy[0].process.kill()
            busy[0].process.join()


def fill_with_kills(folder: Path, dataset: Dataset, cache: Path, times: int) -> None:
    config = make_config(folder, "frames", shard_size=2)
    plan = Plan.ensure(cache, [clip.id for clip in dataset.clips], config.shard_size)
    marks = Resolver(config, cache).marks()
    fingerprint.ensure(cache / "frames", marks["frames"])
    tasks = shard_tasks(dataset, cache, plan, sorted(plan.shards), config, marks)
    streams = frozenset({"frames"})
    settings = WorkSettings(dataset=dataset, cache=cache, config=config, streams=streams, workers=1)
    with DeviceProcesses(settings, ["cpu", "cpu"]) as processes:
        processes.start(lambda: None)
        processes.fill(marks, tasks, Killer(processes, times), lambda: None)


@pytest.mark.slow
def test_a_process_that_dies_is_replaced_and_its_shards_are_made_again(
    folder: Path, dataset: Dataset, expected: dict[str, str | None], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    fill_with_kills(folder, dataset, cache, times=1)
    summary = extract(dataset, cache, make_config(folder, "frames", shard_size=2))
    assert summary.already_done
    assert contents(cache)["frames"] == expected["frames"]


@pytest.mark.slow
def test_processes_that_die_again_and_again_end_the_run(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DeconfoundError, match="exit code -9"):
        fill_with_kills(folder, dataset, tmp_path / "cache", times=MAX_RESTARTS + 1)


def test_devices_are_named_with_commas() -> None:
    assert device_names("cpu") == ["cpu"]
    assert device_names("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]
    with pytest.raises(ConfigError, match="--device"):
        device_names(" ,")
