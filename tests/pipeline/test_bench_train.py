"""The command around `bench train`: what the options mean, one real run of tiny models, what is printed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cache.errors import ConfigError
from cache.progress import Progress
from extract.bench import videos as bench_videos
from pipeline.commands.bench import bench
from pipeline.commands.bench.train import report_to_text
from pipeline.config import Recipe
from pipeline.training_bench import bench as training_bench
from pipeline.training_bench.bench import NUM_LEGS, BenchSizes
from pipeline.training_bench.report import TrainingReport
from tests.pipeline.training_bench.test_report import MEMORY, one_round
from tests.pipeline.training_bench.tiny import causal_settings, tiny_videos
from train.bench.memory import PeakMemory

FACTS = {"recipe": "r", "cores": 2, "cached": {"streams": ["frames", "text"]}, "cache_seconds_per_clip": 3.0}


@dataclass
class Asked:
    """Stands in for the measurement: what was asked for."""

    recipe: Recipe | None = None
    sizes: BenchSizes = field(default_factory=BenchSizes)
    options: dict[str, Any] = field(default_factory=dict)
    num_videos: int = 0

    def bench_train(
        self, recipe: Recipe, videos: Sequence[Path], _folder: Path, sizes: BenchSizes, **options: object
    ) -> TrainingReport:
        self.recipe, self.num_videos, self.sizes, self.options = recipe, len(videos), sizes, options
        return TrainingReport(rounds=(one_round(),), memory=MEMORY, facts=FACTS)

    @property
    def train(self) -> Any:  # noqa: ANN401 (the configuration)
        assert self.recipe is not None
        return self.recipe.train


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()
    monkeypatch.setattr(bench_videos, "make_videos", lambda folder, count: [folder / str(n) for n in range(count)])
    monkeypatch.setattr(training_bench, "bench_train", found.bench_train)
    return found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(bench, ["train", *arguments], catch_exceptions=False)


def test_without_options_it_is_the_recipe_with_16_frames(asked: Asked) -> None:
    assert run("cmdcl-breakfast-activity").exit_code == 0
    assert (asked.train.num_frames, asked.train.batch_size, asked.train.accumulate) == (16, 16, 8)
    assert (asked.sizes, asked.num_videos) == (BenchSizes(num_classes=10), 8)
    run("demo-cmdcl-activity")  # its encoder knows 8
    assert (asked.train.num_frames, asked.sizes.num_classes) == (8, 8)
    run("cmdcl-coin-step", "--set", "train.num_frames=64")
    assert (asked.train.num_frames, asked.sizes.num_classes) == (64, 778)


def test_options_reach_the_measurement_and_a_forward_pass_keeps_its_clips(asked: Asked) -> None:
    run("cmdcl-breakfast-activity", "--batch-size", "4", "--frames", "32", "--classes", "5", "--num-videos", "3")
    assert (asked.train.batch_size, asked.train.accumulate, asked.train.num_frames) == (4, 2, 32)
    assert (asked.sizes.num_classes, asked.num_videos) == (5, 3)
    run("cmdcl-breakfast-activity", "--batch-size", "1", "--steps", "7", "--decoding-steps", "2", "--repeats", "9")
    assert (asked.train.accumulate, asked.sizes) == (1, BenchSizes(steps=7, decoding_steps=2, repeats=9))
    run("cmdcl-breakfast-activity", "--batch-size", "6", "--set", "train.accumulate=6", "--device", "cuda")
    assert (asked.train.accumulate, asked.options["device"]) == (6, "cuda")


def test_people_fill_the_frame_where_a_recipe_reads_joints(asked: Asked) -> None:
    assert run("pevl-diving48-b16").exit_code == 0
    assert asked.recipe is not None
    assert asked.recipe.extract.pose.boxes == "whole_frame"


def test_a_recipe_of_an_unknown_data_set_must_say_how_many_classes_it_has(asked: Asked, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "cmdcl-breakfast-activity"\n')
    with pytest.raises(ConfigError, match="give --classes"):
        run(str(path))
    run(str(path), "--classes", "7")
    assert asked.sizes.num_classes == 7


def test_the_text_tells_every_ratio_what_it_means_and_where_a_step_spends_its_time() -> None:
    text = report_to_text(TrainingReport(rounds=(one_round(frozen=True),) * 2, memory=MEMORY, facts=FACTS))
    for words in (
        "data 0.5 20.00%",
        "decoding with tokens 2.5 0.4",
        "ratio_to_decoding 3.2 3.2 3.2",
        "bound: (bare model + frozen models + decoding on one thread / 2 cores), each alone, / bare model",
        "ratio_to_decoding_with_tokens: the same where",
        "the cache itself took 3 s a clip, once",
        "3 GB resident in this process; 1 GB before the first step",
        "recipe r, cores 2, cached streams frames+text",
        "decoding alone had 50% of a core",
    ):
        assert words in " ".join(text.split())
    plain = report_to_text(TrainingReport(rounds=(one_round(is_gpu=True),), memory=MEMORY, facts=FACTS))
    assert "ratio_to_decoding_with_tokens: " not in plain
    assert "the slower of bare model + frozen models, and decoding" in plain


def test_memory_that_nobody_counts_is_not_printed_as_a_number() -> None:
    uncounted = PeakMemory(peak=None, before=None, what="not counted on mps")
    text = report_to_text(TrainingReport(rounds=(one_round(),), memory=uncounted, facts=FACTS))
    assert "peak memory: not counted on mps" in text


def test_all_of_it_runs_and_leaves_the_videos_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_videos, "make_videos", tiny_videos)
    legs: list[int] = []
    monkeypatch.setattr(Progress, "advance", lambda *_: legs.append(1))
    settings = [part for text in causal_settings(tmp_path, frozen=True) for part in ("--set", text)]
    sizes = ["--steps", "2", "--decoding-steps", "1", "--repeats", "2", "--num-videos", "3", "--device", "cpu"]
    result = run("cmdcl-breakfast-activity", "--folder", str(tmp_path / "kept"), *sizes, *settings, "--json")
    body = json.loads(result.stdout)
    assert len(legs) == 2 * NUM_LEGS
    for key in ("ratio_to_bare_model", "ratio_to_decoding", "ratio_to_decoding_with_tokens", "bound", "ratio_to_bound"):
        assert body[key] > 0
        assert len([entry[key] for entry in body["rounds"]]) == 2
    assert 0 <= body["data_share"] < 1
    assert body["peak_memory_bytes"] > 0
    assert (body["tokens"], body["num_classes"], body["num_videos"], body["batch_size"]) == ("frozen", 10, 3, 3)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["videos"]
