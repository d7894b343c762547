"""Thumbnails from the cache: the right frames, small, and a reason where there are none."""

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cache.run import Run
from evaluate.pictures import Pictures
from evaluate.report import write_report
from tests.evaluate import toy_runs
from tests.evaluate.toy_frames import frames_cache

CLIPS = [f"iid-{number:03d}" for number in range(60)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    frames_cache(tmp_path / "cache", CLIPS)
    return toy_runs.run(tmp_path / "run", splits=("iid",), skill=0.5, cache_folder=str(tmp_path / "cache"))


def _pictures(run: Run, cache: Path | None = None) -> tuple[int, str]:
    """How many pictures the page has, and its text."""
    folder = run.path.parent / "out"
    write_report([run], folder, num_resamples=10, cache=cache)
    page = (folder / "index.html").read_text()
    return page.count('src="data:image/jpeg;base64,'), page


def test_a_strip_shows_three_frames_in_the_order_of_time_and_takes_a_few_kilobytes(run: Run) -> None:
    strip = Pictures.of(run).three_frames("iid-000")
    assert strip is not None
    assert len(strip) < 4000
    image = Image.open(io.BytesIO(strip)).convert("RGB")
    assert image.height == 72
    reds = [image.getpixel((int(place * image.width), 36))[0] for place in (1 / 6, 3 / 6, 5 / 6)]  # type: ignore[index]
    assert reds == pytest.approx([40, 120, 200], abs=6)  # of six frames the second, fourth and sixth


def test_the_page_has_a_picture_of_every_clip_that_it_lists(run: Run) -> None:
    found, page = _pictures(run)
    assert found == 8
    assert "No pictures" not in page


def test_pictures_are_the_same_twice(run: Run) -> None:
    assert Pictures.of(run).three_frames("iid-001") == Pictures.of(run).three_frames("iid-001")


def test_a_cache_that_moved_can_be_given_and_one_that_is_gone_leaves_the_list_and_a_reason(run: Run) -> None:
    moved = run.path.parent / "elsewhere"
    shutil.move(run.path.parent / "cache", moved)
    found, page = _pictures(run)
    assert found == 0
    assert "No pictures: " in page
    assert "--cache" in page
    assert '<td class="short">iid-' in page  # the same clips, in a table
    assert _pictures(run, cache=moved)[0] == 8


def test_dropped_frames_are_said_and_a_clip_without_frames_stands_in_the_table(run: Run) -> None:
    cache = run.path.parent / "cache"
    shutil.rmtree(cache / "frames")
    assert "has no stream &#x27;frames&#x27;" in _pictures(run)[1]
    shutil.rmtree(cache)
    wrong = [
        clip["clip_id"]
        for clip in write_report([run], run.path.parent / "out", num_resamples=10)["runs"][0]["splits"]["iid"][
            "worst_clips"
        ]
    ]
    frames_cache(cache, [name for name in CLIPS if name != wrong[2]])
    found, page = _pictures(run)
    assert found == 7
    assert f'<td class="short">{wrong[2]}</td>' in page


def test_bytes_that_are_no_picture_give_none(run: Run) -> None:
    shard = min((run.path.parent / "cache" / "frames").glob("*.h5"))
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"\xff\xd8\xff\xe0", b"\x00\x00\x00\x00"))
    assert Pictures.of(run).three_frames("iid-000") is None
