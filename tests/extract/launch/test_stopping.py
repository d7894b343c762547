import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cache.errors import Stopped
from cache.manifest import Dataset
from cache.store import FeatureStore
from extract.extractor import extract
from extract.launch.stopping import StopSignals
from tests.extract.kitchen import contents, make_config, make_dataset

ROOT = Path(__file__).parents[3]
SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopping")
    make_dataset(folder).write(folder / "dataset")
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return Dataset.read(folder / "dataset", videos=folder / "videos")


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_commits_what_is_ready_and_the_same_command_continues(
    folder: Path, dataset: Dataset, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    config = make_config(folder, "frames", shard_size=50)
    handler = signal.getsignal(number)

    def interrupt(done: int, _failed: int, _total: int) -> None:
        if done == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped, match=number.name) as caught:
        extract(dataset, tmp_path / "cache", config, progress=interrupt)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) == handler
    reader = FeatureStore.open(tmp_path / "cache").frames
    committed = len(reader.clip_ids) + len(reader.failures)
    assert 5 <= committed < len(dataset.clips)
    summary = extract(dataset, tmp_path / "cache", config)
    assert summary.num_clips_decoded == len(dataset.clips) - committed
    extract(dataset, tmp_path / "whole", config)
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


def test_visual_prompts_that_wait_for_a_full_batch_are_committed_too(
    folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    config = make_config(folder, "frames", "visual_prompts", shard_size=50, batch_size=64)

    def interrupt(done: int, _failed: int, _total: int) -> None:
        if done == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        extract(dataset, tmp_path / "cache", config, progress=interrupt)
    store = FeatureStore.open(tmp_path / "cache")
    assert len(store.frames) > 0
    assert set(store.frames.clip_ids) == set(store.visual_prompts.clip_ids)


def test_a_signal_to_the_whole_group_is_no_failure_of_a_video(folder: Path, tmp_path: Path) -> None:
    """As `scancel` and Ctrl-C do it: the decode processes get it too, and must not care."""
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "pipeline", "extract", str(folder / "dataset"), "--cache", str(cache)]
    command += ["--streams", "frames", "--set", "extract.num_frames=6", "--set", "extract.shard_size=2"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(cache.glob("frames/shard-*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "stopped by SIGTERM" in errors
    assert "decoder_died" not in {failure.code for failure in FeatureStore.open(cache).frames.failures.values()}
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 3
    codes = {failure.code for failure in FeatureStore.open(cache).frames.failures.values()}
    assert codes == {"missing", "not_a_video", "too_short"}


def test_a_second_signal_exits_at_once() -> None:
    code = (
        "import os, signal, time\n"
        "from extract.launch.stopping import StopSignals\n"
        "with StopSignals() as signals:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('first', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout) == (130, "first\n")


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter() -> None:
        with StopSignals() as signals:
            signals.check()
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [handler]
