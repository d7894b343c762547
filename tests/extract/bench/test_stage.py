"""The arithmetic of the bench on hand-made figures, and its parts against the stage on real videos."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from cache.errors import ConfigError, FailureCode, VideoError
from cache.manifest import Clip, Dataset
from cache.store import FeatureStore
from extract.bench import parts as bench_parts
from extract.bench import stage as bench
from extract.bench.parts import Cost, MeasuredClip, Parts, mean, passes_per_clip, whole_passes
from extract.bench.stage import BenchReport, Round, bench_extract, steady
from extract.bench.videos import NUM_DISTINCT, VideoShape, frames_of, make_videos
from extract.extractor import extract
from tests.extract.kitchen import make_config
from tests.extract.videos import make_video

SMALL = VideoShape(height=48, width=64, seconds=0.5)


def cost(core_seconds: float, seconds: float) -> Cost:
    return Cost(core_seconds=core_seconds, seconds=seconds)


PARTS = {
    bench_parts.DECODING: cost(0.8, 0.8),
    bench_parts.RESIZING: cost(0.1, 0.1),
    bench_parts.JPEG: cost(0.3, 0.3),
    bench_parts.IMAGE_ENCODER: cost(1.6, 0.8),
    bench_parts.CROPPING: cost(0.1, 0.1),
    bench_parts.POSE_NETWORK: cost(1.0, 0.5),
    bench_parts.JOINTS: cost(0.1, 0.1),
}


def one_round(*, is_gpu: bool = False, seconds: float = 2.5, parts: dict[str, Cost] = PARTS, cores: int = 2) -> Round:
    """A stage of `seconds` per clip that starts in 10 s, over 20 clips."""
    return Round(
        parts=parts,
        stage=steady(4, cost(8.0, 10 + 4 * seconds), 20, cost(40.0, 10 + 20 * seconds)),
        one_worker=steady(2, cost(0, 3 + 2 * 0.9), 20, cost(0, 3 + 20 * 0.9)),
        two_workers=steady(2, cost(0, 3 + 2 * 0.5), 20, cost(0, 3 + 20 * 0.5)),
        cores=cores,
        is_gpu=is_gpu,
    )


def test_a_longer_run_less_a_shorter_one_leaves_the_cost_of_a_clip_and_of_the_start() -> None:
    found = steady(2, cost(core_seconds=7, seconds=9), 10, cost(core_seconds=23, seconds=17))
    assert (found.per_clip.core_seconds, found.per_clip.seconds) == (2, 1)
    assert (found.startup.core_seconds, found.startup.seconds) == (3, 7)
    assert found.whole_per_clip.seconds == pytest.approx(1.7)


def test_on_a_cpu_the_bound_is_all_core_seconds_over_all_cores() -> None:
    entry = one_round()
    assert entry.bound_seconds == pytest.approx(4.0 / 2)
    ratios = entry.ratios
    assert ratios["ratio_to_bound"] == pytest.approx(2.0 / 2.5)
    assert ratios["ratio_to_bound_with_startup"] == pytest.approx(2.0 / (2.5 + 10 / 20))
    assert ratios["ratio_to_bare_model"] == pytest.approx((0.8 + 0.5) / 2.5)
    assert ratios["ratio_two_workers"] == pytest.approx(0.9 / 0.5)


def test_on_a_gpu_the_bound_is_the_slower_of_the_device_and_the_cores() -> None:
    on_device, on_cores = 0.8 + 0.1 + 0.5, 0.8 + 0.1 + 0.3 + 0.1
    assert one_round(is_gpu=True, cores=2).bound_seconds == pytest.approx(on_device)
    assert one_round(is_gpu=True, cores=1).bound_seconds == pytest.approx(max(on_device, on_cores))
    slow = PARTS | {bench_parts.DECODING: cost(3.0, 3.0)}
    assert one_round(is_gpu=True, cores=2, parts=slow).bound_seconds == pytest.approx((on_cores + 2.2) / 2)


def test_a_ratio_above_one_stays_and_without_a_model_there_is_none_to_it() -> None:
    ratios = one_round(seconds=0.01, parts={bench_parts.DECODING: cost(0.8, 0.8)}).ratios
    assert ratios["ratio_to_bound"] == pytest.approx(40)
    assert ratios["ratio_to_bare_model"] is None


def test_the_report_holds_medians_of_the_ratios_and_not_ratios_of_medians() -> None:
    rounds = tuple(
        one_round(seconds=seconds, parts={bench_parts.DECODING: cost(core_seconds, 1.0)})
        for seconds, core_seconds in ((1.0, 1.0), (4.0, 6.0), (2.0, 9.0))
    )
    report = BenchReport(rounds=rounds, facts={"device": "cpu"})
    assert report.ratios["ratio_to_bound"] == pytest.approx(0.75)  # of 0.5, 0.75 and 2.25; medians would give 1.5
    body = json.loads(json.dumps(report.to_json()))
    assert body["rounds"][2]["ratio_to_bound"] == pytest.approx(2.25)
    assert body["parts"][bench_parts.DECODING] == {"core_seconds": 6.0, "seconds": 1.0}
    assert body["startup_seconds"] == pytest.approx(10)
    assert body["clips_per_second"] == pytest.approx(0.5)
    assert body["device"] == "cpu"


def test_a_clip_pays_its_share_of_a_shared_batch_and_the_padding_of_its_own() -> None:
    assert passes_per_clip(16, 64, shared=True) == 0.25
    assert passes_per_clip(16, 64, shared=False) == 1
    assert passes_per_clip(16, 16, shared=False) == 1
    assert passes_per_clip(17, 16, shared=False) == 2


@pytest.mark.parametrize(("count", "size", "expected"), [(3, 8, 8), (8, 8, 8), (9, 4, 12), (1, 5, 5), (0, 4, 0)])
def test_inputs_are_repeated_until_the_passes_they_are_in_are_full(count: int, size: int, expected: int) -> None:
    inputs = torch.arange(count * 2.0).view(count, 2)
    filled = whole_passes(inputs, size)
    assert filled.shape == (expected, 2)
    assert torch.equal(filled[:count], inputs)


def test_a_part_is_what_both_clocks_gained_while_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = cost(0.0, 0.0)

    def work(core_seconds: float, seconds: float) -> None:
        nonlocal clock
        clock += cost(core_seconds, seconds)

    monkeypatch.setattr(bench_parts, "now", lambda: clock)
    measured = MeasuredClip(torch.device("cpu"))
    measured.run("a", lambda: work(4.0, 2.0))
    work(100.0, 100.0)  # between parts
    measured.run("b", lambda: work(1.0, 1.5))
    assert measured.costs == {"a": cost(4.0, 2.0), "b": cost(1.0, 1.5)}
    assert mean([measured.costs, {"a": cost(0, 0), "b": cost(2, 2)}])["a"] == cost(2.0, 1.0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_videos(tmp_path_factory.mktemp("videos"), 4, SMALL)


def test_the_parts_alone_give_what_the_stage_commits(tmp_path: Path, videos: list[Path]) -> None:
    config = make_config(tmp_path, "frames", "visual_prompts", "joints", batch_size=6)
    config = replace(config, pose=replace(config.pose, model="hrnet_w8_tiny"))
    clip = Clip(id="a", video=videos[0].name)
    dataset = Dataset(name="d", version="1", tasks=(), protocols={}, clips=(clip,), video_root=videos[0].parent)
    extract(dataset, tmp_path / "cache", config)
    store = FeatureStore.open(tmp_path / "cache")
    found = Parts(config, "cpu").measure(dataset, clip).results
    assert found[bench_parts.JPEG] == [bytes(blob) for blob in store.frames["a"]]
    prompts, joints = found[bench_parts.IMAGE_ENCODER], found[bench_parts.JOINTS]
    assert isinstance(prompts, torch.Tensor)
    assert isinstance(joints, tuple)
    np.testing.assert_array_equal(prompts.numpy().astype(np.float16), store.visual_prompts["a"])
    np.testing.assert_array_equal(joints[0], store.joints["a"].xy)


def test_people_who_share_a_pass_pay_their_share_of_a_full_one(
    tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, "joints")
    pose = replace(config.pose, model="hrnet_w8_tiny", batch_size=8)
    config = replace(config, pose=pose, sampling="fps", fps=10.0)
    clip = Clip(id="a", video=videos[0].name)
    dataset = Dataset(name="d", version="1", tasks=(), protocols={}, clips=(clip,), video_root=videos[0].parent)
    extract(dataset, tmp_path / "cache", config)
    clock = 0.0

    def tick() -> Cost:
        nonlocal clock
        clock += 1
        return cost(clock, clock)

    parts = Parts(config, "cpu")
    monkeypatch.setattr(bench_parts, "now", tick)
    measured = parts.measure(dataset, clip)
    assert parts.models.joints.shares_batches
    assert {part: spent.seconds for part, spent in measured.costs.items()} == {
        bench_parts.DECODING: 1,
        bench_parts.CROPPING: 1,
        bench_parts.POSE_NETWORK: 5 / 8,  # frames of half a second
        bench_parts.JOINTS: 1,
    }
    joints = measured.results[bench_parts.JOINTS]
    assert isinstance(joints, tuple)
    np.testing.assert_array_equal(joints[0], FeatureStore.open(tmp_path / "cache").joints["a"].xy)


def test_all_of_it_runs_on_real_videos_and_leaves_nothing_behind(
    tmp_path: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    real = bench._Bench._extract

    def timed(self: bench._Bench, clips: tuple[Clip, ...]) -> Cost:
        ran.append(len(clips))
        if len(clips) == 4:
            assert real(self, clips).core_seconds > 0.1
        return cost(4.0 + len(clips), 5.0 + 2 * len(clips))

    monkeypatch.setattr(bench._Bench, "_extract", timed)
    monkeypatch.setattr(bench._Bench, "_decode", lambda _, clips, workers: cost(0, 1 + len(clips) / workers))
    config = make_config(tmp_path, "frames", "visual_prompts")
    steps: list[int] = []
    work = tmp_path / "work"
    report = bench_extract(videos, config, work, workers=1, repeats=1, progress=lambda: steps.append(1))
    assert ran == [2, 4]
    assert len(steps) == bench.NUM_STEPS
    assert (report.stage, report.startup) == (cost(1.0, 2.0), cost(4.0, 5.0))
    body = report.to_json()
    assert body["ratio_two_workers"] == 2
    spent = sum(part.core_seconds for part in report.parts.values())
    assert body["ratio_to_bound"] == pytest.approx(spent / bench.available_cores() / 2.0)
    assert (body["num_videos"], body["image_encoder"]["batch_size"]) == (4, 6)
    assert set(report.parts) == {
        bench_parts.DECODING, bench_parts.JPEG, bench_parts.RESIZING, bench_parts.IMAGE_ENCODER
    }  # fmt: skip
    assert [path.name for path in work.iterdir()] == []


def test_decoding_alone_runs_in_real_processes(tmp_path: Path, videos: list[Path]) -> None:
    measured = bench._Bench(bench._dataset(videos), make_config(tmp_path, "frames"), tmp_path, 1, "cpu", 2)
    spent = measured._decode(measured._dataset.clips, workers=2)
    assert spent.seconds > 0
    assert spent.core_seconds > 0.01  # that of the processes: the parent only waits


def test_what_cannot_be_measured_is_refused(tmp_path: Path, videos: list[Path]) -> None:
    config = make_config(tmp_path, "frames")
    with pytest.raises(ConfigError, match="give more videos than workers"):
        bench_extract(videos, config, tmp_path, workers=4)
    with pytest.raises(ConfigError, match="made of videos"):
        bench_extract(videos, make_config(tmp_path, "text"), tmp_path, workers=1)
    with pytest.raises(ConfigError, match="too few or too short"):
        steady(2, cost(1, 2), 4, cost(1, 2))
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video\n" * 100)
    with pytest.raises(VideoError, match=r"broken.mp4 cannot be measured") as caught:
        bench_extract([broken, *videos], config, tmp_path, workers=1)
    assert caught.value.code == FailureCode.NOT_A_VIDEO


def test_videos_are_made_once_and_are_what_their_names_say(tmp_path: Path) -> None:
    paths = make_videos(tmp_path, 2, SMALL)
    times = [path.stat().st_mtime_ns for path in paths]
    (tmp_path / f"unfinished-1-{paths[0].name}").write_text("of a run that was killed")
    again = make_videos(tmp_path, NUM_DISTINCT + 1, SMALL)
    assert [path.stat().st_mtime_ns for path in again[:2]] == times
    assert len({path.read_bytes() for path in again}) == NUM_DISTINCT
    with av.open(str(paths[0])) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width, stream.codec_context.name) == (48, 64, "h264")
        assert stream.average_rate == 30
        assert stream.codec_context.has_b_frames
        assert len(list(container.decode(stream))) == SMALL.num_frames


def test_the_scene_moves_and_is_neither_flat_nor_noise() -> None:
    shape = VideoShape(seconds=0.4)
    frames = np.stack(list(frames_of(shape, seed=1))).astype(float)
    assert frames.shape == (12, 360, 640, 3)
    assert frames[0].std() > 20
    neighbours = np.abs(np.diff(frames[0], axis=1)).mean()
    assert 1 < neighbours < frames[0].std() / 4  # noise would differ as much from pixel to pixel as anywhere
    assert all(np.abs(after - before).mean() > 1 for before, after in itertools.pairwise(frames))


def test_real_videos_of_any_kind_can_be_given(tmp_path: Path, videos: list[Path]) -> None:
    other = make_video(tmp_path / "other.avi", codec="mpeg4", num_frames=20)
    dataset = bench._dataset([other, *videos])
    assert [dataset.video_path(clip).resolve() for clip in dataset.clips] == [other, *videos]
