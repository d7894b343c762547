from pathlib import Path

import pytest

from cache.errors import ManifestError
from pipeline.datasets.own.folder import prepare_folder
from pipeline.datasets.videos import VideoFolder


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_sub_folders_are_classes_and_a_share_of_each_is_held_out(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"{label}/{number}.mp4" for label in ("make_tea", "cut") for number in range(10)), "cut/notes.txt"
    )
    dataset = prepare_folder(VideoFolder(tmp_path), prompt="a video of {}")
    task = dataset.task("action")
    assert task.class_names == ("cut", "make_tea")
    assert task.prompts == ("a video of cut", "a video of make tea")
    test = dataset.select("default", "test")
    assert [dataset.targets(task, test).tolist().count(label) for label in (0, 1)] == [2, 2]
    assert len(dataset.select("default", "train")) == 16


def test_adding_a_video_moves_at_most_the_borderline_ones(tmp_path: Path) -> None:
    touch(tmp_path, *(f"cut/{number}.mp4" for number in range(10)))
    before = {clip.id for clip in prepare_folder(VideoFolder(tmp_path)).select("default", "test")}
    touch(tmp_path, "cut/new.mp4")
    after = {clip.id for clip in prepare_folder(VideoFolder(tmp_path)).select("default", "test")}
    assert len(before ^ after) <= 2


def test_splits_given_by_folders_are_kept(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.mp4", "val/a/2.mp4", "test/b/3.avi")
    dataset = prepare_folder(VideoFolder(tmp_path))
    assert dataset.protocols == {"default": ("train", "validation", "test")}
    assert [clip.id for clip in dataset.select("default", "validation")] == ["val/a/2.mp4"]


def test_a_flat_folder_is_one_unlabelled_split(tmp_path: Path) -> None:
    touch(tmp_path, "-b.MP4", "a b.mkv", ".hidden.mp4")
    dataset = prepare_folder(VideoFolder(tmp_path))
    assert dataset.tasks == ()
    assert [clip.id for clip in dataset.select("default", "all")] == ["-b.MP4", "a b.mkv"]


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "holds no videos"), (("a.mp4", "b/c.mp4"), "mixes layouts"), (("x/y/z.mp4",), "mixes layouts")],
)
def test_folders_without_a_layout_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(ManifestError, match=message):
        prepare_folder(VideoFolder(tmp_path))


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="not a folder"):
        prepare_folder(VideoFolder(tmp_path / "nowhere"))
