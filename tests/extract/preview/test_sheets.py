from pathlib import Path

import numpy as np
import pytest

from cache.errors import CacheError
from cache.store import FeatureStore
from extract.preview.clip_view import Figure, read_clip
from extract.preview.lettering import font, shortened
from extract.preview.panel import draw_panel, outcome, panel_size, strip_height
from extract.preview.sheets import clip_sheet, spread, worst_sheet
from extract.preview.worst import quality, worst_clips
from tests.extract.preview.people import BACKGROUND, failed_rows, frame_rows, joint_rows, write_cache


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    joints = [
        joint_rows("good", score=0.9),
        joint_rows("doubtful", score=0.2),
        joint_rows("half gone", valid=(0, 1, 0, 1), score=0.9),
        joint_rows("gone", valid=(0, 0, 0, 0)),
        failed_rows("failed"),
    ]
    frames = [frame_rows(rows.clip_id) for rows in joints]
    return write_cache(tmp_path, joints, frames)


def test_the_worst_clips_miss_people_before_they_doubt_joints(store: FeatureStore) -> None:
    clips = worst_clips(store.joints, 9)
    assert [clip.clip_id for clip in clips] == ["gone", "half gone", "doubtful", "good"]
    assert [(clip.num_valid, clip.valid_share) for clip in clips] == [(0, 0.0), (2, 0.5), (4, 1.0), (4, 1.0)]
    assert [clip.mean_score for clip in clips] == pytest.approx([0, 0.9, 0.2, 0.9])
    assert worst_clips(store.joints, 2) == clips[:2]
    assert str(clips[0]) == "somebody in 0 of 4 frames (0%), mean score -"
    assert str(clips[1]) == "somebody in 2 of 4 frames (50%), mean score 0.90"


def test_a_missing_joint_counts_as_a_score_of_zero(store: FeatureStore) -> None:
    joints = store.joints["good"]
    score = joints.score.copy()
    score[:, 0] = 0
    changed = type(joints)(**{**vars(joints), "score": score})
    assert quality("good", changed).mean_score == pytest.approx(0.9 * 16 / 17)


def test_frames_with_nobody_are_dark_and_in_place(store: FeatureStore) -> None:
    view = read_clip(store, "half gone")
    panels = [np.asarray(draw_panel(view, figure, width=160, min_score=0.3)) for figure in view.figures]
    corners = [panel[-2, 2].astype(int) for panel in panels]
    for corner, figure in zip(corners, view.figures, strict=True):
        share = 1.0 if figure.valid else 0.45
        np.testing.assert_allclose(corner, share * np.array(BACKGROUND), atol=4)
    assert [figure.valid for figure in view.figures] == [0, 1, 0, 1]
    assert [outcome(figure, 0.3) for figure in view.figures[:2]] == ["nobody", "17/17 joints · mean 0.90"]


def test_imported_joints_are_called_so(tmp_path: Path) -> None:
    view = read_clip(write_cache(tmp_path, [joint_rows("a", valid=(3,), score=0.2)]), "a")
    assert outcome(view.figures[0], 0.3) == "imported · 0/17 joints · mean 0.20"


def test_a_panel_keeps_the_aspect_of_the_video(store: FeatureStore) -> None:
    view = read_clip(store, "good")
    assert panel_size(view, 400) == (400, 300 + strip_height(400))
    assert draw_panel(view, view.figures[0], width=400, min_score=0.3).size == panel_size(view, 400)


def test_instants_are_spread_from_the_first_to_the_last(store: FeatureStore) -> None:
    figure = read_clip(store, "good").figures[0]
    many: list[Figure] = [type(figure)(**{**vars(figure), "frame_index": index}) for index in range(64)]
    shown = [one.frame_index for one in spread(many, 16)]
    assert len(set(shown)) == 16
    assert (shown[0], shown[-1]) == (0, 63)
    assert max(np.diff(shown)) - min(np.diff(shown)) <= 1
    assert spread(many[:3], 16) == many[:3]
    assert spread([], 16) == []


def test_the_sheet_of_a_clip_shows_its_instants(store: FeatureStore) -> None:
    sheet = clip_sheet(read_clip(store, "good"), quality("good", store.joints["good"]), min_score=0.3)
    pixels = np.asarray(sheet).astype(int)
    is_green = np.abs(pixels - BACKGROUND).max(axis=-1) < 6
    assert is_green.sum() > 4 * 0.5 * 400 * 300  # four pictures, people cover less than half
    assert sheet.width > 4 * 400


def test_the_sheet_of_the_worst_has_a_row_for_each(store: FeatureStore) -> None:
    clips = worst_clips(store.joints, 3)
    heights = [worst_sheet(store, clips[:count], min_score=0.3).height for count in (1, 2, 3)]
    assert heights[1] - heights[0] == heights[2] - heights[1] > 180
    assert len({worst_sheet(store, clips[:count], min_score=0.3).width for count in (1, 3)}) == 1


def test_a_frame_that_is_no_jpeg_is_refused_with_what_to_run(tmp_path: Path) -> None:
    store = write_cache(tmp_path, [joint_rows("a")], [frame_rows("a", content=b"nothing")])
    view = read_clip(store, "a")
    with pytest.raises(CacheError, match=r"frame 0 of 'a' is not a JPEG.*verify"):
        draw_panel(view, view.figures[0], width=100, min_score=0.3)


def test_long_names_are_cut_to_the_room() -> None:
    name = "a_clip_with_a_name_" * 20
    cut = shortened(name, 200, 14)
    assert cut.endswith("...")
    assert name.startswith(cut.removesuffix("..."))
    assert font(14).getlength(cut) <= 200
    assert shortened("short", 200, 14) == "short"
