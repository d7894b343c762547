"""A file that is there at the first look may be gone at the second."""

from pathlib import Path

import pytest

from cache.errors import FailureCode, VideoError
from extract.video.container import open_container
from extract.video.source_file import check_file, source_identity


@pytest.mark.parametrize("name", ["gone.mp4", "gone-\udcff.mp4"])
def test_a_file_that_vanishes_after_the_check_is_missing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"0" * 100)
    check_file(path)
    path.unlink()
    with pytest.raises(VideoError, match="no such file") as caught, open_container(path):
        pass
    assert caught.value.code == FailureCode.MISSING
    with pytest.raises(VideoError) as caught:
        source_identity(path)
    assert caught.value.code == FailureCode.MISSING


def test_a_file_that_vanishes_while_ffmpeg_complains_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text.mp4"
    path.write_bytes(b"not a video" * 10)

    def opened(*_args: object, **_options: object) -> None:
        path.unlink()
        raise ValueError("no container")

    monkeypatch.setattr("extract.video.container.av.open", opened)
    with pytest.raises(VideoError) as caught, open_container(path):
        pass
    assert caught.value.code == FailureCode.MISSING
