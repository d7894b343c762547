import logging
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from cache.errors import ConfigError
from cache.log_level import NOTE
from train import residency
from train.config import Residency
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
    assert "on disk, memory-mapped, decoded in" in lines[1]
    assert len(lines) == 2
