"""Which skeleton of a file belongs to which clip, where names do not tell."""

from dataclasses import replace
from pathlib import Path

from cache.errors import FailureCode
from extract.skeletons.importing import import_skeletons
from tests.extract.skeletons.test_importing import entry, failure_of, rows_of, write_frames, written
from tests.toys import toy_dataset


def test_one_name_of_several_videos_is_nobodys(tmp_path: Path) -> None:
    dataset = toy_dataset(7)
    videos = {"clip-000": "drink/001.avi", "clip-001": "eat/001.avi", "clip-002": "eat/002.avi", "clip-003": "3/x.avi"}
    videos |= {"clip-004": "4/x.avi", "clip-005": "5.avi", "clip-006": "5.avi"}
    clips = tuple(replace(clip, video=videos[clip.id]) for clip in dataset.clips)
    write_frames(tmp_path / "cache", [rows_of(clip.id) for clip in clips])
    names = {"001": 0, "002": 2, "3/x": 3, "x": 4, "5": 5}
    given = [entry(f"clip-{number:03d}") | {"frame_dir": name} for name, number in names.items()]
    skeletons = written(tmp_path, given)
    summary = import_skeletons(replace(dataset, clips=clips), tmp_path / "cache", skeletons)
    assert {clip_id: failure.code for clip_id, failure in summary.failures.items()} == {
        "clip-000": FailureCode.NO_SKELETON,
        "clip-001": FailureCode.NO_SKELETON,
    }
    for clip_id in ("clip-000", "clip-001"):
        assert "'001' in the file is ambiguous: drink/001.avi, eat/001.avi;" in failure_of(summary, clip_id).message
    assert summary.num_unused == 0
