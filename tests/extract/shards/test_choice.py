import pytest

from cache.errors import ConfigError
from extract.shards.choice import choose_shards


def test_no_choice_is_every_shard() -> None:
    assert choose_shards({2, 0, 1}, None) == [0, 1, 2]


@pytest.mark.parametrize(
    ("choice", "expected"), [("17", [17]), ("17-19", [17, 18, 19]), ("38-99", [38, 39]), ("2/8", [2, 10, 18, 26, 34])]
)
def test_a_choice_names_shards(choice: str, expected: list[int]) -> None:
    assert choose_shards(range(40), choice) == expected


def test_the_parts_of_a_choice_cover_every_shard_once() -> None:
    parts = [choose_shards(range(37), f"{index}/5") for index in range(5)]
    assert sorted(number for part in parts for number in part) == list(range(37))


@pytest.mark.parametrize("choice", ["8/8", "40-50", "-1", "a", "1/0", "5-3"])
def test_a_choice_that_names_nothing_is_refused(choice: str) -> None:
    with pytest.raises(ConfigError, match="--shards"):
        choose_shards(range(40), choice)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, [2, 6]),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "4"}, [1, 3, 5, 7]),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}, list(range(8))),
        ({"RANK": "1", "WORLD_SIZE": "4", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, [1, 5]),
        (
            {
                "SLURM_ARRAY_TASK_ID": "5",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_STEP": "2",
                "SLURM_ARRAY_TASK_COUNT": "3",
            },
            [2, 5],
        ),
        ({"RANK": "0", "WORLD_SIZE": "8"}, [0]),
    ],
)
def test_auto_reads_slurm_and_torchrun(environment: dict[str, str], expected: list[int]) -> None:
    assert choose_shards(range(8), "auto", environment) == expected


def test_auto_without_a_launcher_is_refused() -> None:
    with pytest.raises(ConfigError, match="none of"):
        choose_shards(range(8), "auto", {})
