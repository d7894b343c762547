import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cache.errors import DeconfoundError, FailureCode
from extract.config import DecodingConfig, FramesConfig
from extract.decoding import buffers
from extract.decoding.buffers import Buffer
from extract.decoding.decode_process import ClipSpan, Prepare, PrepareSettings, VideoJob
from extract.decoding.workers import DecodePool
from extract.video.sampling import Sampling
from tests.extract.decoding import prepares


def settings(timeout: float = 60.0, recycle_after: int = 500) -> PrepareSettings:
    decoding = DecodingConfig(timeout_seconds=timeout, recycle_after=recycle_after)
    return PrepareSettings(sampling=Sampling(num_frames=2), decoding=decoding, frames=FramesConfig(), encoder=None)


def job(number: int, name: str = "plain.mp4", num_clips: int = 1) -> VideoJob:
    spans = tuple(ClipSpan(clip_id=f"clip-{number + offset}") for offset in range(num_clips))
    return VideoJob(path=Path(name), spans=spans, streams=frozenset({"joints"}))


def outcomes(
    jobs: list[VideoJob], given: PrepareSettings, workers: int = 1, prepare: Prepare = prepares.stuck_by_name
) -> dict[str, str]:
    """Clip id -> "ok" or its failure code; checks the pixels on the way."""
    found: dict[str, str] = {}
    with DecodePool(jobs, given, workers=workers, prepare=prepare) as pool:
        for delivery in pool:
            clip = delivery.clip
            assert clip.clip_id not in found
            found[clip.clip_id] = clip.failure.code if clip.failure else "ok"
            if clip.failure is None:
                number = int(clip.clip_id.split("-")[-1])
                assert clip.pixels["images"].shape == (2, 8 + number, 4, 3)
                assert (clip.pixels["images"] == number).all()
            delivery.release()
    return found


@pytest.mark.parametrize("workers", [1, 3])
def test_every_clip_comes_once_with_its_own_pixels(workers: int) -> None:
    jobs = [job(10 * number, num_clips=5) for number in range(4)]
    expected = {span.clip_id: "ok" for one in jobs for span in one.spans}
    assert outcomes(jobs, settings(), workers) == expected


@pytest.mark.parametrize("how", ["sleep", "hold"])
def test_a_stuck_decoder_is_killed_and_the_rest_goes_on(how: str) -> None:
    started = time.monotonic()
    jobs = [job(0), job(1, f"{how}.mp4"), job(2), job(3)]
    found = outcomes(jobs, settings(timeout=1.0))
    assert found == {"clip-0": "ok", "clip-1": FailureCode.TIMEOUT, "clip-2": "ok", "clip-3": "ok"}
    assert time.monotonic() - started < 30


def test_a_long_video_that_gives_signs_of_life_is_no_stuck_decoder() -> None:
    assert outcomes([job(0, "long.mp4"), job(1)], settings(timeout=1.0)) == {"clip-0": "ok", "clip-1": "ok"}


def test_clips_finished_before_the_decoder_died_are_kept() -> None:
    found = outcomes([job(0, "second-clip-die.mp4", num_clips=3), job(5)], settings())
    died = FailureCode.DECODER_DIED
    assert found == {"clip-0": "ok", "clip-1": died, "clip-2": died, "clip-5": "ok"}


def test_too_little_memory_is_a_failure_of_that_video() -> None:
    found = outcomes([job(0, "memory.mp4"), job(1)], settings())
    assert found == {"clip-0": FailureCode.OUT_OF_MEMORY, "clip-1": "ok"}


def test_a_process_is_replaced_after_its_share_of_videos() -> None:
    jobs = [job(number) for number in range(5)]
    assert set(outcomes(jobs, settings(recycle_after=2)).values()) == {"ok"}


def test_a_slow_consumer_is_not_a_stuck_decoder() -> None:
    with DecodePool([job(n) for n in range(6)], settings(timeout=0.5), workers=1, prepare=prepares.quick) as pool:
        for delivery in pool:
            assert delivery.clip.failure is None
            time.sleep(0.7)
            delivery.release()


def test_pixels_stay_until_they_are_released() -> None:
    with DecodePool([job(n) for n in range(8)], settings(), workers=2, prepare=prepares.quick) as pool:
        held = []
        for delivery in pool:
            held.append(delivery)
            if len(held) == 2:
                oldest = held.pop(0)
                number = int(oldest.clip.clip_id.split("-")[-1])
                assert (oldest.clip.pixels["images"] == number).all()
                oldest.release()


def test_no_buffer_file_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "SHARED_MEMORY", tmp_path)
    outcomes([job(0, num_clips=3), job(7, "sleep.mp4"), job(9)], settings(timeout=1.0))
    assert list(tmp_path.iterdir()) == []


def test_a_full_shared_memory_means_the_temporary_folder_and_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        monkeypatch.undo()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    buffer = Buffer.create(8192)
    assert "--shm-size" in caplog.text
    buffer.arrays({"images": (8192,)})["images"][:] = 1
    buffer.close()


def test_arrays_in_a_buffer_do_not_overlap() -> None:
    buffer = Buffer.create(buffers.bytes_needed({"a": (3, 5), "b": (7,)}))
    views = buffer.arrays({"a": (3, 5), "b": (7,)})
    views["a"][...], views["b"][...] = 1, 2
    assert views["a"].sum() == 15
    np.testing.assert_array_equal(views["b"], np.full(7, 2))
    del views
    buffer.close()


def test_a_script_without_a_main_guard_gets_an_explanation(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.extract.decoding.test_workers import *\n"
        "from tests.extract.decoding.prepares import quick\n"
        "with DecodePool([job(0)], settings(), workers=1, prepare=quick) as pool:\n"
        "    list(pool)\n"
    )
    root = Path(__file__).parents[3]
    result = subprocess.run(
        [sys.executable, script], cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert result.returncode != 0
    assert "__name__ == '__main__'" in result.stderr
    assert DeconfoundError.__name__ in result.stderr
