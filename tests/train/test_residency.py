import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cache.errors import ConfigError
from cache.log_level import NOTE
from cache.manifest import Dataset
from tests.train.pose_runs import pose_config, write_pose_toys
from tests.train.runs import run_training, tiny_config, write_toys
from train import residency
from train.config import Residency
from train.experiment import Experiment
from train.residency import settle
from train.row_table import RowTable

CPU, GPU = torch.device("cpu"), torch.device("meta")  # a device that is not the CPU and takes any tensor


def table(name: str, nbytes: int) -> RowTable:
    """Ten clips of equal rows, `nbytes` in all."""

    def read(numbers: Sequence[int]) -> Tensor:
        return torch.zeros(len(numbers), nbytes // 10, dtype=torch.uint8)

    return RowTable(name, 10, read)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int | None]:
    """Free bytes by place, to be changed by the test."""
    sizes: dict[str, int | None] = {"ram": 10_000, "gpu": 1_000}
    monkeypatch.setattr(residency, "free_ram", lambda: sizes["ram"])
    monkeypatch.setattr(residency, "free_on", lambda _: sizes["gpu"])
    return sizes


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(
    ("device", "prompts", "tokens", "places"),
    [
        (GPU, 100, 400, (GPU, GPU)),  # half of the GPU's memory and no more
        (GPU, 100, 410, (GPU, CPU)),  # the smaller one is nearer
        (GPU, 410, 100, (CPU, GPU)),
        (GPU, 510, 4490, (CPU, CPU)),
        (GPU, 510, 4500, (CPU, None)),
        (CPU, 100, 4900, (CPU, CPU)),
        (CPU, 100, 4910, (CPU, None)),
        (CPU, 5010, 5010, (None, None)),
    ],
)
def test_auto_takes_the_nearest_place_of_which_half_is_enough(
    device: torch.device, prompts: int, tokens: int, places: tuple[torch.device | None, ...]
) -> None:
    tables = [table("visual_prompts", prompts), table("video_tokens", tokens)]
    settle(tables, "auto", device)
    assert tuple(own.device for own in tables) == places


@pytest.mark.usefixtures("free")
def test_tables_of_one_stream_stay_together_and_one_given_twice_is_counted_once() -> None:
    train, validation = table("video_tokens", 300), table("video_tokens", 300)
    settle([train, validation], "auto", GPU)
    assert (train.device, validation.device) == (CPU, CPU)
    again = table("video_tokens", 300)
    settle([again, again], "auto", GPU)
    assert again.device == GPU


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(("asked", "place"), [("memory_map", None), ("ram", CPU), ("device", GPU)])
def test_who_asks_for_a_place_gets_it_up_to_all_that_is_free(asked: Residency, place: torch.device | None) -> None:
    tables = [table("visual_prompts", 400), table("video_tokens", 600)]
    settle(tables, asked, GPU)
    assert [own.device for own in tables] == [place, place]


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(
    ("asked", "device", "told"),
    [
        (
            "device",
            GPU,
            r'"device": features of 2e-05 GB do not fit into the 1e-06 GB that are free on meta; .* "ram" or',
        ),
        ("ram", GPU, '2e-05 GB do not fit into the 1e-05 GB that are free in RAM; set train.features = "memory_map"'),
        ("device", CPU, 'free in RAM; set train.features = "memory_map"'),
    ],
)
def test_what_does_not_fit_where_it_was_asked_to_live_is_refused(
    asked: Residency, device: torch.device, told: str
) -> None:
    tables = [table("visual_prompts", 10_000), table("video_tokens", 10_000)]
    with pytest.raises(ConfigError, match=told):
        settle(tables, asked, device)
    assert [own.device for own in tables] == [None, None]


def test_where_nobody_knows_what_is_free_nothing_is_moved_unasked(free: dict[str, int | None]) -> None:
    free.update(ram=None, gpu=None)
    unasked, asked = table("video_tokens", 100), table("video_tokens", 100)
    settle([unasked], "auto", GPU)
    settle([asked], "ram", GPU)
    assert (unasked.device, asked.device) == (None, CPU)


@pytest.mark.usefixtures("free")
def test_one_line_says_what_lives_where(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    settle([table("visual_prompts", 100), table("video_tokens", 2_000), table("other", 9_000)], "auto", GPU)
    settle([], "auto", GPU)
    lines = [record.getMessage() for record in caplog.records if record.levelno == NOTE]
    assert lines[0] == (
        "features: visual_prompts (1e-07 GB) on meta, video_tokens (2e-06 GB) in RAM, other (9e-06 GB) on disk, "
        "memory-mapped (train.features = auto)"
    )
    assert "on disk, memory-mapped; every epoch decodes other views of them, in" in lines[1]
    assert len(lines) == 2


@pytest.mark.parametrize("method", ["cmdcl", "pevl"])
def test_a_run_is_the_same_wherever_its_features_live(tmp_path: Path, method: str) -> None:
    if method == "pevl":
        write_pose_toys(tmp_path)
        config = pose_config(tmp_path, adapters=(), p2v="off", v2p=False, fusion="concat", batch_size=3)
    else:
        write_toys(tmp_path)
        config = tiny_config(frozen=True)
    places: tuple[Residency, ...] = ("memory_map", "ram", "device")
    runs = [run_training(tmp_path, replace(config, features=place), name=place) for place in places]
    expected = runs[0].predictions("test").logits
    for run in runs[1:]:
        np.testing.assert_array_equal(run.predictions("test").logits, expected)


def test_only_what_is_read_in_every_epoch_is_moved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_toys(tmp_path)
    caplog.set_level(logging.INFO)
    config = tiny_config(frozen=True, features="ram")
    dataset = Dataset.read(tmp_path / "dataset")
    experiment = Experiment.open(dataset, tmp_path / "cache", config, splits=("train", "test"))
    for for_training, place in ((False, None), (True, CPU)):
        sources = experiment.sources(CPU, progress=False, for_training=for_training)
        lived = {split: {own.device for own in source.tables(training=True)} for split, source in sources.items()}
        assert lived == {"train": {place}, "test": {None}}
    lines = [record.getMessage() for record in caplog.records if record.levelno == NOTE]
    assert lines == [
        "features: visual_prompts (1.02e-06 GB) in RAM, video_tokens (2.05e-06 GB) in RAM (train.features = ram)"
    ]


def test_a_finished_run_may_be_continued_with_its_features_elsewhere(tmp_path: Path) -> None:
    write_toys(tmp_path)
    config = tiny_config(frozen=True, features="ram", epochs=1)
    run_training(tmp_path, config)
    assert run_training(tmp_path, replace(config, features="memory_map")).info.status == "finished"
