"""Text features, predictions and run directories."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.errors import CacheError, CorruptShard
from cache.fingerprint import Fingerprint
from cache.predictions import Predictions
from cache.run import Run
from cache.text import TextFeatures
from tests.toys import ATOMIC, toy_run_info, toy_text


def predictions() -> Predictions:
    """Three clips, two classes."""
    return Predictions(
        clip_ids=("a", "-b", "c\u00e9"),
        logits=np.array([[0.1, 0.2], [3.0, -1.0], [1e-7, 2.0]], np.float32),
        targets=np.array([0, 1, 1]),
        task="activity",
        kind="single",
        class_names=("tea", "egg & <toast>"),
        dataset="toy",
        protocol="default",
        split="test",
        run_name="run",
        fingerprints={"visual_prompts": "ab"},
        groups={"subject": ("P01", "P02", "")},
        skipped={"d": "failed: corrupt"},
        notices=("random weights",),
    )


def test_predictions_written_and_read_are_the_same(tmp_path: Path) -> None:
    before = predictions()
    before.write(tmp_path / "test.h5")
    after = Predictions.read(tmp_path / "test.h5")
    for name, value in vars(before).items():
        np.testing.assert_equal(getattr(after, name), value)
    assert after.logits.dtype == np.float32


def test_predictions_with_nan_are_refused() -> None:
    logits = predictions().logits.copy()
    logits[1, 0] = np.nan
    with pytest.raises(ValueError, match=r"1 clips are NaN or infinite, first \['-b'\]"):
        replace(predictions(), logits=logits)


def test_a_shard_is_not_taken_for_predictions(tmp_path: Path) -> None:
    path = toy_text(ATOMIC).write(tmp_path)
    with pytest.raises(CorruptShard, match="not a predictions file"):
        Predictions.read(path)


def test_text_features_are_found_by_classes_and_prompts(tmp_path: Path) -> None:
    before = toy_text(ATOMIC)
    before.write(tmp_path)
    after = TextFeatures.read(tmp_path, ATOMIC)
    np.testing.assert_array_equal(after.sentence, before.sentence)
    np.testing.assert_array_equal(after.word_mask, before.word_mask)
    changed = replace(ATOMIC, prompts=(*ATOMIC.prompts[:3], "slice the bread"))
    with pytest.raises(CacheError, match="--streams text"):
        TextFeatures.read(tmp_path, changed)


def test_a_class_without_an_embedding_is_named(tmp_path: Path) -> None:
    toy_text(ATOMIC).write(tmp_path)
    grown = replace(ATOMIC, class_names=(*ATOMIC.class_names, "whisk"), prompts=(*ATOMIC.prompts, "whisk"))
    with pytest.raises(CacheError, match=r"lack 1 of them, first 'whisk'; run `deconfound extract`"):
        TextFeatures.read(tmp_path, grown)
    prompts = (*ATOMIC.prompts[:-1], "slice bread")
    with pytest.raises(CacheError, match=r"other prompts, first of 'cut': 'cut bread' instead of 'slice bread'"):
        TextFeatures.read(tmp_path, replace(ATOMIC, prompts=prompts))
    with pytest.raises(CacheError, match=r"in another order"):
        TextFeatures.read(tmp_path, replace(ATOMIC, class_names=ATOMIC.class_names[::-1], prompts=ATOMIC.prompts[::-1]))


def test_a_damaged_text_file_is_refused(tmp_path: Path) -> None:
    path = toy_text(ATOMIC).write(tmp_path)
    image = bytearray(path.read_bytes())
    image[-1] ^= 1
    path.write_bytes(image)
    with pytest.raises(CorruptShard, match="sha256"):
        TextFeatures.read(tmp_path, ATOMIC)


def test_a_run_is_created_updated_and_opened(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", toy_run_info(), {"epochs": 3})
    run.update(status="finished")
    predictions().write(run.predictions_path("test"))
    again = Run.open(tmp_path / "run")
    assert again.info == replace(toy_run_info(), status="finished")
    assert again.config == {"epochs": 3}
    again.replace_config({"epochs": 4})
    assert again.config == Run.open(tmp_path / "run").config == {"epochs": 4}
    assert again.splits == ("test",)
    with pytest.raises(CacheError, match="--split validation"):
        again.predictions("validation")
    with pytest.raises(CacheError, match="holds a run already"):
        Run.create(tmp_path / "run", toy_run_info(), {})


def test_of_an_epoch_run_twice_the_last_row_counts_and_half_a_line_is_ignored(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", toy_run_info(), {})
    for epoch, loss in ((0, 3.0), (1, 2.0), (1, 1.5)):
        run.append_metrics({"epoch": epoch, "loss": loss})
    with run.metrics_path.open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert [row["loss"] for row in run.metrics()] == [3.0, 1.5]
    for epoch, loss in ((2, 1.0), (3, 0.5)):
        run.append_metrics({"epoch": epoch, "loss": loss})
    assert [row["loss"] for row in run.metrics()] == [3.0, 1.5, 1.0, 0.5]
    assert "\n\n" not in run.metrics_path.read_text()


def test_a_folder_that_is_no_run_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="deconfound train"):
        Run.open(tmp_path)


def test_the_same_weights_under_another_file_name_are_the_same() -> None:
    mark = Fingerprint(stream="joints", dtype="float32", model={"weights": "ab", "weights_name": "a.pth"})
    renamed = replace(mark, model={"weights": "ab", "weights_name": "b.pth"})
    others = replace(mark, model={"weights": "cd", "weights_name": "a.pth"})
    assert mark.difference(renamed) == []
    assert len(mark.difference(others)) == 1
