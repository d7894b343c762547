"""Stand-ins for decoding that a spawned process can import: stuck, spinning, dying, fast."""

import ctypes
import os
import time
from collections.abc import Callable, Iterator

import numpy as np

from extract.decoding.decode_process import Prepared, PrepareSettings, VideoJob


def quick(job: VideoJob, _settings: PrepareSettings, _alive: Callable[[], None]) -> Iterator[Prepared]:
    """Pixels that name the clip, without a file."""
    for span in job.spans:
        number = int(span.clip_id.split("-")[-1])
        pixels = {"images": np.full((2, 8 + number, 4, 3), number, np.uint8)}
        yield Prepared(clip_id=span.clip_id, pixels=pixels, image_of_instant=np.array([0, 1]))


def stuck_by_name(job: VideoJob, settings: PrepareSettings, alive: Callable[[], None]) -> Iterator[Prepared]:
    """Does what the file's name says."""
    name = job.path.name
    if name.startswith("second-clip"):
        yield next(quick(job, settings, alive))
    if "sleep" in name:
        time.sleep(600)
    if "hold" in name:
        ctypes.PyDLL(None).sleep(600)  # as decord's endless loop: the GIL is never released
    if "die" in name:
        os._exit(7)
    if "memory" in name:
        raise MemoryError("frame 3")
    if "long" in name:
        for _ in range(30):
            time.sleep(0.1)
            alive()
    yield from quick(job, settings, alive)
