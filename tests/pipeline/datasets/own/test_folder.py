from pathlib import Path

import pytest

from cache.errors import ConfigError, ManifestError
from cache.manifest import Dataset
from pipeline.datasets.own.clips import Wishes
from pipeline.datasets.own.folder import prepare_folder
from pipeline.datasets.preparation import Preparation
from pipeline.datasets.videos import VideoFolder


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def prepared(root: Path, prompt: str = "{}", test_fraction: float | None = None) -> Preparation:
    return prepare_folder(VideoFolder(root), Wishes(prompt=prompt), test_fraction=test_fraction)


def held_out(dataset: Dataset) -> set[str]:
    return {clip.id for clip in dataset.clips if clip.splits["default"] == "test"}


def test_sub_folders_are_classes_and_a_share_of_each_is_held_out(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"{label}/{number}.mp4" for label in ("make_tea", "cut") for number in range(10)), "cut/notes.txt"
    )
    dataset = prepared(tmp_path, prompt="a video of {}").dataset
    assert dataset.name == tmp_path.name
    task = dataset.task("action")
    assert task.class_names == ("cut", "make_tea")
    assert task.prompts == ("a video of cut", "a video of make tea")
    test = dataset.select("default", "test")
    assert [dataset.targets(task, test).tolist().count(label) for label in (0, 1)] == [2, 2]
    assert len(dataset.select("default", "train")) == 16


def test_each_added_video_moves_at_most_one_other_of_its_class(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{label}/{number}.mp4" for label in ("cut", "fry") for number in range(10)))
    old = held_out(prepared(tmp_path).dataset)
    num_moved = 0
    for number in range(20):
        touch(tmp_path, f"cut/new {number}.mp4")
        new = held_out(prepared(tmp_path).dataset)
        moved = {name for name in old ^ new if name != f"cut/new {number}.mp4"}
        assert len(moved) <= 1
        assert not any(name.startswith("fry/") for name in moved)
        num_moved += len(moved)
        old = new
    assert num_moved  # so that nobody promises more


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, [0, 0, 0]), (0.3, [0, 1, 1]), (0.9, [0, 1, 3])])
def test_every_class_keeps_a_training_clip_and_those_without_a_test_clip_are_told(
    tmp_path: Path, fraction: float, expected: list[int]
) -> None:
    touch(
        tmp_path, *(f"{label}/{number}.mp4" for label, size in (("a", 1), ("b", 2), ("c", 4)) for number in range(size))
    )
    preparation = prepared(tmp_path, test_fraction=fraction)
    found = [name[0] for name in held_out(preparation.dataset)]
    assert [found.count(label) for label in "abc"] == expected
    told = "classes without a test clip: 1 (a)" if fraction else "no test split: hold out a larger share"
    assert preparation.notes[0].startswith(told)
    assert len(preparation.notes) == 1


@pytest.mark.parametrize(
    ("names", "why"), [(("train/a/1.mp4", "test/a/2.mp4"), "the folders say"), (("a.mp4",), "no classes")]
)
def test_a_fraction_is_refused_where_nothing_is_held_out(tmp_path: Path, names: tuple[str, ...], why: str) -> None:
    touch(tmp_path, *names)
    prepared(tmp_path)
    with pytest.raises(ConfigError, match=rf"--test-fraction 0\.2: .*{why}"):
        prepared(tmp_path, test_fraction=0.2)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_that_is_none_is_refused(tmp_path: Path, fraction: float) -> None:
    touch(tmp_path, "a/1.mp4")
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        prepared(tmp_path, test_fraction=fraction)


@pytest.mark.parametrize("prompt", ["", "a person", "{0}"])
def test_a_prompt_without_a_place_for_the_class_is_refused(prompt: str) -> None:
    with pytest.raises(ConfigError, match=r"--prompt .*needs \{\}"):
        Wishes(prompt=prompt)


def test_folders_without_videos_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *(f"cut/{number}.mp4" for number in range(5)), "fry/notes.txt", ".git/config", "lost+found/x.txt")
    (tmp_path / "bake" / "burn").mkdir(parents=True)
    assert prepared(tmp_path).notes[0].startswith("folders without videos: 2 (bake, fry); known endings: .3gp .asf")
    touch(tmp_path / "splits", "Train/cut/1.mp4", "Train/fry/a.txt", "TEST/cut/2.mp4", "val/x/a.txt")
    assert prepared(tmp_path / "splits").notes[0].startswith("folders without videos: 2 (val, Train/fry);")


def test_splits_given_by_folders_are_kept(tmp_path: Path) -> None:
    touch(tmp_path, "Train/a/1.mp4", "val/a/2.mp4", "TEST/b/3.avi")
    preparation = prepared(tmp_path)
    assert preparation.dataset.protocols == {"default": ("train", "validation", "test")}
    assert [clip.id for clip in preparation.dataset.select("default", "validation")] == ["val/a/2.mp4"]
    assert preparation.dataset.task("action").class_names == ("a", "b")
    assert preparation.notes == ("classes without a test clip: 1 (a)",)


def test_folders_without_a_test_split_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.mp4", "val/a/2.mp4")
    assert prepared(tmp_path).notes[0].startswith("no test split: ")


def test_a_flat_folder_is_one_unlabelled_split(tmp_path: Path) -> None:
    touch(tmp_path, "-b.MP4", "a b.mkv", ".hidden.mp4")
    preparation = prepared(tmp_path)
    dataset = preparation.dataset
    assert (dataset.tasks, preparation.notes) == ((), ())
    assert [clip.id for clip in dataset.select("default", "all")] == ["-b.MP4", "a b.mkv"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds no videos"),
        (("a.mp4", "b/c.mp4"), r"mixes layouts \(a\.mp4, b/c\.mp4\)"),
        (("x/y/z.mp4", "train/y/z.mp4"), r": x would be splits \(.*\), but splits are named train, training, val"),
        (("train/a/b/1.mp4",), r"videos lie too deep \(train/a/b/1\.mp4\)"),
        (
            ("train/a.mp4", "Val/b.mp4", "test/c.mp4"),
            "Val, test, train would be classes, but these are names of splits",
        ),
    ],
)
def test_folders_without_a_layout_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(ManifestError, match=message):
        prepared(tmp_path)


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="not a folder"):
        prepared(tmp_path / "nowhere")
