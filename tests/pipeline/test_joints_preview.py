import json
import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image

from cache.errors import CacheError, ConfigError
from cache.skeletons import TOYOTA_13
from pipeline.commands.joints_preview import preview
from tests.extract.preview.people import failed_rows, frame_rows, joint_rows, write_cache


def run(*words: object) -> None:
    preview.main([str(word) for word in words], standalone_mode=False)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    joints = [joint_rows("good"), joint_rows("gone", valid=(0, 0, 1, 0)), failed_rows("failed")]
    return write_cache(tmp_path / "cache", joints, [frame_rows(rows.clip_id) for rows in joints]).folder


def test_a_clip_becomes_a_picture_or_a_film(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(cache, "--clip", "good", "-o", tmp_path / "good.png")
    with Image.open(tmp_path / "good.png") as picture:
        assert picture.format == "PNG"
    run(cache, "--clip", "good", "-o", tmp_path / "good.mp4")
    with av.open(str(tmp_path / "good.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 4
    assert f"wrote {tmp_path / 'good.mp4'}" in capsys.readouterr().out


def test_the_worst_clips_are_drawn_and_listed(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(cache, "--worst", 5, "-o", tmp_path / "worst.png", "--json")
    body = json.loads(capsys.readouterr().out)
    assert [(clip["clip_id"], clip["num_valid"], clip["valid_share"]) for clip in body["clips"]] == [
        ("gone", 1, 0.25),
        ("good", 4, 1.0),
    ]
    assert Path(body["output"]).exists()
    run(cache, "--worst", 1, "-o", tmp_path / "worst.png")
    assert capsys.readouterr().out.splitlines()[1].split() == ["gone", "1", "of", "4", "25%", "0.90"]


def test_imported_skeletons_without_frames_are_drawn_on_grey_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = joint_rows("a", valid=(3, 0, 3, 3), skeleton=TOYOTA_13)
    write_cache(tmp_path / "cache", [rows], skeleton="toyota_13")
    run(tmp_path / "cache", "--clip", "a", "-o", tmp_path / "a.mp4")
    assert "note: the cache has no stream `frames`: drawn on grey" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "a.png"), "--clip ID for one clip, or --worst N"),
        (("--clip", "good", "--worst", 2, "-o", "a.png"), "--clip ID for one clip, or --worst N"),
        (("--clip", "good", "-o", "a.gif"), r"must end in \.png or \.mp4"),
        (("--worst", 2, "-o", "a.mp4"), r"must end in \.png$"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_choices(cache: Path, words: tuple[object, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(cache, *words)


def test_a_cache_of_failed_clips_has_nothing_to_draw(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", [failed_rows("failed")])
    with pytest.raises(CacheError, match="no clip has joints"):
        run(tmp_path / "cache", "--worst", 3, "-o", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_drawing_loads_no_network(cache: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pipeline.commands.joints_preview import preview; "
        f"preview.main([{str(cache)!r}, '--worst', '1', '-o', {str(tmp_path / 'a.png')!r}], standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2], capture_output=True)
