import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from cache.atomic import read_json
from cache.run import Run
from evaluate.page import Page
from pipeline.config import load_recipe
from pipeline.demo import demo
from pipeline.demo.demo import run_demo
from pipeline.demo.frozen_models import FrozenModels
from pipeline.demo.scripts import CAUSAL_ACTIONS, SPLITS, TEST_SPLITS, WorldConfig, draw_recording
from pipeline.demo.tiny_video_encoder import NUM_FRAMES_USED, VIDEO_ENCODER
from pipeline.demo.variants import VARIANTS
from train.explanations.choice import Choice
from train.predict import predict

TRAINED = ("baseline", "CMDCL", "PCMCI", "PeVL")
"""What the end-to-end test trains: a row of every method."""
MODELS = FrozenModels(
    image_encoder=Path("/models/clip"),
    image_encoder_architecture=Path("/models/clip.json"),
    pose=Path("/models/hrnet"),
    video_encoder=Path("/models/timesformer"),
)


@pytest.mark.parametrize("method", ["cmdcl", "pcmci"])
@pytest.mark.parametrize("task", ["activity", "atomic"])
def test_the_recipes_fit_the_frozen_models_and_the_world(task: str, method: str) -> None:
    recipe = load_recipe(f"demo-{method}-{task}")
    encoder = recipe.train.video_encoder
    names = ("image_size", "resize", "patch_size", "width", "depth", "heads", "mlp_ratio", "mean", "std")
    assert [getattr(encoder, name) for name in names] == [getattr(VIDEO_ENCODER, name) for name in names]
    assert recipe.train.num_frames == NUM_FRAMES_USED
    assert recipe.extract.pose.input_height == recipe.extract.pose.input_width == 64
    assert set(recipe.train.predict_splits) <= set(SPLITS)
    assert ("test_recombined" in recipe.train.predict_splits) == (task == "atomic")


@pytest.mark.parametrize("quick", [False, True])
def test_one_job_for_every_variant_task_and_seed_and_the_slow_ones_start_first(tmp_path: Path, quick: bool) -> None:
    jobs = demo._jobs(tmp_path, tmp_path / "dataset", MODELS, quick=quick, seeds=(3, 4), all_variants=True)
    asked = {(job.config.variant, job.config.task, job.config.seed) for job in jobs}
    assert asked == {(name, task, seed) for name in VARIANTS for task in VARIANTS[name].tasks for seed in (3, 4)}
    assert len({job.run for job in jobs}) == len(jobs) == len(asked)
    assert jobs[0].config.variant == "baseline"  # the reference of the standard reports comes first
    first = demo._slow_first(jobs)
    assert [job.config.method for job in first[:2]] == ["pevl", "pevl"]
    assert first[2:] == [job for job in jobs if job.config.method != "pevl"]
    for job in jobs:
        switches = dataclasses.asdict(job.config.cmdcl)
        assert switches.items() >= VARIANTS[job.config.variant].switches.items()
        epochs = load_recipe(job.recipe).train.epochs
        assert job.config.epochs == (VARIANTS[job.config.variant].quick_epochs if quick else epochs)
        assert VARIANTS[job.config.variant].quick_epochs < epochs


def test_every_job_reads_the_frozen_models_of_its_own_folder(tmp_path: Path) -> None:
    for job in demo._jobs(tmp_path, tmp_path / "dataset", MODELS, quick=False, seeds=(0,), all_variants=False):
        if job.config.method == "pevl":
            assert (job.config.pevl.clip, job.config.pevl.pretrained) == ("/models/clip.json", "/models/clip")
        else:
            assert job.config.video_encoder.pretrained == "/models/timesformer"


def test_a_page_links_to_files_beside_it_only() -> None:
    assert 'href="activity/index.html"' in Page("A").links([("activity/index.html", "Report")]).html()
    for path in ("/etc/passwd", "../secret.html", "https://example.org", "javascript:alert(1)"):
        with pytest.raises(ValueError, match="beside the page"):
            Page("A").links([(path, "x")])


@pytest.mark.slow
def test_the_demo_goes_the_whole_way_and_a_second_run_reuses_what_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_QUICK_VIDEOS", {"num_train": 48, "num_validation": 8, "num_test": 32})
    tiny = {name: dataclasses.replace(variant, quick_epochs=2) for name, variant in VARIANTS.items()}
    monkeypatch.setattr(demo, "VARIANTS", tiny)
    monkeypatch.setattr(demo, "SHORT_LIST", TRAINED)
    monkeypatch.setattr(demo, "_PROBED_VIDEOS", {False: 16, True: 16})
    summary = run_demo(tmp_path, quick=True)
    assert read_json(tmp_path / "summary.json") == json.loads(json.dumps(summary)) == summary
    _check_runs(summary["runs"])
    for told in summary["runs"]:
        info = Run.open(tmp_path / "runs" / told["name"]).info
        assert (told["method"], told["task"], told["seed"]) == (info.variant, info.task, info.seed)
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for text in [summary["statement"], *summary["findings"], *summary["bias_findings"]]:
        assert text.replace("'", "&#x27;") in page
    for metrics in summary["background"]["splits"].values():
        share = f"{100 * metrics['acc1']['estimate']:.1f} ["
        assert f'<td class="short">background alone</td><td class="number">{share}' in page
    for link in re.findall(r'href="([^#"]+)"', page):
        assert (tmp_path / "report" / link).is_file()

    _check_that_texts_find_their_frames(tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in _products(tmp_path)}
    again = run_demo(tmp_path, quick=True)
    assert again["runs"] == summary["runs"]
    assert again["findings"] == summary["findings"]
    assert {path: path.stat().st_mtime_ns for path in _products(tmp_path)} == kept
    assert again["timings"]["extract"] + again["timings"]["train"] < summary["timings"]["extract"]


def _check_that_texts_find_their_frames(folder: Path) -> None:
    """The world's truth about TCI: a causal action's scores lie on the frames in which it happens."""
    run = Run.open(folder / "runs" / "quick-cmdcl-atomic-seed0")
    predict(run.path, split="test_counterfactual", explain=Choice(count=8))
    found = run.explanation("test_counterfactual")
    assert found is not None
    assert found.interventions is not None
    assert found.interventions.back_door is not None
    shares, expected = [], []
    for clip_id, frames, scores in zip(found.clip_ids, found.frame_index, found.interventions.back_door, strict=True):
        recording = draw_recording(WorldConfig(), "test_counterfactual", int(clip_id.rpartition("-")[2]))
        for action in set(recording.actions) & set(CAUSAL_ACTIONS):
            shown = np.array([recording.action_at(int(frame)) == action for frame in frames])
            shares.append(scores[found.class_names.index(action)][shown].sum())
            expected.append(shown.mean())
    assert len(shares) == 8 * 4
    assert np.mean(expected) < 0.3
    assert np.mean(shares) > 0.9


def _check_runs(runs: list[dict[str, object]]) -> None:
    assert {(run["method"], run["task"]) for run in runs} == {
        (method, task) for method in TRAINED for task in VARIANTS[method].tasks
    }
    for run in runs:
        assert isinstance(run["splits"], dict)
        expected = TEST_SPLITS if run["task"] == "atomic" else TEST_SPLITS[:2]
        assert tuple(run["splits"]) == expected
        assert all(0 <= value <= 1 for metrics in run["splits"].values() for value in metrics.values())


def _products(folder: Path) -> list[Path]:
    return sorted([*folder.glob("videos/**/*.mp4"), *folder.glob("cache/**/*.h5"), *folder.glob("runs/**/*.h5")])
