"""Videos are found by the end of their path, wherever they were unpacked."""

import errno
import os
from pathlib import Path

import pytest

from cache.errors import ManifestError
from pipeline.datasets.videos import VideoFolder


def touch(root: Path, *names: str) -> VideoFolder:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return VideoFolder(root)


@pytest.mark.parametrize("prefix", ["", "BreakfastII/", "a/b/"])
def test_a_video_is_found_below_any_folder_and_with_any_ending(tmp_path: Path, prefix: str) -> None:
    videos = touch(tmp_path, f"{prefix}P03/cam01/P03_tea.AVI", f"{prefix}P03/cam02/P03_tea.mkv")
    assert videos.locate("P03/cam01/P03_tea") == f"{prefix}P03/cam01/P03_tea.AVI"
    assert videos.locate("P03/cam02/P03_tea", suffix=".avi") == f"{prefix}P03/cam02/P03_tea.mkv"


def test_the_end_of_a_path_is_whole_names(tmp_path: Path) -> None:
    videos = touch(tmp_path, "xP03/tea.mp4", "1/-a_b.c.mp4")
    assert videos.find("P03/tea") is None
    assert videos.find("ea") is None
    assert videos.find("-a_b.c") == "1/-a_b.c.mp4"


def test_the_first_place_that_is_there_counts(tmp_path: Path) -> None:
    videos = touch(tmp_path, "deep/er/a.mp4", "v480/a.mp4")
    assert videos.locate("v/a", "v480/a", "a") == "v480/a.mp4"
    assert videos.find("er/a") == "deep/er/a.mp4"


@pytest.mark.parametrize("other", ["flow/rgb/a.mp4", "rgb/a.avi"])
def test_what_is_there_twice_is_not_chosen_between(tmp_path: Path, other: str) -> None:
    videos = touch(tmp_path, "rgb/a.mp4", other, "b.mp4")
    with pytest.raises(ManifestError, match=r"holds rgb/a 2 times .*rgb/a\.mp4.*: give --videos the folder of one"):
        videos.locate("rgb/a", "a")
    assert videos.find("b") == "b.mp4"


def test_an_accent_is_one_letter_in_either_unicode_form(tmp_path: Path) -> None:
    videos = touch(tmp_path, "caf\u0065\u0301/a.mp4")
    assert videos.find("caf\u00e9/a") == "caf\u0065\u0301/a.mp4"


def test_a_folder_that_may_not_be_read_is_told_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(PermissionError, match="closed"):
        VideoFolder(tmp_path)


def test_a_missing_video_has_the_path_it_should_have(tmp_path: Path) -> None:
    videos = touch(tmp_path, "other.mp4")
    assert videos.locate("131/-x", "-x") == "131/-x.mp4"
    assert videos.locate("P03/a", suffix=".avi") == "P03/a.avi"
    assert "131/-x.mp4" not in videos


def test_hidden_files_and_folders_and_other_files_are_no_videos(tmp_path: Path) -> None:
    videos = touch(tmp_path, ".a.mp4", ".trash/b.mp4", "c.txt", "d.mp4.part", "e.mp4", "f.mp4/g.webm")
    assert videos.paths == {"e.mp4", "f.mp4/g.webm"}


def test_links_are_followed_and_a_circle_of_them_ends(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "a.mp4")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    assert VideoFolder(root).paths == {"linked/a.mp4"}


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="--videos takes the folder"):
        VideoFolder(tmp_path / "none")
