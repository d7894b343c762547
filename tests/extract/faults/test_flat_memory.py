"""A thousand videos in one process, every second one failing, take no more memory than two hundred.

Decoders were seen to keep some of every file that they failed on (0.08 MB; 30 MB here). So a file is probed before a
decoder is asked, and a process is replaced after its share of videos all the same.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from extract.decoding.decode_process import ClipSpan, Prepared, PrepareSettings, VideoJob, prepare_video
from extract.decoding.workers import DecodePool
from tests.extract.decoding.test_workers import job, settings
from tests.extract.faults import odd_files
from tests.extract.faults.odd_files import changed, cut, holding, video

ROOT = Path(__file__).parents[3]
NUM_OPENS, WARM_AFTER, STEP = 1000, 200, 100
LARGEST_GROWTH_MB = 4.0
GOOD = {
    "plain.mp4": video(),
    "plain.mkv": video(".mkv"),
    "bframes.avi": video(".avi", codec="mpeg4"),
    "turned.mp4": video(rotation=90),
}
FAILING = {
    "rot.mp4": changed(odd_files.damage_middle, num_frames=120, gop=120),  # opened by both decoders
    "erased.mp4": changed(odd_files.erase_frames),
    "cut.mkv": cut(0.5, suffix=".mkv"),
    "no_index.mp4": cut(0.5),
    "text.mp4": holding("no video\n" * 100),
    "missing.mp4": lambda _: None,
}
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and files are counted in /proc")


def open_many(folder: Path) -> None:
    """Prints the resident memory in MB after every hundred videos."""
    names = [name for pair in zip(list(GOOD) * len(FAILING), list(FAILING) * len(GOOD), strict=True) for name in pair]
    given = settings()
    for number in range(NUM_OPENS):
        name = names[number % len(names)]
        one = VideoJob(path=folder / name, spans=(ClipSpan(clip_id="clip"),), streams=frozenset())
        (clip,) = prepare_video(one, given, lambda: None)
        assert (clip.failure is None) == (name in GOOD), clip.failure
        if number % STEP == STEP - 1:
            sys.stdout.write(f"{resident_megabytes()}\n")


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_opens_half_of_them_failing(tmp_path: Path) -> None:
    for name, make in (GOOD | FAILING).items():
        make(tmp_path / name)
    arguments = [sys.executable, "-m", "tests.extract.faults.test_flat_memory", str(tmp_path)]
    output = subprocess.run(arguments, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    megabytes = [float(line) for line in output.split()]
    assert len(megabytes) == NUM_OPENS // STEP
    assert max(megabytes) - megabytes[WARM_AFTER // STEP - 1] < LARGEST_GROWTH_MB, megabytes


def say_who(one: VideoJob, _settings: PrepareSettings, _alive: Callable[[], None]) -> Iterator[Prepared]:
    """The number of the process, in place of a time, and pixels, so that buffers are replaced too."""
    pixels = {"images": np.zeros((1, 64, 64, 3), np.uint8)}
    for span in one.spans:
        yield Prepared(clip_id=span.clip_id, pts_seconds=np.array([os.getpid()], np.float64), pixels=pixels)


def test_every_process_is_replaced_after_its_share_and_leaves_nothing_open() -> None:
    share, num_jobs, workers = 5, 33, 2
    before, processes = None, Counter[int]()
    jobs = (job(number) for number in range(num_jobs))
    with DecodePool(jobs, settings(recycle_after=share), workers=workers, prepare=say_who) as pool:
        for delivery in pool:
            processes[int(delivery.clip.pts_seconds[0])] += 1
            delivery.release()
            before = before or len(list(Path("/proc/self/fd").iterdir()))
            assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4 * workers
    assert sum(processes.values()) == num_jobs
    assert max(processes.values()) == share
    assert len(processes) >= num_jobs / share
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


if __name__ == "__main__":
    open_many(Path(sys.argv[1]))
