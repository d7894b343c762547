import json
from pathlib import Path

import numpy as np
import pytest

from cache.errors import ManifestError
from cache.manifest import Clip, Dataset, Task
from tests.toys import ACTIVITY, ATOMIC, toy_dataset


def test_a_dataset_written_and_read_is_the_same(tmp_path: Path) -> None:
    dataset = toy_dataset(video_root=tmp_path / "videos")
    dataset.write(tmp_path / "dataset")
    again = Dataset.read(tmp_path / "dataset")
    assert again.clips == dataset.clips
    assert again.tasks == dataset.tasks
    assert again.protocols == dataset.protocols
    assert again.video_root.resolve() == (tmp_path / "videos").resolve()


def test_a_video_root_beside_the_dataset_moves_along_with_it(tmp_path: Path) -> None:
    toy_dataset(video_root=tmp_path / "here" / "videos").write(tmp_path / "here" / "dataset")
    (tmp_path / "here").rename(tmp_path / "there")
    root = Dataset.read(tmp_path / "there" / "dataset").video_root
    assert root.resolve() == (tmp_path / "there" / "videos").resolve()


def test_the_video_root_can_be_rebound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_dataset().write(tmp_path)
    monkeypatch.setenv("DECONFOUND_VIDEOS", "/elsewhere")
    assert Dataset.read(tmp_path).video_root == Path("/elsewhere")
    assert Dataset.read(tmp_path, videos=Path("/given")).video_root == Path("/given")


def test_targets_are_indices_for_one_label_and_indicators_for_many() -> None:
    dataset = toy_dataset(4)
    assert dataset.targets(ACTIVITY, dataset.clips).tolist() == [0, 1, 2, 0]
    assert dataset.targets(ATOMIC, dataset.clips).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]]
    assert dataset.targets(ATOMIC, dataset.clips).dtype == np.uint8


def test_targets_of_an_unlabelled_clip_are_refused() -> None:
    clip = Clip(id="bare", video="bare.mp4")
    with pytest.raises(ManifestError, match="'bare' has no label for task 'activity'"):
        toy_dataset().targets(ACTIVITY, [clip])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": "../outside.mp4"}, "without '..'"),
        ({"video": "/etc/passwd"}, "without '..'"),
        ({"video": "C:/a.mp4"}, "a ':' in its first part"),
        ({"video": "..\\a.mp4"}, "a backslash"),
        ({"video": "."}, "must be a path"),
        ({"id": ""}, "non-empty"),
        ({"id": 3}, "must be texts"),
        ({"start_seconds": 3.0, "end_seconds": 3.0}, "do not make a piece"),
        ({"end_seconds": float("nan")}, "finite"),
    ],
)
def test_a_clip_that_makes_no_sense_is_refused(change: dict[str, str | float], message: str) -> None:
    values: dict[str, object] = {"id": "a", "video": "a.mp4", **change}
    with pytest.raises(ManifestError, match=message):
        Clip(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([Clip(id="\u00e9", video="1.mp4"), Clip(id="e\u0301", video="2.mp4")], "ids must be unique"),
        ([Clip(id="a", video="1.mp4", labels={"activity": ("soup",)})], "not classes of task 'activity'"),
        ([Clip(id="a", video="1.mp4", labels={"activity": ("tea", "egg")})], "exactly one class"),
        ([Clip(id="a", video="1.mp4", labels={"colour": ("red",)})], "the tasks are"),
        ([Clip(id="a", video="1.mp4", splits={"default": "dev"})], "split 'dev' is not one of"),
        ([Clip(id="a", video="1.mp4", splits={"fold1": "train"})], "protocol 'fold1' is not one of"),
    ],
)
def test_a_dataset_that_contradicts_itself_is_refused(clips: list[Clip], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        Dataset(
            name="toy",
            version="1",
            tasks=(ACTIVITY,),
            protocols={"default": ("train",)},
            clips=tuple(clips),
            video_root=Path(),
        )


def test_a_task_with_a_class_twice_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"appear twice: \['a'\]"):
        Task(name="t", kind="single", class_names=("a", "a"), prompts=("a", "a"))


def test_errors_in_clips_name_file_and_line(tmp_path: Path) -> None:
    toy_dataset(2).write(tmp_path)
    with (tmp_path / "clips.jsonl").open("a") as file:
        file.write(json.dumps({"id": "x", "video": "x.mp4", "fps": 3}) + "\n")
    with pytest.raises(ManifestError, match=r"clips\.jsonl, line 3: .*fps"):
        Dataset.read(tmp_path)


def test_a_folder_without_a_dataset_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="deconfound prepare"):
        Dataset.read(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "x", "video": "x.mp4", "labels": {"activity": "tea"}}', r"labels\.activity: expected a list of texts"),
        ('{"id": "x", "video": "x.mp4", "labels": {"activity": [["tea"]]}}', "expected a list of texts"),
        ('{"id": "x", "video": "x.mp4", "groups": []}', "groups: expected an object"),
        ('{"id": 5, "video": "x.mp4"}', "must be texts"),
        ("[]", "line 3"),
        ("{", "line 3"),
    ],
)
def test_values_of_another_type_are_refused_with_their_line(tmp_path: Path, line: str, message: str) -> None:
    toy_dataset(2).write(tmp_path)
    with (tmp_path / "clips.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ManifestError, match=message) as error:
        Dataset.read(tmp_path)
    assert "line 3" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("protocols", []), ("protocols", {"default": "train"}), ("tasks", 3), ("tasks", [{"name": "a"}])],
)
def test_a_header_of_another_shape_is_refused(tmp_path: Path, key: str, value: object) -> None:
    toy_dataset(2).write(tmp_path)
    header = json.loads((tmp_path / "dataset.json").read_text())
    header[key] = value
    (tmp_path / "dataset.json").write_text(json.dumps(header))
    with pytest.raises(ManifestError):
        Dataset.read(tmp_path)


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    name = b"bad\xff.mp4".decode("utf-8", "surrogateescape")
    dataset = Dataset(
        name="toy", version="1", tasks=(), protocols={}, clips=(Clip(id=name, video=name),), video_root=tmp_path
    )
    dataset.write(tmp_path)
    assert Dataset.read(tmp_path).clips == dataset.clips
