"""A run on the toys, as a process of its own or as one of several, that may be killed at one of its writes.

torchrun --nproc-per-node 2 -m tests.train.whole_run FOLDER NAME KILL_AT
"""

import os
import signal
import sys
from pathlib import Path

from cache import atomic
from tests.train.runs import run_training, tiny_config
from train import trainer

CONFIG = tiny_config(validation_split="test", checkpoint_minutes=1e-9)
"""Dropout, DropPath and augmentation are on; a checkpoint after every step."""


def kill_at_write(number: int) -> None:
    """SIGKILL for this process when it has written so many files but not renamed the last."""
    plain, left = atomic._write_temporary, [number]

    def mortal(path: Path, data: bytes) -> Path:
        temporary = plain(path, data)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return temporary

    atomic._write_temporary = mortal  # type: ignore[assignment]


if __name__ == "__main__":
    trainer.SECONDS_BETWEEN_SAVES = 0.0
    if int(sys.argv[3]):
        kill_at_write(int(sys.argv[3]))
    run_training(Path(sys.argv[1]), CONFIG, name=sys.argv[2])
