"""Imports into small caches: the instants, the counts, what is refused, and what a second call finds."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import fingerprint
from cache.errors import CacheError, ConfigError, FailureCode, FingerprintMismatch
from cache.manifest import Dataset
from cache.plan import Plan
from cache.rows import ClipRows, Failure
from cache.shard import write_shard
from cache.sidecar import shard_numbers, sidecars
from cache.store import FeatureStore
from cache.stream_swap import NEXT
from cache.verify import verify
from extract.skeletons.filling import ImportOptions
from extract.skeletons.importing import ImportSummary, import_skeletons, open_skeletons
from extract.skeletons.mmaction import MmactionFile
from extract.skeletons.people import FoundPeople
from tests.extract.skeletons.files import Floats, annotation, toyota_person, walk, write_pickle, write_toyota
from tests.toys import PROVENANCE, frame_rows, joint_rows, toy_cache, toy_dataset, toy_fingerprint

NUM_FRAMES = PROVENANCE.decoded_num_frames
INDEX = np.array([0, 7, 7, 30, 31, 50, 70, 79])
"""The frame on screen at each of a clip's instants; one is shown twice."""
SIZE = (PROVENANCE.height, PROVENANCE.width)


def people(clip_id: str) -> Floats:
    """(80, 17, 2) the one person of a clip."""
    return walk(NUM_FRAMES, seed=int(clip_id[-3:]), start=(2, 2))


