"""Every bad input gets the code of its cause, every odd one exactly the frames that the ffmpeg program shows."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cache.errors import FailureCode
from cache.store import FeatureStore
from tests.extract import ffmpeg_program
from tests.extract.faults import bad_inputs
from tests.extract.faults.bad_inputs import INPUTS, NUM_FRAMES, BadInput, Row
from tests.extract.kitchen import contents

SOME_FAILED = 3
LARGEST_JPEG_DIFFERENCE = 12.0
"""Mean grey levels; the pattern of the test videos is hard on JPEG. Other frames of them differ by 30."""
pytestmark = pytest.mark.slow


class Kitchen:
    """All inputs, run once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache"
        self.given = bad_inputs.make_inputs(folder)
        self.ended = bad_inputs.run_extraction(folder)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    return Kitchen(tmp_path_factory.mktemp("bad"))


def wrong(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.outcome != row.expected]


def test_every_input_gets_its_row_and_the_run_its_exit_code(kitchen: Kitchen) -> None:
    assert kitchen.ended.returncode == SOME_FAILED, kitchen.ended.stderr
    assert "Traceback" not in kitchen.ended.stderr
    rows = bad_inputs.file_rows(kitchen.given, kitchen.cache)
    assert wrong(rows) == []
    assert len(rows) >= 80
    assert all(len(row.message) > 9 for row in rows)
    contents(kitchen.cache)


def test_decoders_that_hang_or_die_cost_one_video() -> None:
    rows = bad_inputs.stuck_rows()
    assert wrong(rows) == []
    assert len(rows) == len(bad_inputs.STUCK)


def test_lines_of_a_manifest_that_make_no_sense_are_refused() -> None:
    assert wrong(bad_inputs.refused_rows()) == []


def test_every_code_of_a_video_has_an_input() -> None:
    """Except those that a video alone cannot cause, and one that no decoder gives now."""
    outcomes = {one.outcome for one in INPUTS} | {outcome for _, outcome in bad_inputs.STUCK.values()}
    elsewhere = {FailureCode.NO_BOXES, FailureCode.NO_SKELETON, FailureCode.NON_FINITE, FailureCode.FRAME_COUNT}
    assert {code.value for code in FailureCode} - outcomes == {code.value for code in elsewhere}


def test_other_commands_survive_these_names_too(kitchen: Kitchen) -> None:
    plan = ("plan", kitchen.folder / "dataset", "--cache", kitchen.folder / "none", "--streams", "frames")
    status, verify = ("status", kitchen.cache), ("verify", kitchen.cache, "--deep")
    for words in (plan, (*plan, "--json"), status, (*status, "--json"), verify, (*verify, "--json")):
        ended = bad_inputs.run_command(*words)
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("one", [one for one in INPUTS if one.outcome == "ok"], ids=lambda one: ascii(one.name)[:40])
def test_frames_of_odd_inputs_are_those_of_the_ffmpeg_program(kitchen: Kitchen, one: BadInput) -> None:
    number = kitchen.given.index(one)
    reader, clip_id = FeatureStore.open(kitchen.cache).frames, f"{number:02d} {one.name}"
    path = kitchen.folder / "videos" / one.name
    told = ffmpeg_program.account(path)
    shown = told.index_at(instants(one, told.end_seconds))
    assert reader.frame_index(clip_id).tolist() == shown
    np.testing.assert_allclose(reader.pts_seconds(clip_id), told.seconds[shown], atol=2e-3)
    provenance = reader.provenance(clip_id)
    assert (provenance.height, provenance.width) == told.size
    around = {index + step for index in shown for step in (-1, 0, 1)} & set(range(len(told.seconds)))
    images = ffmpeg_program.frames(path, around, told.size)
    for index, jpeg in zip(shown, reader[clip_id], strict=True):
        ours = Image.open(io.BytesIO(jpeg))
        differences = {other: difference(ours, images[other]) for other in images if abs(other - index) <= 1}
        assert min(differences, key=lambda other: differences[other]) == index
        assert differences[index] < LARGEST_JPEG_DIFFERENCE


def instants(one: BadInput, end_of_video: float) -> npt.NDArray[np.float64]:
    """By the definition: the centres of equal pieces of the span."""
    start, end = one.start_seconds or 0.0, min(end_of_video, one.end_seconds or end_of_video)
    return start + (end - start) * (np.arange(NUM_FRAMES) + 0.5) / NUM_FRAMES


def difference(ours: Image.Image, theirs: npt.NDArray[np.uint8]) -> float:
    """Mean grey levels; frames are stored with a short side of at most 256 pixels."""
    picture = Image.fromarray(theirs)
    if picture.size != ours.size:
        picture = picture.resize(ours.size, Image.Resampling.BICUBIC)
    return float(np.abs(np.asarray(picture, np.int16) - np.asarray(ours, np.int16)).mean())


def test_an_unreadable_file_was_among_them(kitchen: Kitchen) -> None:
    if not bad_inputs.may_be_kept_out():
        pytest.skip("root reads every file, and there is no setpriv")
    assert "secret.mp4" in {one.name for one in kitchen.given}
    assert (kitchen.folder / "videos" / "secret.mp4").stat().st_mode & 0o777 == 0
