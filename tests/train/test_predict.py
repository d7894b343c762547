import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from cache import array_file, atomic
from cache.errors import CacheError, ConfigError, FingerprintMismatch
from cache.manifest import Dataset
from cache.predictions import Predictions
from cache.run import Run
from tests.evaluate import toy_runs
from tests.toys import toy_cache
from tests.train.runs import add_frames, run_training, tiny_config, weights_of, write_toys
from train.predict import predict


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toys(tmp_path)
    return tmp_path


def test_predictions_hold_what_evaluation_needs(folder: Path) -> None:
    dataset = Dataset.read(folder / "dataset")
    unlabelled = replace(dataset.clips[3], labels={})
    partly = replace(dataset, clips=(*dataset.clips[:3], unlabelled, *dataset.clips[4:]))
    run = run_training(folder, tiny_config(frozen=True), dataset=partly)
    found = run.predictions("test")
    assert found.clip_ids == ("clip-000", "clip-006", "clip-009")
    assert found.targets.tolist() == [0, 0, 0]
    assert found.logits.shape == (3, 3)
    assert (found.task, found.kind, found.class_names) == ("activity", "single", ("tea", "toast", "egg"))
    assert (found.dataset, found.protocol, found.split, found.run_name) == ("toy", "default", "test", "run")
    assert found.groups == {"subject": ("P00", "P00", "P01")}
    assert found.skipped == {"clip-003": "no label for task activity"}
    assert set(found.fingerprints) == {"visual_prompts", "text", "video_encoder", "video_tokens"}
    assert found.fingerprints == run.info.fingerprints
    assert found.notices == run.info.notices  # what was skipped is told with the predictions alone
    assert sum("random" in notice for notice in found.notices) == 3
    assert any("video_encoder.frozen" in notice for notice in found.notices)


def test_predictions_know_how_many_clips_the_benchmark_has(folder: Path) -> None:
    dataset = Dataset.read(folder / "dataset")
    counted = replace(dataset, official_counts={"default": {"train": 9, "test": 5}, "other": {"test": 7}})
    run = run_training(folder, tiny_config(frozen=True), dataset=counted)
    assert run.predictions("test").num_official == 5
    run.predictions_path("test").unlink()
    predict(run.path, dataset=_written(counted, folder / "counted"))
    (train,) = predict(run.path, split="train", dataset=folder / "counted")
    assert (run.predictions("test").num_official, train.num_official) == (5, 9)
    assert run_training(folder, tiny_config(frozen=True), name="unknown").predictions("test").num_official is None


def _written(dataset: Dataset, folder: Path) -> Path:
    dataset.write(folder)
    return folder


def test_predictions_of_before_the_official_count_was_kept_do_not_know_it(tmp_path: Path) -> None:
    item = toy_runs.predictions(num_official=7)
    item.write(tmp_path / "new.h5")
    arrays, attributes = array_file.read(tmp_path / "new.h5")
    about = json.loads(array_file.unpack_texts("about", arrays)[0])
    assert about.pop("num_official") == 7
    older = {**arrays, **array_file.pack_texts("about", [json.dumps(about)])}
    atomic.write_bytes(tmp_path / "old.h5", array_file.build(older, attributes))
    assert Predictions.read(tmp_path / "new.h5").num_official == 7
    assert Predictions.read(tmp_path / "old.h5").num_official is None


def test_a_live_run_names_its_frames(folder: Path) -> None:
    run = run_training(folder, tiny_config())
    assert set(run.predictions("test").fingerprints) == {"visual_prompts", "text", "video_encoder", "frames"}
    assert not any("frozen" in notice for notice in run.info.notices)


@pytest.mark.parametrize("frozen", [True, False])
def test_predicting_again_gives_the_same_logits(folder: Path, frozen: bool) -> None:
    run = run_training(folder, tiny_config(frozen=frozen, task="atomic"))
    before = run.predictions("test")
    run.predictions_path("test").unlink()
    (again,) = predict(run.path)
    assert np.array_equal(again.logits, before.logits)
    assert np.array_equal(run.predictions("test").logits, before.logits)
    assert again.targets.tolist() == before.targets.tolist()


def test_any_split_of_the_protocol_can_be_predicted(folder: Path) -> None:
    run = run_training(folder, tiny_config(frozen=True, epochs=40))
    (found,) = predict(run.path, split="train")
    assert len(found.clip_ids) == 8
    assert np.mean(found.logits.argmax(axis=1) == found.targets) > 0.8
    assert run.splits == ("test", "train")


def test_dataset_and_cache_may_have_moved(folder: Path) -> None:
    run = run_training(folder, tiny_config())
    before = run.predictions("test")
    for name in ("dataset", "cache"):
        (folder / name).rename(folder / f"moved-{name}")
    with pytest.raises(Exception, match="dataset"):
        predict(run.path)
    (again,) = predict(run.path, dataset=folder / "moved-dataset", cache=folder / "moved-cache")
    assert np.array_equal(again.logits, before.logits)


def test_a_cache_of_other_settings_is_refused_with_the_difference(folder: Path) -> None:
    run = run_training(folder, tiny_config())
    dataset = Dataset.read(folder / "dataset")
    same = toy_cache(folder / "same", dataset)
    add_frames(same)
    predict(run.path, cache=same)
    other = toy_cache(folder / "other", dataset, num_frames=16)
    add_frames(other, num_frames=16)
    with pytest.raises(FingerprintMismatch, match=r"sampling\.num_frames: the cache has 16, asked for 8"):
        predict(run.path, cache=other)


def test_other_classes_are_refused(folder: Path) -> None:
    run = run_training(folder, tiny_config())
    dataset = Dataset.read(folder / "dataset")
    names = ("coffee", "toast", "egg")
    renamed = replace(
        dataset,
        tasks=(replace(dataset.tasks[0], class_names=names, prompts=names), dataset.tasks[1]),
        clips=tuple(replace(clip, labels={"activity": ("toast",)}) for clip in dataset.clips),
    )
    renamed.write(folder / "renamed")
    add_frames(toy_cache(folder / "cache-2", renamed))
    with pytest.raises(ConfigError, match="give the dataset of the run"):
        predict(run.path, dataset=folder / "renamed", cache=folder / "cache-2")


def test_weights_of_the_video_encoder_are_not_needed_to_predict(folder: Path) -> None:
    first = run_training(folder, tiny_config(epochs=1), name="first")
    encoder = {
        name.removeprefix("frame_features.video_encoder."): value
        for name, value in weights_of(first).items()
        if name.startswith("frame_features.video_encoder.")
    }
    save_file(encoder, folder / "encoder.safetensors")
    for frozen in (True, False):
        config = tiny_config(frozen=frozen)
        given = replace(config.video_encoder, pretrained=str(folder / "encoder.safetensors"))
        run = run_training(folder, replace(config, video_encoder=given), name=f"given-{frozen}")
        assert not any("TimeSformer" in notice for notice in run.info.notices)
    (folder / "encoder.safetensors").unlink()
    for frozen in (True, False):
        run = Run.open(folder / f"given-{frozen}")
        before = run.predictions("test").logits
        assert np.array_equal(predict(run.path)[0].logits, before)


def test_a_run_that_has_not_begun_has_nothing_to_predict_with(folder: Path) -> None:
    run = run_training(folder, tiny_config(frozen=True))
    for path in (run.path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(CacheError, match="no 'last' checkpoint"):
        predict(run.path)
