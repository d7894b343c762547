"""A dry run that cannot hang, and whose numbers are those of the extraction."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from cache.manifest import Clip, Dataset
from extract import estimate
from extract.config import DecodingConfig, DetectorName, ExtractConfig, PoseConfig
from extract.decoding.decode_process import Prepared, PrepareSettings, VideoJob
from extract.estimate import DETECTOR_SECONDS, HRNET_COSTS, plan, probe_video
from extract.video.decode import instants_of_span
from extract.video.probe import probe
from tests.extract.videos import make_video

ROOT = Path(__file__).parents[2]
JOINT_BYTES = 17 * 12 + 26


def dataset_of(folder: Path, *clips: Clip) -> Dataset:
    return Dataset(name="some", version="1", tasks=(), protocols={}, clips=clips, video_root=folder)


def config_of(timeout: float = 60.0, **changes: Any) -> ExtractConfig:  # noqa: ANN401 (values of many fields)
    return ExtractConfig(
        streams=("joints",),
        pose=PoseConfig(boxes="whole_frame"),
        decoding=DecodingConfig(timeout_seconds=timeout),
        **changes,
    )


def stuck_by_name(job: VideoJob, settings: PrepareSettings, alive: Callable[[], None]) -> Iterator[Prepared]:
    """Does what the file's name says, and then what is done in earnest."""
    if "stuck" in job.path.name:
        time.sleep(600)
    if "dies" in job.path.name:
        os._exit(9)
    yield from probe_video(job, settings, alive)


def test_a_stuck_or_crashing_video_is_listed_and_the_others_are_probed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("a-stuck.mp4", "b.mp4", "c-dies.mp4", "d.mp4")
    for name in names:
        make_video(tmp_path / name, num_frames=30)
    monkeypatch.setattr(estimate, "probe_video", stuck_by_name)
    dataset = dataset_of(tmp_path, *(Clip(id=name, video=name) for name in names))
    found = plan(dataset, tmp_path / "cache", config_of(timeout=2.0))
    first, second = found.unreadable_videos
    assert first.startswith(f"{tmp_path / 'a-stuck.mp4'}: timeout: ")
    assert second.startswith(f"{tmp_path / 'c-dies.mp4'}: decoder_died: ")
    assert found.hours > 0
    assert "2 videos probed" in " ".join(found.assumptions)


