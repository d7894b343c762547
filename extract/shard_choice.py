"""Which shards one process works on: `17-32`, `2/8`, `auto`. No process asks another.

A hundred tasks may start at once. Two that choose the same shard lose time, not data: both write the same content and
the last one wins.
"""

import os
import re
from collections.abc import Collection, Mapping

from cache.errors import ConfigError

_ENVIRONMENTS = (  # index, its first value, how many
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT"),
    ("SLURM_PROCID", None, "SLURM_NTASKS"),
    ("RANK", None, "WORLD_SIZE"),
)


def choose_shards(
    numbers: Collection[int], choice: str | None, environment: Mapping[str, str] = os.environ
) -> list[int]:
    """The shard numbers that `choice` names, ascending.

    Args:
        numbers: all shards of the plan.
        choice: None for all; `17` or `17-32`, inclusive; `2/8`, every eighth one from 2 on, counted from 0; `auto`,
            the same with numbers from Slurm or torchrun.
        environment: where `auto` looks.

    Raises:
        ConfigError: another form, or a choice that cannot name any shard.
    """
    if choice is None:
        return sorted(numbers)
    if choice == "auto":
        choice = _from_environment(environment)
    if part := re.fullmatch(r"(\d+)/(\d+)", choice):
        index, count = int(part[1]), int(part[2])
        if index >= count:
            raise ConfigError(f"--shards {choice}: i/n counts i from 0, so i must be below {count}")
        return sorted(number for number in numbers if number % count == index)
    if span := re.fullmatch(r"(\d+)(?:-(\d+))?", choice):
        first, last = int(span[1]), int(span[2] or span[1])
        chosen = sorted(number for number in numbers if first <= number <= last)
        if chosen:
            return chosen
        raise ConfigError(f"--shards {choice}: the plan has shards 0 to {max(numbers, default=-1)}")
    raise ConfigError(f"--shards {choice!r}: give 17, 17-32 (inclusive), 2/8 (counted from 0) or auto")


def _from_environment(environment: Mapping[str, str]) -> str:
    for index, first, count in _ENVIRONMENTS:
        if index in environment and count in environment:
            start = int(environment.get(first, "0")) if first else 0
            return f"{int(environment[index]) - start}/{environment[count]}"
    names = ", ".join(index for index, _, _ in _ENVIRONMENTS)
    raise ConfigError(f"--shards auto: none of {names} is set; give 2/8 (counted from 0) or 17-32")
