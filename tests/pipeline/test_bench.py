"""The commands around the benches: which videos, which settings, what is printed."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from extract.bench import stage as extract_bench
from extract.bench import videos as bench_videos
from extract.bench.parts import DECODING
from extract.bench.stage import BenchReport, Round
from extract.config import ExtractConfig
from pipeline.commands.bench import bench
from tests.extract.bench.test_stage import PARTS, cost, one_round


class Asked:
    """Stands in for the measurement: what was asked for, and a report made by hand."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.videos: list[Path] = []
        self.config = ExtractConfig()
        self.options: dict[str, object] = {}
        self.is_gpu, self.parts = False, PARTS

    def make_videos(self, folder: Path, count: int) -> list[Path]:
        self.made.append(count)
        return [folder / f"{number}.mp4" for number in range(count)]

    def bench_extract(self, videos: list[Path], config: ExtractConfig, _folder: Path, **options: object) -> BenchReport:
        self.videos, self.config, self.options = videos, config, options
        facts = {"device": "cpu", "cores": 2, "streams": ["frames"], "image_encoder": {"model": "m", "shared": False}}
        return BenchReport(rounds=(self.one_round(2.5), self.one_round(0.01)), facts=facts)

    def one_round(self, seconds: float) -> Round:
        return one_round(is_gpu=self.is_gpu, seconds=seconds, parts=self.parts)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()
    monkeypatch.setattr(bench_videos, "make_videos", found.make_videos)
    monkeypatch.setattr(extract_bench, "bench_extract", found.bench_extract)
    return found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(bench, ["extract", *arguments], catch_exceptions=False)


def test_without_videos_it_makes_its_own_for_every_worker(asked: Asked) -> None:
    assert run("--workers", "3").exit_code == 0
    assert (asked.made, len(asked.videos), asked.options["workers"]) == ([24], 24, 3)
    assert run("--num-videos", "5", "--device", "cuda", "--repeats", "7").exit_code == 0
    assert (asked.made[1:], asked.options["device"], asked.options["repeats"]) == ([5], "cuda", 7)
    assert asked.options["workers"] == extract_bench.available_cores()


def test_folders_give_their_videos_and_a_number_takes_the_first_of_them(tmp_path: Path, asked: Asked) -> None:
    for name in ("b.mp4", "deep/a.MKV", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    loose = tmp_path / "notes.txt"  # named by hand: taken as it is
    assert run(str(tmp_path), str(loose)).exit_code == 0
    assert asked.videos == [tmp_path / "b.mp4", tmp_path / "deep" / "a.MKV", loose]
    assert run(str(tmp_path), str(loose), "--num-videos", "3").exit_code == 0
    assert (len(asked.videos), asked.made) == (3, [])
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no videos in" in run(str(empty)).output


def test_the_settings_reach_the_stage(asked: Asked) -> None:
    run("--num-frames", "8", "--model", "ViT-B-16", "--pretrained", "openai", "--streams", "frames, joints")
    config = asked.config
    assert (config.num_frames, config.streams, config.pose.weights) == (8, ("frames", "joints"), "none")
    assert (config.image_encoder.model, config.image_encoder.pretrained) == ("ViT-B-16", "openai")
    assert "choose one or more of" in run("--streams", "music").output


def test_json_has_the_ratios_and_text_says_what_they_mean(asked: Asked) -> None:
    body = json.loads(run("--json").stdout)
    for key in ("ratio_to_bound", "ratio_to_bare_model", "ratio_two_workers", "startup_seconds", "core_share"):
        assert isinstance(body[key], float)
    text = run().stdout
    assert "ratio_to_bound               100.400  0.800 200.000" in text  # above 1 as it is
    assert "core-seconds of all parts / (2 cores x seconds of the stage)" in text
    assert "start-up: 10 s of every run" in text
    assert "image_encoder m False" in text
    assert "note:" not in text
    asked.parts = PARTS | {DECODING: cost(0.4, 0.8)}
    assert "decoding alone had 50% of a core" in run().stdout
    asked.is_gpu = True
    assert "the slower of the device and of the 2 cores" in run().stdout


def test_bench_evaluate_prints_the_ratios_and_how_far_the_values_are_apart() -> None:
    sizes = ["evaluate", "--clips", "40", "--classes", "3", "--repeats", "2", "--resamples", "10", "--seed", "5"]
    result = CliRunner().invoke(bench, [*sizes, "--json"], catch_exceptions=False)
    body = json.loads(result.stdout)
    assert (body["clips"], body["classes"], body["repeats"], body["resamples"], body["seed"]) == (40, 3, 2, 10, 5)
    for part in (body, body["bootstrap"]):
        assert part["ratio_to_scikit_learn"] == sum(part["ratios"]) / 2
        assert part["ratio_to_scikit_learn_call"] == sum(part["call_ratios"]) / 2
    assert 0 <= body["max_abs_difference"] < 1e-12
    text = CliRunner().invoke(bench, sizes, catch_exceptions=False).stdout
    for words in (
        "40 clips x 3 classes (seed 5)",
        "all classes, once, ratio_to_scikit_learn ",
        "one resample of 10, ratio_to_scikit_learn_call ",
        "largest difference: ",
    ):
        assert words in text
    told = CliRunner().invoke(bench, ["evaluate", "--help"], catch_exceptions=False).stdout
    assert "a loop over the classes" in told
    assert "average=None" in told
    assert CliRunner().invoke(bench, ["evaluate", "--clips", "1"]).exit_code == 2
