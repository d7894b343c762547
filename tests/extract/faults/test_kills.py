"""kill -9 of a whole extraction at random times, now and then of its parent alone; then the same command continues.

Where the crash points (test_crash_points.py) show every state of the disk, this shows the real thing: the command
line, two decode processes, shared memory. DECONFOUND_KILLS says how many times the whole group is killed (30).
"""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from cache.manifest import Clip, Dataset
from cache.store import FeatureStore
from extract.decoding import buffers
from extract.decoding.buffers import Buffer
from extract.decoding.workers import DecodePool
from extract.extractor import extract
from tests.extract.decoding.prepares import stuck_by_name
from tests.extract.decoding.test_workers import job, settings
from tests.extract.kitchen import TASK, contents, make_config
from tests.extract.videos import make_video

ROOT = Path(__file__).parents[3]
NUM_KILLS = int(os.environ.get("DECONFOUND_KILLS", "30"))
NUM_CLIPS = 48
SOME_FAILED = 3
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many short videos, one of them broken."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "videos").mkdir()
    for number in range(NUM_CLIPS):
        make_video(folder / "videos" / f"{number}.mp4", num_frames=12, size=(96, 128), seed=number)
    (folder / "videos" / "3.mp4").write_bytes(b"broken")
    clips = tuple(Clip(id=f"{number:02d}", video=f"{number}.mp4") for number in range(NUM_CLIPS))
    dataset = Dataset(name="kills", version="1", tasks=(TASK,), protocols={}, clips=clips, video_root=folder / "videos")
    dataset.write(folder / "dataset")
    make_config(folder)
    return folder


class Extraction:
    """`deconfound extract` with two decode processes, in a process group of its own."""

    def __init__(self, folder: Path, cache: Path, streams: str) -> None:
        model = folder / "tiny-clip.json"
        options = [f"image_encoder.model={model}", "image_encoder.pretrained=none", "image_encoder.batch_size=8"]
        options += ["num_frames=4", "shard_size=1"]
        arguments = [
            *(sys.executable, "-m", "pipeline", "extract", str(folder / "dataset"), "--cache", str(cache)),
            *("--streams", streams, "--workers", "2", "--device", "cpu"),
            *(word for option in options for word in ("--set", f"extract.{option}")),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        self.log = cache.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                arguments, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def finish(self) -> int:
        """Its exit code, and the certainty that nothing of it is left."""
        code = self.process.wait(120)
        assert_all_end(self.process.pid)
        return code

    def kill_after(self, seconds: float, *, alone: bool) -> bool:
        """True if it was still at work."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.kill(alone=alone)

    def kill(self, *, alone: bool = False) -> bool:
        """Kills the whole group, or the parent `alone`; True if it was still at work."""
        if self.process.poll() is None:
            (os.kill if alone else os.killpg)(self.process.pid, signal.SIGKILL)
        assert self.process.wait(60) in (-signal.SIGKILL, SOME_FAILED), self.log.read_text()
        assert_all_end(self.process.pid)
        return self.process.returncode == -signal.SIGKILL


def seconds_of(run: Extraction) -> float:
    started = time.monotonic()
    assert run.finish() == SOME_FAILED
    return time.monotonic() - started


def living(session: int) -> list[str]:
    """Names of the processes of a session that are not merely waiting to be buried."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().rpartition(")")
            state, _, _, its_session = rest.split()[:4]
            if int(its_session) == session and state not in "ZX":
                found.append(f"{name}) {state}")
    return found


