"""A disk that is full, failing or over a limit, at every operation of a run in turn: told, and continued later.

The command line runs on a faulty disk (faulty_disk.py); here every cache that it left is judged, and filled up without
the fault.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import h5py
import pytest

from cache import array_file, atomic
from cache.errors import StorageError
from cache.manifest import Clip, Dataset
from extract.config import ExtractConfig
from extract.decoding import buffers
from extract.decoding.buffers import Buffer
from extract.extractor import extract
from tests.extract.faults.faulty_disk import NEVER_CAME
from tests.extract.kitchen import contents
from tests.extract.videos import make_video

ROOT = Path(__file__).parents[3]
CONFIG = ExtractConfig(streams=("frames",), num_frames=2, shard_size=2)
TRY_AGAIN, NUM_SHARDS = 75, 2
Files = frozenset[tuple[str, bytes]]
FAULTS = {
    "write ENOSPC always": 8,
    "half ENOSPC always": 8,
    "write EDQUOT always": 8,
    "open ENOSPC always": 8,
    "mkdir EDQUOT always": 2,
    "write EIO once": 8,
    "fsync EIO once": 8,
    "fsync folder EIO once": 8,
    "replace EIO once": 6,
    "link ENOSPC once": 2,
    "unlink EIO once": 2,
    "read EIO once": 10,
}
"""Operation, error, once or from then on; and how often it comes in a run at least."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos, in two shards."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "videos").mkdir()
    for seed, name in enumerate("abc"):
        make_video(folder / "videos" / f"{name}.mp4", num_frames=6, size=(48, 64), seed=seed)
    clips = tuple(Clip(id=name, video=f"{name}.mp4") for name in "abc")
    dataset = Dataset(name="faults", version="1", tasks=(), protocols={}, clips=clips, video_root=folder / "videos")
    dataset.write(folder / "dataset")
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return Dataset.read(folder / "dataset")


@pytest.fixture(scope="module")
def whole(folder: Path, dataset: Dataset) -> Path:
    extract(dataset, folder / "whole", CONFIG)
    return folder / "whole"


@pytest.fixture(scope="module")
def judged() -> set[Files]:
    return set()


def run_on_faulty_disk(folder: Path, target: Path, *words: str) -> dict[str, tuple[int, str]]:
    """Exit code and stderr by number of the run, whose cache is TARGET/NUMBER/cache."""
    arguments = [sys.executable, "-m", "tests.extract.faults.faulty_disk", str(target), str(folder / "dataset"), *words]
    subprocess.run(arguments, cwd=ROOT, env={**os.environ, "TQDM_DISABLE": "1"}, check=True)
    return {name: (code, said) for name, (code, said) in json.loads((target / "outcomes.json").read_text()).items()}


