"""HAA500: class files (the README's lines, the rest made), the release of cut clips, whole videos."""

import os
from pathlib import Path

import pytest

from cache.errors import ManifestError
from pipeline.datasets.benchmarks import prepare_benchmark
from pipeline.datasets.preparation import Preparation, describe
from pipeline.datasets.videos import VideoFolder

REAL = os.environ.get("DECONFOUND_TEST_DATA")
LINE = "https://www.youtube.com/watch?v=IODxDxX7oi4,3.37,7.08,1,1"


def lines(number: int, *, first: str = "") -> list[str]:
    """Lines of videos `Video_00000`, `Video_00001`, ... at 10 s, 11 s, ... ."""
    return [
        first
        if first and not line
        else f"https://www.youtube.com/watch?v=Video_{line:05d},{10 + line},{11.5 + line},0,2"
        for line in range(number)
    ]


def prepare(folder: Path, classes: dict[str, list[str]], *videos: str) -> Preparation:
    """Class files with a BOM and CRLF in `annotations`, empty videos in `videos`."""
    for root in ("annotations", "videos"):
        (folder / root).mkdir(exist_ok=True)
    for name, rows in classes.items():
        text = "\r\n".join([*rows, "", ""])
        (folder / "annotations" / f"{name}.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    for video in videos:
        path = folder / "videos" / video
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return prepare_benchmark("haa500", folder / "annotations", VideoFolder(folder / "videos"))


def release(name: str, numbers: range) -> list[str]:
    return [f"haa500_v1_1/video/{name}/{name}_{number:03d}.mp4" for number in numbers]


def test_500_files_of_20_lines_are_8000_500_and_1500_clips(tmp_path: Path) -> None:
    names = ["ALS_IceBucket_Challenge", *(f"action_{number:03d}" for number in range(499))]
    preparation = prepare(tmp_path, {name: lines(20) for name in names})
    description = describe(preparation, VideoFolder(tmp_path / "videos"))
    counts = description["protocols"]["default"]
    assert {split: (count["clips"], count["official"]) for split, count in counts.items()} == {
        "train": (8000, 8000),
        "validation": (500, 500),
        "test": (1500, 1500),
    }
    task = preparation.dataset.task("action")
    assert list(task.class_names) == sorted(names)
    assert task.prompts[0] == "ALS IceBucket Challenge, a video of human action"
    assert preparation.notes == ()


def test_the_split_is_the_order_of_lines(tmp_path: Path) -> None:
    preparation = prepare(tmp_path, {"gym_plank": lines(21), "b": lines(17), "a": lines(3)})
    clips = [clip for clip in preparation.dataset.clips if clip.labels["action"] == ("gym_plank",)]
    assert [clip.id for clip in clips] == [f"gym_plank/gym_plank_{number:03d}" for number in range(21)]
    assert [clip.splits["default"] for clip in clips] == ["train"] * 16 + ["validation"] + ["test"] * 4
    assert preparation.dataset.task("action").class_names == ("a", "b", "gym_plank")
    assert preparation.notes == (
        "3 classes, the benchmark has 500",
        "3 classes have other than 20 clips: a 3, b 17, gym_plank 21",
    )


@pytest.mark.skipif(REAL is None, reason="DECONFOUND_TEST_DATA is not set")
def test_the_readmes_lines_are_cut_out_of_whole_videos(tmp_path: Path) -> None:
    source = Path(REAL or "") / "annotations" / "haa500" / "pushup.readme_excerpt.txt"
    classes = {"pushup": source.read_text().splitlines()}
    preparation = prepare(tmp_path, classes, "any/IODxDxX7oi4.webm")
    first, second, third = preparation.dataset.clips
    assert (first.video, first.start_seconds, first.end_seconds) == ("any/IODxDxX7oi4.webm", 3.37, 7.08)
    assert first.groups == {"video": "IODxDxX7oi4", "camera_moving": "yes", "figures": "1"}
    assert (second.video, second.start_seconds, second.end_seconds) == ("AhdtowFDKT0.mp4", 182.71, 185.11)
    assert (third.video, third.groups["camera_moving"]) == ("cABuP6ZdUno.mp4", "no")
    assert preparation.notes[-1] == (
        "3 clips are a piece (start to end) of a whole YouTube video, 0 have a video of their own"
    )


def test_clips_of_the_release_are_whole_and_found_by_their_number(tmp_path: Path) -> None:
    videos = release("gym_squat", range(20))
    videos.remove("haa500_v1_1/video/gym_squat/gym_squat_016.mp4")
    preparation = prepare(tmp_path, {"gym_squat": lines(20)}, *videos)
    clips = preparation.dataset.clips
    assert [clip.video for clip in clips[14:18]] == [
        "haa500_v1_1/video/gym_squat/gym_squat_014.mp4",
        "haa500_v1_1/video/gym_squat/gym_squat_015.mp4",
        "video/gym_squat/gym_squat_016.mp4",
        "haa500_v1_1/video/gym_squat/gym_squat_017.mp4",
    ]
    assert {clip.end_seconds for clip in clips} == {None}
    description = describe(preparation, VideoFolder(tmp_path / "videos"))
    assert description["protocols"]["default"]["validation"]["missing_videos"] == 1
    assert description["unused_videos"] == 0


def test_numbers_alone_are_names_of_clips_too_and_sort_as_numbers(tmp_path: Path) -> None:
    preparation = prepare(tmp_path, {"yoga": lines(20)}, *(f"yoga/{number}.avi" for number in range(20)))
    assert [clip.video for clip in preparation.dataset.clips] == [f"yoga/{number}.avi" for number in range(20)]


def test_what_the_release_lacks_is_cut_out_of_a_whole_video_that_is_there(tmp_path: Path) -> None:
    videos = [*release("yoga", range(1)), "whole/Video_00000.mp4", "whole/Video_00001.mkv"]
    clips = prepare(tmp_path, {"yoga": lines(3)}, *videos).dataset.clips
    assert [(clip.video, clip.start_seconds) for clip in clips] == [
        ("haa500_v1_1/video/yoga/yoga_000.mp4", None),
        ("whole/Video_00001.mkv", 11.0),
        ("video/yoga/yoga_002.mp4", None),
    ]


@pytest.mark.parametrize("stem", ["Video_00001", "Video_00001_11_12", "12_yoga_1", "other_001"])
def test_names_that_end_in_a_number_by_chance_are_no_numbered_clips(tmp_path: Path, stem: str) -> None:
    (clip, *_) = prepare(tmp_path, {"yoga": lines(2)}, f"yoga/{stem}.mp4").dataset.clips
    assert not clip.video.startswith("yoga/")


@pytest.mark.parametrize(
    ("url", "video"),
    [
        ("https://www.youtube.com/watch?v=-ODxDxX7oi_&t=3s", "-ODxDxX7oi_"),
        ("https://www.youtube.com/watch?feature=shared&v=_ODxDxX7oi4", "_ODxDxX7oi4"),
        ("https://youtu.be/IODxDxX7oi4?t=3", "IODxDxX7oi4"),
        ("https://www.youtube.com/embed/IODxDxX7oi4", "IODxDxX7oi4"),
        ("https://example.org/clip.mp4", "https://example.org/clip.mp4"),
    ],
)
def test_the_youtube_id_is_read_out_of_any_form_of_address(tmp_path: Path, url: str, video: str) -> None:
    preparation = prepare(tmp_path, {"yoga": [f'"{url}" , 3.37 , 7.08 , 1 , 1 ']}, f"{video.rsplit('/', 1)[-1]}.mp4")
    (clip,) = preparation.dataset.clips
    assert clip.groups == {"video": video, "camera_moving": "yes", "figures": "1"}
    assert clip.video == (f"{video}.mp4" if "/" not in video else "video/yoga/yoga_000.mp4")


def test_without_class_files_the_release_gives_the_same_splits_and_a_note(tmp_path: Path) -> None:
    videos = [*release("b_c", range(20)), *release("a", range(15, 18)), "downloads/Video_00001.mp4"]
    preparation = prepare(tmp_path, {}, *videos)
    with_files = prepare(tmp_path, {"b_c": lines(20), "a": lines(20)})
    known = {clip.id: (clip.video, clip.splits, clip.labels) for clip in with_files.dataset.clips}
    clips = preparation.dataset.clips
    assert [clip.id for clip in clips[:4]] == ["a/a_015", "a/a_016", "a/a_017", "b_c/b_c_000"]
    assert all((clip.video, clip.splits, clip.labels) == known[clip.id] for clip in clips)
    assert preparation.dataset.tasks == with_files.dataset.tasks
    assert len(clips) == 23
    assert preparation.notes[0] == (
        "no class files: splits are from the clips' numbers, absent clips are not known (files: github.com/a6o/HAA500)"
    )


@pytest.mark.parametrize("with_files", [True, False])
def test_clips_numbered_from_1_are_refused_because_splits_would_be_wrong(tmp_path: Path, with_files: bool) -> None:
    classes = {"yoga": lines(20)} if with_files else {}
    with pytest.raises(ManifestError, match=r"yoga_020\.mp4 is beyond the last line .* numbered from 1"):
        prepare(tmp_path, classes, *release("yoga", range(1, 21)))


def test_clips_beyond_the_last_line_are_noted_where_another_class_begins_at_000(tmp_path: Path) -> None:
    videos = [*release("yoga", range(1, 3)), *release("a", range(1))]
    preparation = prepare(tmp_path, {"yoga": lines(2), "a": lines(1)}, *videos)
    assert len(preparation.dataset.clips) == 3
    assert preparation.notes[-1] == (
        "1 clips of the release have no line in their class file: haa500_v1_1/video/yoga/yoga_002.mp4"
    )


@pytest.mark.parametrize("other", ["yoga/1.mp4", "flow/yoga/yoga_001.mp4", "yoga/yoga_001.avi"])
def test_two_clips_of_one_number_are_refused(tmp_path: Path, other: str) -> None:
    with pytest.raises(ManifestError, match=r"yoga_001\.mp4.* are both number 1 of class yoga"):
        prepare(tmp_path, {"yoga": lines(2)}, "yoga/yoga_001.mp4", other)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x,7.08,3.37,1,1", "start 7.08 and end 3.37 do not make a piece of video"),
        ("x,3,3,1,1", "start 3 and end 3 do not make"),
        ("x,-1,3,1,1", "start -1 and end 3 do not make"),
        ("x,nan,3,1,1", "start is 'nan', not a finite number"),
        ("x,1,inf,1,1", "end is 'inf', not a finite number"),
        ("x,1:02,1:05,1,1", "start is '1:02', not a number"),
        ("x,1,3,1", f"expected {'url,start,end,is_camera_moving,num_of_dominant_figure'}, got 'x,1,3,1'"),
        (",1,3,1,1", "expected url"),
        ("pip install numpy", "taken for a class"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_with_its_file_and_number(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(ManifestError, match=rf"yoga\.txt, line 3: .*{message}"):
        prepare(tmp_path, {"yoga": [LINE, "", line]})


def test_odd_cameras_and_figures_leave_their_group_out_and_are_counted(tmp_path: Path) -> None:
    preparation = prepare(tmp_path, {"yoga": ["x,1,2,?,1", "x,1,2,0,many", LINE]})
    assert [sorted(clip.groups) for clip in preparation.dataset.clips] == [
        ["figures", "video"],
        ["camera_moving", "video"],
        ["camera_moving", "figures", "video"],
    ]
    assert preparation.notes[-1].startswith("2 lines have a camera other than 0 or 1")


def test_files_that_are_no_classes_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "annotations" / "__MACOSX").mkdir(parents=True)
    for name in ("README.txt", "._yoga.txt", "__MACOSX/yoga.txt"):
        (tmp_path / "annotations" / name).write_text("no class")
    assert prepare(tmp_path, {"yoga": lines(20)}).dataset.task("action").class_names == ("yoga",)


def test_one_class_in_two_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "annotations" / "v1.0").mkdir(parents=True)
    (tmp_path / "annotations" / "v1.0" / "yoga.txt").write_text(LINE)
    with pytest.raises(ManifestError, match=r"v1\.0/yoga\.txt and .*annotations/yoga\.txt name the same class"):
        prepare(tmp_path, {"yoga": lines(20)})


def test_an_empty_class_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"yoga\.txt: no line"):
        prepare(tmp_path, {"yoga": []})


def test_with_neither_files_nor_clips_nothing_is_made_and_the_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no class files .* no numbered clips .* github\.com/a6o/HAA500"):
        prepare(tmp_path, {}, "Video_00001.mp4")
    with pytest.raises(ManifestError, match="absent is not a folder"):
        prepare_benchmark("haa500", tmp_path / "absent", VideoFolder(tmp_path))