def assert_all_end(session: int) -> None:
    """Nobody stays behind: neither the killed ones nor decode processes whose parent is gone."""
    deadline = time.monotonic() + 20
    while (left := living(session)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []


def shared_files(process: int) -> list[Path]:
    folders = (buffers.SHARED_MEMORY, Path(tempfile.gettempdir()))
    return [path for folder in folders for path in folder.glob(f"deconfound-buffer-{process}-*")]


def age(paths: list[Path]) -> None:
    """As if they had lain there for an hour."""
    for path in paths:
        os.utime(path, (time.time() - 3600,) * 2)


def committed(cache: Path) -> dict[Path, bytes]:
    """The shards that are there, each of them checked."""
    if not (cache / "plan.json").exists():
        return {}
    contents(cache)
    store = FeatureStore.open(cache)
    for name in set(store.streams) - {"text"}:
        reader = store.stream(name)
        assert all(len(reader[clip_id]) == 4 for clip_id in reader.clip_ids)
    return {path: path.read_bytes() for path in cache.rglob("shard-*.json")}


@dataclass
class Killer:
    """Kills runs at random times and remembers what they left."""

    folder: Path
    streams: str
    longest_seconds: float
    num_shards_left: set[int] = field(default_factory=set)
    num_runs: int = 0
    num_kills: int = 0
    """Of whole groups."""
    numbers: random.Random = field(default_factory=lambda: random.Random(0))

    def fill(self, cache: Path) -> None:
        """Kills up to three runs on one cache, then lets it finish."""
        before: dict[Path, bytes] = {}
        for _ in range(3):
            run = Extraction(self.folder, cache, self.streams)
            alone = self.num_runs % 5 == 4
            was_killed = run.kill_after(self._seconds(), alone=alone)
            after = committed(cache)
            assert before.items() <= after.items()  # what was committed is there, byte by byte
            before = after
            self.num_runs += 1
            if not was_killed:
                break
            self.num_kills += not alone
            self.num_shards_left.add(len(after))
        assert Extraction(self.folder, cache, self.streams).finish() == SOME_FAILED
        assert before.items() <= committed(cache).items()
        assert not list(cache.rglob("*.tmp"))

    def _seconds(self) -> float:
        """Even over the time of a whole run: by the golden ratio, so that every cache sees early and late kills."""
        return self.longest_seconds * ((self.num_runs * 0.618 + self.numbers.random() / NUM_KILLS) % 1)


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_content(folder: Path, tmp_path: Path) -> None:
    seconds = min(seconds_of(Extraction(folder, tmp_path / name, "frames")) for name in ("first", "second"))
    expected = contents(tmp_path / "first")
    killer = Killer(folder, "frames", seconds)
    for number in itertools.count():
        killer.fill(tmp_path / str(number))
        assert contents(tmp_path / str(number)) == expected
        if killer.num_kills >= NUM_KILLS:
            break
        assert number < 2 * NUM_KILLS, "runs end before they are killed"
    assert len(killer.num_shards_left) > 3  # they struck at all stages


def test_a_run_with_models_and_shared_memory_that_is_killed_at_work_ends_with_the_same_content(
    folder: Path, tmp_path: Path
) -> None:
    streams, num_kills, cache = "frames,visual_prompts,text", max(2, NUM_KILLS // 15), tmp_path / "killed"
    config = replace(make_config(folder, shard_size=NUM_CLIPS), num_frames=4)
    extract(Dataset.read(folder / "dataset"), tmp_path / "whole", config)
    parents = []
    for number in range(num_kills):
        run = Extraction(folder, cache, streams)
        enough = 2 * NUM_CLIPS * (number + 1) // (num_kills + 1)
        while run.process.poll() is None and len(list(cache.glob("*/shard-*.json"))) < enough:
            time.sleep(0.002)
        assert run.kill()
        assert len(committed(cache)) >= enough
        age(shared_files(run.process.pid))
        parents.append(run.process.pid)
    assert Extraction(folder, cache, streams).finish() == SOME_FAILED
    assert contents(cache) == contents(tmp_path / "whole")
    buffers.sweep.cache_clear()
    Buffer.create(4096).close()  # as the next run would
    assert [path for parent in parents for path in shared_files(parent)] == []


SCRIPT = """
import os, signal, sys
from pathlib import Path
from extract.decoding import buffers
buffers.SHARED_MEMORY = Path(sys.argv[1])
buffer = buffers.Buffer.create(8192)
if sys.argv[2] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
buffer.close()
"""


def make_buffer_elsewhere(folder: Path, what: str) -> int:
    return subprocess.run([sys.executable, "-c", SCRIPT, str(folder), what], cwd=ROOT).returncode


def test_a_buffer_whose_maker_was_killed_is_removed_by_a_later_run(tmp_path: Path) -> None:
    assert make_buffer_elsewhere(tmp_path, "die") == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert make_buffer_elsewhere(tmp_path, "live") == 0
    assert left.exists()  # it is young: its maker might be about to lock it
    age([left])
    assert make_buffer_elsewhere(tmp_path, "live") == 0
    assert list(tmp_path.iterdir()) == []


def test_buffers_in_use_and_files_of_other_names_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers, "SHARED_MEMORY", tmp_path)
    buffer = Buffer.create(8192)
    other = tmp_path / "deconfound-buffer-report.html"
    other.touch()
    age([buffer.path, other])
    assert make_buffer_elsewhere(tmp_path, "live") == 0
    assert sorted(tmp_path.iterdir()) == sorted([buffer.path, other])
    buffer.close()


def hold() -> None:
    """A pool whose decode process is stuck in native code with the GIL in its hands."""
    with DecodePool([job(0), job(1, "hold.mp4")], settings(), workers=1, prepare=stuck_by_name) as pool:
        for _ in pool:
            sys.stdout.write("the next one holds\n")
            sys.stdout.flush()


def test_a_stuck_decode_process_does_not_outlive_its_parent() -> None:
    code = "from tests.extract.faults.test_kills import hold\nif __name__ == '__main__':\n    hold()\n"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        time.sleep(0.5)
        parent.kill()
    assert_all_end(parent.pid)