def entry(clip_id: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 (keys of an annotation)
    return annotation(clip_id, [people(clip_id)], **({"img_shape": SIZE} | changes))


def rows_of(clip_id: str) -> ClipRows:
    return replace(frame_rows(clip_id), frame_index=INDEX)


def write_frames(cache: Path, clips: Sequence[ClipRows]) -> None:
    mark = toy_fingerprint("frames")
    fingerprint.ensure(cache / "frames", mark)
    plan = Plan.ensure(cache, [row.clip_id for row in clips], 3)
    for number, ids in plan.shards.items():
        rows = [row for row in clips if row.clip_id in ids]
        write_shard(cache / "frames", number, "frames", rows, fingerprint=mark)


@pytest.fixture
def dataset() -> Dataset:
    return toy_dataset(7)


@pytest.fixture
def cache(tmp_path: Path, dataset: Dataset) -> Path:
    """Frames of seven clips in three shards; their videos are not on this machine."""
    write_frames(tmp_path / "cache", [rows_of(clip.id) for clip in dataset.clips])
    return tmp_path / "cache"


def written(folder: Path, entries: Sequence[dict[str, Any]]) -> MmactionFile:
    return MmactionFile(write_pickle(folder / "skeletons.pkl", {"split": {}, "annotations": list(entries)}))


def all_entries(dataset: Dataset) -> list[dict[str, Any]]:
    return [entry(clip.id) for clip in dataset.clips]


def content(cache: Path) -> str | None:
    reports = verify(cache, deep=True)
    assert not any(report.problems for report in reports.values())
    return reports["joints"].content_sha256


def failure_of(summary: ImportSummary, clip_id: str) -> Failure:
    return summary.failures[clip_id]


def test_joints_get_the_instants_of_the_frames_and_the_places_of_these_frames(
    tmp_path: Path, cache: Path, dataset: Dataset
) -> None:
    summary = import_skeletons(dataset, cache, written(tmp_path, all_entries(dataset)))
    assert (summary.ok, summary.num_imported, summary.num_unused) == (7, 7, 0)
    nothing = (summary.failures, summary.waiting, summary.scaled, summary.tolerated, summary.without_anybody)
    assert not any(nothing)
    store = FeatureStore.open(cache)
    for clip in dataset.clips:
        joints = store.joints[clip.id]
        np.testing.assert_array_equal(joints.xy, people(clip.id)[INDEX])
        np.testing.assert_array_equal(joints.score, np.full((8, 17), 0.5))
        np.testing.assert_array_equal(joints.valid, [3] * 8)
        np.testing.assert_array_equal(joints.track_id, [0] * 8)
        np.testing.assert_array_equal(joints.box[:, :2], people(clip.id)[INDEX].min(axis=1))
        np.testing.assert_array_equal(joints.box_score, [0.5] * 8)
        np.testing.assert_array_equal(store.joints.frame_index(clip.id), INDEX)
        np.testing.assert_array_equal(store.joints.pts_seconds(clip.id), store.frames.pts_seconds(clip.id))
        assert store.joints.provenance(clip.id) == store.frames.provenance(clip.id)
    mark = store.fingerprint("joints")
    assert mark.model["skeleton"] == "coco_17"
    assert (mark.sampling, mark.decoding) == (store.fingerprint("frames").sampling, {})


def test_frames_without_anybody_stay_in_their_place(tmp_path: Path, cache: Path, dataset: Dataset) -> None:
    given = all_entries(dataset)
    given[1]["keypoint_score"][0, 31:71] = 0
    given[2]["keypoint_score"][:] = 0
    summary = import_skeletons(dataset, cache, written(tmp_path, given))
    assert summary.ok == 7
    assert summary.without_anybody == ("clip-002",)
    joints = FeatureStore.open(cache).joints["clip-001"]
    np.testing.assert_array_equal(joints.valid, [3, 3, 3, 3, 0, 0, 0, 3])
    np.testing.assert_array_equal(np.isnan(joints.xy).all(axis=(1, 2)), joints.valid == 0)
    np.testing.assert_array_equal(joints.box_source, [1, 1, 1, 1, 0, 0, 0, 1])
    assert not FeatureStore.open(cache).joints["clip-002"].valid.any()


def test_a_skeleton_of_another_length_is_not_stretched(tmp_path: Path, cache: Path, dataset: Dataset) -> None:
    given = all_entries(dataset)
    given[3] = annotation("clip-003", [people("clip-003")[:78]], img_shape=SIZE)
    given[4] = annotation("clip-004", [walk(100, start=(2, 2))], img_shape=SIZE)
    skeletons = written(tmp_path, given)
    summary = import_skeletons(dataset, cache, skeletons)
    assert summary.failed == {"frame_count": 2}
    assert "78 frames, the video 80" in failure_of(summary, "clip-003").message
    assert "--tolerate-frames 20" in failure_of(summary, "clip-004").message
    assert import_skeletons(dataset, cache, skeletons, options=ImportOptions(tolerate_frames=2)).already_done
    again = ImportOptions(tolerate_frames=2, retry_failed=True)
    summary = import_skeletons(dataset, cache, skeletons, options=again)
    assert (summary.num_imported, summary.failed, summary.tolerated) == (2, {"frame_count": 1}, {"clip-003": (78, 80)})
    joints = FeatureStore.open(cache).joints["clip-003"]
    np.testing.assert_array_equal(joints.xy[:7], people("clip-003")[INDEX[:7]])
    assert joints.valid[7] == 0  # frame 79


def test_clips_without_a_skeleton_or_with_a_useless_one_are_rows_with_a_code(
    tmp_path: Path, cache: Path, dataset: Dataset
) -> None:
    given = all_entries(dataset)[1:]
    given[0]["keypoint"][0, 0, 0, 0] = np.nan
    given[1]["keypoint"] = np.zeros((1, NUM_FRAMES, 25, 2))
    summary = import_skeletons(dataset, cache, written(tmp_path, [*given, entry("stranger-000")]))
    assert {clip_id: failure.code for clip_id, failure in summary.failures.items()} == {
        "clip-000": FailureCode.NO_SKELETON,
        "clip-001": FailureCode.NON_FINITE,
        "clip-002": FailureCode.NO_SKELETON,
    }
    assert summary.ok == 4
    assert summary.num_unused == 1
    assert not verify(cache)["joints"].problems


def test_clips_that_failed_before_fail_for_the_same_reason_and_others_wait(tmp_path: Path, dataset: Dataset) -> None:
    cache = tmp_path / "cache"
    failure = Failure(code=FailureCode.TRUNCATED, message="cut off")
    failed = ClipRows.failed("clip-001", failure, replace(PROVENANCE, decoder=""))
    write_frames(cache, [rows_of("clip-000"), failed, rows_of("clip-002")])
    skeletons = written(tmp_path, all_entries(dataset))
    summary = import_skeletons(dataset, cache, skeletons)
    assert (summary.ok, dict(summary.failures)) == (2, {"clip-001": failure})
    assert summary.waiting == ("clip-003", "clip-004", "clip-005", "clip-006")
    write_frames(cache, [rows_of(clip.id) for clip in dataset.clips])  # extraction went on
    summary = import_skeletons(dataset, cache, skeletons, options=ImportOptions(retry_failed=True))
    assert (summary.ok, summary.num_imported, summary.waiting) == (7, 5, ())


def test_finished_work_is_a_comparison_of_settings(
    tmp_path: Path, cache: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    skeletons = written(tmp_path, all_entries(dataset)[1:])
    import_skeletons(dataset, cache, skeletons)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    monkeypatch.setattr("extract.skeletons.mmaction.load", lambda path: pytest.fail(f"{path} was parsed again"))
    summary = import_skeletons(dataset, cache, MmactionFile(skeletons.path))
    assert summary.already_done
    assert (summary.ok, summary.failed, summary.num_unused) == (6, {"no_skeleton": 1}, None)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_an_import_that_was_interrupted_goes_on_with_what_is_missing(
    tmp_path: Path, cache: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    skeletons = written(tmp_path, all_entries(dataset))
    shutil.copytree(cache, tmp_path / "whole")
    import_skeletons(dataset, tmp_path / "whole", skeletons)
    read = MmactionFile.read

    def interrupted(self: MmactionFile, name: str) -> FoundPeople:
        if name == "clip-004":
            raise KeyboardInterrupt
        return read(self, name)

    monkeypatch.setattr(MmactionFile, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_skeletons(dataset, cache, skeletons)
    assert shard_numbers(cache / "joints") == [0]
    monkeypatch.undo()
    assert import_skeletons(dataset, cache, skeletons).num_imported == 4
    assert content(cache) == content(tmp_path / "whole")


def test_two_halves_of_a_dataset_fill_one_stream(tmp_path: Path, cache: Path, dataset: Dataset) -> None:
    skeletons = written(tmp_path, all_entries(dataset))
    for part in (dataset.clips[:2], dataset.clips[2:]):
        import_skeletons(replace(dataset, clips=part), cache, skeletons)
    assert len(FeatureStore.open(cache).joints) == 7


def test_joints_of_another_origin_are_refused_with_the_differences(
    tmp_path: Path, cache: Path, dataset: Dataset
) -> None:
    mark = toy_fingerprint("joints")
    fingerprint.ensure(cache / "joints", mark)
    write_shard(cache / "joints", 0, "joints", [joint_rows("clip-000")], fingerprint=mark)
    skeletons = written(tmp_path, all_entries(dataset))
    with pytest.raises(FingerprintMismatch) as caught:
        import_skeletons(dataset, cache, skeletons)
    assert 'joints.model.name: the cache has "toy-joints", asked for "imported"' in str(caught.value)
    assert "--overwrite" in str(caught.value)
    summary = import_skeletons(dataset, cache, skeletons, options=ImportOptions(overwrite=True))
    assert (summary.ok, summary.is_building) == (7, False)
    assert FeatureStore.open(cache).joints["clip-000"].valid.tolist() == [3] * 8
    assert not (cache / NEXT).exists()
    with pytest.raises(FingerprintMismatch, match=r"joints\.model\.file_sha256"):
        import_skeletons(dataset, cache, written(tmp_path, all_entries(dataset)[1:]))


def test_old_joints_stay_until_the_new_ones_are_whole(tmp_path: Path, dataset: Dataset) -> None:
    cache = tmp_path / "cache"
    write_frames(cache, [rows_of(clip.id) for clip in dataset.clips[:6]])
    import_skeletons(dataset, cache, written(tmp_path, all_entries(dataset)))
    before = content(cache)
    other = written(tmp_path, [entry(clip.id, label=1) for clip in dataset.clips])
    options = ImportOptions(overwrite=True)
    summary = import_skeletons(dataset, cache, other, options=options)
    assert (summary.ok, summary.is_building, summary.waiting) == (6, True, ("clip-006",))
    assert content(cache) == before
    write_frames(cache, [rows_of(clip.id) for clip in dataset.clips])
    summary = import_skeletons(dataset, cache, other, options=options)
    assert (summary.ok, summary.num_imported, summary.is_building) == (7, 1, False)
    assert not (cache / NEXT).exists()


def test_a_file_without_any_of_the_clips_is_refused_and_leaves_nothing(
    tmp_path: Path, cache: Path, dataset: Dataset
) -> None:
    before = sorted(cache.rglob("*"))
    with pytest.raises(ConfigError, match=r"not one of the 1 skeletons \('stranger-000'"):
        import_skeletons(dataset, cache, written(tmp_path, [entry("stranger-000")]))
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(Vtrue\ntR.")
    with pytest.raises(ConfigError, match=r"asks for os\.system"):
        import_skeletons(dataset, cache, MmactionFile(tmp_path / "evil.pkl"))
    assert sorted(cache.rglob("*")) == before
    with pytest.raises(ConfigError, match=r"no format 'coco' of skeletons; there are mmaction2, toyota, openpose"):
        open_skeletons(tmp_path, "coco")


def test_clips_are_known_by_their_id_or_by_their_video(tmp_path: Path, cache: Path, dataset: Dataset) -> None:
    names = ["clip-000", "001", "002.mp4"]
    given = [entry(clip.id) | {"frame_dir": name} for clip, name in zip(dataset.clips, names, strict=False)]
    summary = import_skeletons(dataset, cache, written(tmp_path, given))
    assert set(summary.failures) == {"clip-003", "clip-004", "clip-005", "clip-006"}


def test_places_are_scaled_to_the_video_and_that_is_said(tmp_path: Path, cache: Path, dataset: Dataset) -> None:
    given = all_entries(dataset)
    given[1] = entry("clip-001", img_shape=(2 * SIZE[0], 4 * SIZE[1]))
    given[2] = entry("clip-002", img_shape=SIZE[::-1])
    summary = import_skeletons(dataset, cache, written(tmp_path, given))
    assert summary.scaled == ("clip-001",)
    found = FeatureStore.open(cache).joints["clip-001"].xy
    seen = people("clip-001")[INDEX]
    np.testing.assert_allclose((found + 0.5) * (4, 2), seen + 0.5, rtol=1e-6)
    assert "48 x 64 pixels, the video is displayed as 64 x 48" in failure_of(summary, "clip-002").message


def test_the_main_person_is_one_for_the_whole_clip(tmp_path: Path, cache: Path, dataset: Dataset) -> None:
    """The person axis follows nobody: here the two change places in every frame, and one is away for a while."""
    main = 3 * walk(NUM_FRAMES, seed=1, start=(0, 0)) / 4
    other = walk(NUM_FRAMES, seed=2, start=(200, 100)) / 4
    xy = np.stack([main, other]).astype(np.float16)
    xy[:, ::2] = xy[::-1, ::2]
    score = np.full(xy.shape[:3], 0.5, np.float16)
    score[0, 30] = 0  # the main person of an even frame is in row 1, so this is the other one
    score[1, 50] = 0
    size = (200, 400)
    given = [entry("clip-000", img_shape=size, keypoint=xy, keypoint_score=score)]
    import_skeletons(replace(dataset, clips=dataset.clips[:1]), cache, written(tmp_path, given))
    joints = FeatureStore.open(cache).joints["clip-000"]
    scale = np.array([SIZE[1] / size[1], SIZE[0] / size[0]])
    expected = (main.astype(np.float16)[INDEX] + 0.5) * scale - 0.5
    np.testing.assert_array_equal(joints.valid, np.where(INDEX == 50, 0, 3))
    np.testing.assert_allclose(joints.xy[joints.valid > 0], expected[joints.valid > 0], rtol=1e-4)


def test_one_person_a_frame_was_chosen_by_the_tool_and_is_kept_after_a_cut(
    tmp_path: Path, cache: Path, dataset: Dataset
) -> None:
    xy = np.concatenate([np.zeros((40, 17, 2)) + people("clip-000")[:1] / 8, people("clip-000")[40:]])
    given = [annotation("clip-000", [xy], img_shape=SIZE)]
    given[0]["keypoint_score"][0, 20:60] = 0
    import_skeletons(replace(dataset, clips=dataset.clips[:1]), cache, written(tmp_path, given))
    joints = FeatureStore.open(cache).joints["clip-000"]
    np.testing.assert_array_equal(joints.valid > 0, (INDEX < 20) | (INDEX >= 60))


def test_13_joints_stay_13(tmp_path: Path, cache: Path, dataset: Dataset) -> None:
    track = walk(NUM_FRAMES, num_joints=13)
    (tmp_path / "json").mkdir()
    for clip in dataset.clips:
        frames = [[toyota_person(joints, cumscore=3.0)] for joints in track]
        write_toyota(tmp_path / "json" / f"{clip.id}_pose3d.json", frames)
    summary = import_skeletons(dataset, cache, open_skeletons(tmp_path / "json", "toyota"))
    assert summary.ok == len(summary.scaled) == 7
    store = FeatureStore.open(cache)
    assert store.joints["clip-000"].xy.shape == (8, 13, 2)
    assert store.fingerprint("joints").model["skeleton"] == "toyota_13"


def test_visual_prompts_give_the_instants_where_there_are_no_frames(tmp_path: Path, dataset: Dataset) -> None:
    cache = toy_cache(tmp_path / "cache", dataset)
    import_skeletons(dataset, cache, written(tmp_path, all_entries(dataset)))
    store = FeatureStore.open(cache)
    np.testing.assert_array_equal(store.joints.frame_index("clip-005"), store.visual_prompts.frame_index("clip-005"))


def test_frames_of_an_edited_span_are_not_given_joints(tmp_path: Path, cache: Path, dataset: Dataset) -> None:
    edited = replace(dataset, clips=(replace(dataset.clips[0], end_seconds=2.0), *dataset.clips[1:]))
    with pytest.raises(FingerprintMismatch, match="the manifest says 0 s to 2 s"):
        import_skeletons(edited, cache, written(tmp_path, all_entries(dataset)))
    assert not (cache / "joints").exists()


def test_a_damaged_row_of_the_reference_names_its_file(tmp_path: Path, cache: Path, dataset: Dataset) -> None:
    (cache / "frames" / sidecars(cache / "frames")[0].file).unlink()
    with pytest.raises(CacheError, match="frames"):
        import_skeletons(dataset, cache, written(tmp_path, all_entries(dataset)))