def test_what_is_no_video_is_listed_with_its_code(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos/good.mp4", num_frames=10)
    (tmp_path / "videos/pipe.mp4").symlink_to(tmp_path / "pipe.mp4")
    (tmp_path / "videos/empty.mp4").symlink_to(tmp_path / "empty.mp4")
    names = ("good.mp4", "pipe.mp4", "empty.mp4", "gone.mp4")
    dataset = dataset_of(tmp_path / "videos", *(Clip(id=name, video=name) for name in names))
    inside = plan(dataset, tmp_path / "cache", config_of())
    assert [line.split(": ")[1] for line in inside.unreadable_videos] == ["outside_root", "outside_root"]
    allowed = plan(dataset, tmp_path / "cache", config_of(), allow_outside=True)
    assert [line.split(": ")[1] for line in allowed.unreadable_videos] == ["empty", "not_a_file"]
    assert [path.name for path in allowed.missing_videos] == ["gone.mp4"]
    assert (allowed.num_videos, inside.num_videos) == (4, 4)


def test_the_plan_loads_no_torch(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", num_frames=10)
    code = (
        "import sys, pathlib\n"
        "from cache.manifest import Clip\n"
        "from extract.config import ExtractConfig\n"
        "from extract.estimate import plan\n"
        "from tests.extract.test_estimate import dataset_of\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "found = plan(dataset_of(folder, Clip(id='a', video='a.mp4')), folder / 'cache', ExtractConfig())\n"
        "assert found.hours > 0 and not (folder / 'cache').exists()\n"
        "assert 'torch' not in sys.modules and 'open_clip' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "changes",
    [{"num_frames": 7}, {"sampling": "fps", "fps": 4.0}, {"sampling": "every_nth", "every_nth": 5}],
    ids=["uniform", "fps", "every_nth"],
)
def test_the_size_is_that_of_the_rows_that_extraction_will_give(tmp_path: Path, changes: dict[str, Any]) -> None:
    make_video(tmp_path / "short.mp4", num_frames=30)
    make_video(tmp_path / "long.mkv", num_frames=200, rate=25)
    clips = (
        Clip(id="short", video="short.mp4"),
        Clip(id="long", video="long.mkv"),
        Clip(id="part", video="long.mkv", start_seconds=2.0, end_seconds=3.0),
        Clip(id="tail", video="long.mkv", start_seconds=6.0),
        Clip(id="late", video="long.mkv", start_seconds=4.0, end_seconds=99.0),
    )
    config, dataset = config_of(**changes), dataset_of(tmp_path, *clips)
    expected = sum(
        len(instants_of_span(probe(dataset.video_path(clip)), clip.start_seconds, clip.end_seconds, config.instants))
        for clip in clips
    )
    found = plan(dataset, tmp_path / "cache", config)
    assert found.gigabytes_left * 1e9 / JOINT_BYTES == pytest.approx(expected, abs=1e-6)
    assert any("every_nth" in line for line in found.assumptions) == ("every_nth" in changes)


def test_videos_that_were_not_probed_are_like_those_that_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "NUM_PROBED", 1)
    for number, num_frames in enumerate((60, 120, 240)):
        make_video(tmp_path / f"{number}.mp4", num_frames=num_frames)
    clips = [Clip(id=f"{number}", video=f"{number}.mp4") for number in range(3)]
    found = plan(dataset_of(tmp_path, *clips), tmp_path / "cache", config_of(sampling="fps", fps=5.0))
    assert found.gigabytes_left * 1e9 / JOINT_BYTES == pytest.approx(3 * 10)  # all as long as the first: two seconds


def hours_of(folder: Path, **pose: Any) -> float:  # noqa: ANN401 (values of many fields)
    """Of joints of one short clip, whose decoding takes no time beside them."""
    if not (folder / "a.mp4").exists():
        make_video(folder / "a.mp4", num_frames=30)
    config = replace(config_of(num_frames=10), pose=PoseConfig(**{"boxes": "whole_frame", **pose}))
    return plan(dataset_of(folder, Clip(id="a", video="a.mp4")), folder / "cache", config).hours


def test_the_time_is_that_of_the_detector_and_of_the_network_that_were_chosen(tmp_path: Path) -> None:
    plain = hours_of(tmp_path)
    assert plain == pytest.approx(10 * 0.5 / 5 / 3600)
    assert hours_of(tmp_path, flip_test=True) == pytest.approx(2 * plain)
    assert hours_of(tmp_path, input_height=384, input_width=288) == pytest.approx(2.25 * plain)
    assert hours_of(tmp_path, model="hrnet_w48") == pytest.approx(2.1 * plain)
    found = [hours_of(tmp_path, boxes="detector", detect_every=every) - plain for every in (1, 5)]
    assert found == pytest.approx([10 * 2.9 / 3600, 2 * 2.9 / 3600])
    assert set(DETECTOR_SECONDS) == set(get_args(DetectorName))
    assert set(HRNET_COSTS) == set(get_args(get_type_hints(PoseConfig)["model"]))


def test_the_assumptions_name_the_detector_where_there_is_one(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", num_frames=30)
    dataset = dataset_of(tmp_path, Clip(id="a", video="a.mp4"))
    detecting = replace(config_of(), pose=PoseConfig(boxes="detector", detect_every=3, flip_test=True))
    said = "\n".join(plan(dataset, tmp_path / "cache", detecting).assumptions)
    assert "fasterrcnn_resnet50_fpn takes 2.9 s" in said
    assert "one of 3 kept frames" in said
    assert "with the flip test takes 2 times" in said
    assert "the detector" not in "\n".join(plan(dataset, tmp_path / "cache", config_of()).assumptions)
