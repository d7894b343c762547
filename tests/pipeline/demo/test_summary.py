"""The summary of runs whose predictions are made up, so that every outcome is known."""

from pathlib import Path

import numpy as np
import pytest

from cache.manifest import Dataset
from cache.predictions import Predictions
from cache.run import Run, RunInfo
from evaluate.uncertainty import wilson
from pipeline.demo import world
from pipeline.demo.scripts import ACTIONS, ACTIVITIES, WorldConfig, draw_recording
from pipeline.demo.summary import Summary, summarise
from pipeline.demo.variants import SHORT_LIST, VARIANTS
from pipeline.demo.world import PROTOCOL

WORLD = WorldConfig(num_train=160, num_validation=1, num_test=64)
SKILLS = {"baseline": 0.5, "control": 0.5, "CMDCL": 0.9, "PCMCI": 0.5, "PeVL": 0.0}
"""Share of videos whose activity each variant gets right."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "_write_videos", lambda *_: None)  # the manifest is enough
        return world.make_world(tmp_path_factory.mktemp("world"), WORLD)


@pytest.fixture(scope="module")
def summary(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        _run(folder, dataset, name, task)
        for task in ("atomic", "activity")
        for name in SHORT_LIST
        if task in VARIANTS[name].tasks
    ]
    return summarise(runs, WORLD, dataset, (), quick=False)


def _run(folder: Path, dataset: Dataset, name: str, task: str) -> Run:
    notices = ("the same for all", *(("heads alone",) if name != "PeVL" else ()))
    info = RunInfo(
        name=f"{name}-{task}",
        method=VARIANTS[name].method,
        variant=name,
        task=task,
        dataset=dataset.name,
        protocol=PROTOCOL,
        seed=0,
        recipe="",
        dataset_folder="",
        cache_folder="",
        notices=notices,
        status="finished",
    )
    run = Run.create(folder / info.name, info, {})
    for split in ("test_iid", "test_counterfactual"):
        _predictions(dataset, name, task, split).write(run.predictions_path(split))
    return run


def _predictions(dataset: Dataset, name: str, task: str, split: str) -> Predictions:
    clips = dataset.select(PROTOCOL, split)
    targets = dataset.targets(dataset.task(task), clips)
    right = np.arange(len(clips)) < round(SKILLS[name] * len(clips))
    if task == "activity":
        logits = np.eye(len(ACTIVITIES))[np.where(right, targets, (targets + 1) % len(ACTIVITIES))]
    else:
        logits = np.random.default_rng(0).standard_normal(targets.shape) + 3 * targets * right[:, None]
    return Predictions(
        clip_ids=tuple(clip.id for clip in clips),
        logits=logits.astype(np.float32),
        targets=targets,
        task=task,
        kind="single" if task == "activity" else "multi",
        class_names=ACTIVITIES if task == "activity" else ACTIONS,
        dataset=dataset.name,
        protocol=PROTOCOL,
        split=split,
        run_name=name,
    )


def test_the_background_stands_beside_the_methods_and_is_no_run(summary: Summary) -> None:
    body = summary.to_json()
    assert {run["method"] for run in body["runs"]} == {row["method"] for row in body["methods"]} == set(SHORT_LIST)
    told = body["background"]
    assert "kitchen and nothing else" in told["description"]
    assert list(told["splits"]) == ["test_iid", "test_counterfactual"]
    iid, counterfactual = (told["splits"][split]["acc1"] for split in told["splits"])
    assert iid["method"] == "Wilson"
    drawn = [draw_recording(WORLD, "test_iid", number) for number in range(64)]
    own = sum(ACTIVITIES[one.background] == one.activity for one in drawn)  # the k-th kitchen is that of the k-th
    assert iid["estimate"] == own / 64
    assert counterfactual["low"] < 0.125 < counterfactual["high"]


def test_shares_of_videos_have_wilsons_interval(summary: Summary) -> None:
    (scores,) = (row for row in summary.methods if (row.method, row.split) == ("PeVL", "test_iid"))
    assert scores.metrics["acc1"] == wilson(0, 64)
    (scores,) = (
        row for row in summary.methods if (row.method, row.task, row.split) == ("CMDCL", "activity", "test_iid")
    )
    assert scores.metrics["acc1"] == wilson(58, 64)
    assert scores.metrics["order_accuracy"].method == "bootstrap, Student's t"


def test_each_method_is_compared_with_what_its_variant_names_and_with_the_background(summary: Summary) -> None:
    pairs = {
        (item.method, item.reference, item.task) for item in summary.comparisons if item.split == "test_counterfactual"
    }
    for name in SHORT_LIST:
        variant = VARIANTS[name]
        for task in ("activity", "atomic"):
            references = {reference for one, reference, what in pairs if (one, what) == (name, task)}
            expected = set(variant.references) if task in variant.tasks else set()
            assert references == expected | ({"background alone"} if task == "activity" else set())


def test_sentences_say_what_the_intervals_say_and_no_more_of_another_backbone(summary: Summary) -> None:
    found = summary.findings
    start = "minus baseline, activity, counterfactual, Acc@1: "
    (better,) = (text for text in found if text.startswith(f"CMDCL {start}"))
    (same,) = (text for text in found if text.startswith(f"PCMCI {start}"))
    (other,) = (text for text in found if text.startswith(f"PeVL {start}"))
    assert better.endswith("CMDCL is better on these 64 videos.")
    assert same.endswith("no difference that these 64 videos can show.")
    assert other.endswith(
        "PeVL is worse on these 64 videos. Their backbones differ, so this compares two models and is no effect of an "
        "intervention."
    )


def test_main_findings_are_findings_grouped_by_method(summary: Summary) -> None:
    main = summary.main_findings
    assert list(main) == ["CMDCL", "PCMCI", "PeVL", "Against the background alone"]
    told = [text for sentences in main.values() for text in sentences]
    assert len(set(told)) == len(told)
    assert set(told) < set(summary.findings)
    for name in ("CMDCL", "PCMCI", "PeVL"):
        assert all(text.startswith((f"{name} minus", f"{name}, counterfactual")) for text in main[name])
        assert not any("background" in text for text in main[name])
    assert all(" minus background alone, activity, i.i.d., " in text for text in main["Against the background alone"])
    assert len(main["Against the background alone"]) == 3


def test_a_notice_names_the_methods_it_is_about_unless_it_is_about_all(summary: Summary) -> None:
    assert summary.notices == ("the same for all", "baseline, control, CMDCL, PCMCI: heads alone")