def assert_told(cache: Path, code: int, said: str, reason: str) -> None:
    """An exit code that means `try again`, and a message with path and reason: no traceback, no signal."""
    assert "Traceback" not in said
    assert code in (0, TRY_AGAIN), said
    if code == TRY_AGAIN:
        (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert str(cache) in error
        assert reason in error
    else:  # all that was lost is what only saves time: it comes last
        assert len(list(cache.glob("frames/shard-*.json"))) == NUM_SHARDS


def assert_continues(cache: Path, dataset: Dataset, expected: Mapping[str, str | None]) -> None:
    """What was committed verifies and stays; the rest comes without the fault."""
    before = {}
    if (cache / "plan.json").exists():
        contents(cache)
        before = {path: path.read_bytes() for path in cache.rglob("shard-*.json")}
    extract(dataset, cache, CONFIG)
    assert contents(cache) == expected
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not list(cache.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_operation_is_told_and_the_same_command_continues(
    folder: Path, dataset: Dataset, whole: Path, tmp_path: Path, judged: set[Files], fault: str
) -> None:
    *kind, code, how = fault.split()
    outcomes = run_on_faulty_disk(folder, tmp_path / "runs", " ".join(kind), code, how)
    *faulty, (last, said) = outcomes.values()
    assert last == NEVER_CAME, said
    reason = os.strerror(getattr(errno, code))
    for name, (ended, told) in list(outcomes.items())[:-1]:
        assert_told(tmp_path / "runs" / name / "cache", ended, told, reason)
        assert kind == ["unlink"] or not list((tmp_path / "runs" / name).rglob("*.tmp"))
    assert [ended for ended, _ in faulty].count(TRY_AGAIN) >= FAULTS[fault]
    assert_all_continue(tmp_path / "runs", list(outcomes)[:-1], dataset, contents(whole), judged)


def assert_all_continue(
    runs: Path, names: list[str], dataset: Dataset, expected: Mapping[str, str | None], judged: set[Files]
) -> None:
    """Caches that are equal, byte by byte, are judged once."""
    for name in names:
        cache = runs / name / "cache"
        files = frozenset((path.name.split("~")[0], path.read_bytes()) for path in cache.rglob("*") if path.is_file())
        if files not in judged:
            judged.add(files)
            assert_continues(cache, dataset, expected)


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_told_and_kills_nobody(
    folder: Path, dataset: Dataset, whole: Path, tmp_path: Path, judged: set[Files]
) -> None:
    sizes = {path.stat().st_size for path in whole.rglob("*") if path.is_file()}
    limits = [0, *sorted(size - 1 for size in sizes if size)]
    outcomes = run_on_faulty_disk(folder, tmp_path / "runs", "size", *map(str, limits))
    assert len(outcomes) == len(limits) >= 7
    for name, (code, said) in outcomes.items():
        assert_told(tmp_path / "runs" / name / "cache", code, said, "File too large")
    assert_all_continue(tmp_path / "runs", list(outcomes), dataset, contents(whole), judged)


OWN_MOUNTS = ["unshare", "--user", "--map-root-user", "--mount"]


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="this user may not mount a file system in a namespace of its own")
@pytest.mark.parametrize("kilobytes", [0, 8, 24, 96])
def test_a_really_full_disk_is_told_and_the_same_command_continues(
    folder: Path, dataset: Dataset, whole: Path, tmp_path: Path, kilobytes: int
) -> None:
    cache, kept = tmp_path / "disk" / "cache", tmp_path / "kept"
    cache.parent.mkdir()
    script = (
        f"mount -t tmpfs -o size=1M none {cache.parent} && mkdir {cache} && "
        f"head -c {1024 - kilobytes}K /dev/zero > {cache.parent}/filling && "
        f"{sys.executable} -m pipeline extract {folder / 'dataset'} --cache {cache} --streams frames "
        f"--set extract.num_frames=2 --set extract.shard_size=2; code=$?; cp -a {cache} {kept}; exit $code"
    )
    ended = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert_told(cache, ended.returncode, ended.stderr, "No space left on device")
    assert_continues(kept, dataset, contents(whole))


def test_no_room_for_frames_in_memory_nor_in_the_temporary_folder_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(buffers, "SHARED_MEMORY", tmp_path / "shared")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os.posix_fallocate", refuse)
    (tmp_path / "shared").mkdir()
    with pytest.raises(StorageError, match=rf"{tmp_path}: No space left .*TMPDIR"):
        Buffer.create(8192)
    assert [path.name for path in tmp_path.rglob("*")] == ["shared"]


def test_a_disk_that_fails_is_not_taken_for_a_damaged_file(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (path, *_) = (whole / "frames").glob("*.h5")
    monkeypatch.setattr(h5py, "File", fail)
    with pytest.raises(StorageError, match=rf"cannot read {path}: Input/output error.*look after the disk"):
        array_file.read(path)


def test_temporaries_of_other_machines_are_swept_after_a_day(tmp_path: Path) -> None:
    young, old = (tmp_path / f".shard.h5~another.1~{number}-1~.tmp" for number in (7, 8))
    for path in (young, old):
        path.touch()
    os.utime(old, (time.time() - 100_000,) * 2)
    assert atomic.sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [young]
