"""Which shards one process works on: `17-32`, `2/8`, `auto`. No process asks another.

A hundred tasks may start at once. Two that choose the same shard lose time, not data: both write the same content and
the last one wins.
"""

import os
import re
from collections.abc import Collection, Mapping

from cache.errors import ConfigError

_ENVIRONMENTS = (  # index, its first value and its step, how many
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT"),
    ("RANK", None, None, "WORLD_SIZE"),  # before Slurm's: one task may start several ranks
    ("SLURM_PROCID", None, None, "SLURM_STEP_NUM_TASKS"),  # of a step: a batch script itself is number 0 of 1
)


def choose_shards(
    numbers: Collection[int], choice: str | None, environment: Mapping[str, str] = os.environ
) -> list[int]:
    """The shard numbers that `choice` names, ascending.

    Args:
        numbers: all shards of the plan.
        choice: None for all; `17` or `17-32`, inclusive; `2/8`, every eighth one from 2 on, counted from 0; `auto`,
            what `inferred_choice` says.
        environment: where `auto` looks.

    Raises:
        ConfigError: another form, or a choice that cannot name any shard.
    """
    if choice is None:
        return sorted(numbers)
    if choice == "auto":
        choice, _ = inferred_choice(environment)
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


def inferred_choice(environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """What `auto` means here: `2/8`, and the variables of Slurm or torchrun that say so.

    Raises:
        ConfigError: there are none, or they belong to an irregular array.
    """
    for names in _ENVIRONMENTS:
        index_name, first_name, step_name, count_name = names
        if index_name in environment and count_name in environment:
            first = int(environment.get(first_name, "0")) if first_name else 0
            step = int(environment.get(step_name, "1")) if step_name else 1
            index, rest = divmod(int(environment[index_name]) - first, step)
            because = ", ".join(f"{name}={environment[name]}" for name in names if name and name in environment)
            if rest or index >= int(environment[count_name]):
                raise ConfigError(
                    f"--shards auto: {because} is not a regular array, its tasks cannot be counted; give --shards 2/8"
                )
            return f"{index}/{environment[count_name]}", because
    known = ", ".join(names[0] for names in _ENVIRONMENTS)
    raise ConfigError(f"--shards auto: none of {known} is set; give 2/8 (counted from 0) or 17-32")
