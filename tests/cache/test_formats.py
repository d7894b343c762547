"""The file formats are frozen: what this version wrote, every later version must read.

The files under `tests/cache/formats-v1` were written once, by `python -m tests.cache.test_formats`. If a change makes
these tests fail, raise the schema version and keep reading the old one; do not write the files again.
"""

from pathlib import Path

import numpy as np
import pytest

from cache import fingerprint
from cache.errors import FailureCode
from cache.manifest import Dataset
from cache.plan import Plan
from cache.predictions import Predictions
from cache.rows import ClipRows, Failure
from cache.run import Run
from cache.shard import write_shard
from cache.store import FeatureStore
from cache.verify import verify
from tests.toys import (
    ACTIVITY,
    PROVENANCE,
    frame_rows,
    joint_rows,
    toy_dataset,
    toy_fingerprint,
    toy_run_info,
    toy_text,
    visual_prompt_rows,
)

FROZEN = Path(__file__).parent / "formats-v1"
FAILED = Failure(code=FailureCode.TRUNCATED, message="12 of 80 frames can be decoded")
MAKERS = {"frames": frame_rows, "visual_prompts": visual_prompt_rows, "joints": joint_rows}
CONTENT = {
    "frames": "2de7541f3bc66f1ff38790f00ff740b05950a5017372c7d8af6ca5583fa18a04",
    "joints": "b6234e816e8881ed23cc57955988be2ba4877c550ce90464ee5ea86452d259b6",
    "visual_prompts": "2e71f986496c84d1bc16ff582b54b785d76320422b82e4142cca9ec9f324f115",
    "text": "9a06adb38b2ddbccf6d21c5d2c6145c326f1e00633d645e86047a38076104188",
}


def write_everything(folder: Path) -> None:
    """One of each file: dataset, cache with every stream and a failed clip, run with predictions."""
    dataset = toy_dataset(5, video_root=folder / "videos")
    dataset.write(folder / "dataset")
    cache = folder / "cache"
    plan = Plan.ensure(cache, [clip.id for clip in dataset.clips], 5)
    for stream, make in MAKERS.items():
        mark = toy_fingerprint(stream)
        fingerprint.ensure(cache / stream, mark)
        for number, clip_ids in plan.shards.items():
            rows = [
                ClipRows.failed(clip_id, FAILED) if clip_id == "clip-003" else make(clip_id) for clip_id in clip_ids
            ]
            write_shard(cache / stream, number, stream, rows, fingerprint=mark)
    fingerprint.ensure(cache / "text", toy_fingerprint("text"))
    toy_text(ACTIVITY).write(cache)
    run = Run.create(folder / "run", toy_run_info(status="finished"), {"epochs": 2})
    run.append_metrics({"epoch": 0, "loss": 1.5})
    Predictions(
        clip_ids=("clip-000", "clip-003"),
        logits=np.array([[0.5, -1.25, 2.0], [0.0, 1e-7, -3.0]], np.float32),
        targets=np.array([0, 1]),
        task="activity",
        kind="single",
        class_names=ACTIVITY.class_names,
        dataset="toy",
        protocol="default",
        split="test",
        run_name="run",
        groups={"subject": ("P00", "P01")},
        skipped={"clip-004": "no label"},
    ).write(run.predictions_path("test"))


def test_the_frozen_cache_still_verifies_with_the_same_content() -> None:
    reports = verify(FROZEN / "cache", deep=True)
    assert {name: report.content_sha256 for name, report in reports.items()} == CONTENT
    assert [problem for report in reports.values() for problem in report.problems] == []


def test_the_frozen_rows_still_read_as_they_were_written() -> None:
    store = FeatureStore.open(FROZEN / "cache")
    np.testing.assert_array_equal(
        store.visual_prompts["clip-004"], visual_prompt_rows("clip-004").fields["visual_prompts"]
    )
    assert [bytes(blob) for blob in store.frames["clip-001"]] == frame_rows("clip-001").fields["jpeg"]
    joints, expected = store.joints["clip-002"], joint_rows("clip-002").fields
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(joints, name), values)
    assert store.frames.failures == {"clip-003": FAILED}
    assert store.frames.provenance("clip-001") == PROVENANCE
    np.testing.assert_array_equal(store.text(ACTIVITY).word, toy_text(ACTIVITY).word)


def test_the_frozen_dataset_and_run_still_read_as_they_were_written() -> None:
    dataset = Dataset.read(FROZEN / "dataset")
    assert dataset.clips == toy_dataset(5).clips
    run = Run.open(FROZEN / "run")
    assert (run.info.method, run.info.status, run.metrics()) == ("cmdcl", "finished", [{"epoch": 0, "loss": 1.5}])
    assert run.predictions("test").logits.tolist()[0] == [0.5, -1.25, 2.0]
    assert run.predictions("test").skipped == {"clip-004": "no label"}


def test_this_version_writes_the_same_content(tmp_path: Path) -> None:
    write_everything(tmp_path)
    reports = verify(tmp_path / "cache", deep=True)
    assert {name: report.content_sha256 for name, report in reports.items()} == CONTENT
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {path.relative_to(FROZEN).as_posix() for path in FROZEN.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["cache/plan.json", "cache/text/fingerprint.json", "run/run.json", "run/config.json"])
def test_small_files_are_written_byte_for_byte_as_before(tmp_path: Path, name: str) -> None:
    write_everything(tmp_path)
    assert (tmp_path / name).read_bytes() == (FROZEN / name).read_bytes()


if __name__ == "__main__":
    write_everything(FROZEN)
