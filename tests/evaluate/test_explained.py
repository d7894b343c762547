"""Numbers of explanations and the page made of them: hand-computed, equal to the JSON, silent where there is none."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import atomic
from cache.errors import CorruptShard
from cache.explanation import Explanation
from cache.explanation_file import write_explanation
from cache.run import Run
from evaluate import explained_page, figures
from evaluate.explained import describes, explained
from evaluate.explained_page import add_explanations
from evaluate.page import Page
from evaluate.report import write_report
from tests.cache.explanations import CLASS_NAMES, explanation, interventions, weights
from tests.evaluate import toy_runs
from tests.evaluate.page_reader import ReadPage, leaves, printed_forms


def explained_run(folder: Path, **changes: Any) -> tuple[Run, Explanation]:  # noqa: ANN401
    """A run of four atomic actions whose explanation is of its own logits."""
    run = toy_runs.run(folder, kind="multi", splits=("test",), class_names=CLASS_NAMES)
    predictions = run.predictions("test")
    rows = [3, 7]
    found = explanation(
        clip_ids=tuple(predictions.clip_ids[row] for row in rows),
        logits=predictions.logits[rows],
        targets=predictions.targets[rows],
        run_name=folder.name,
        **changes,
    )
    write_explanation(found, run.explanation_path("test"))
    return run, found


def numbers_of(run: Run) -> dict[str, Any]:
    return explained(run, {"test": run.predictions("test")})["test"]


def test_frames_used_is_one_for_a_single_frame_and_all_for_even_weights(tmp_path: Path) -> None:
    single = np.zeros((2, 4, 4), np.float32)
    single[..., 2] = 1
    even = np.full((2, 4, 4), 0.25, np.float32)
    run, _ = explained_run(tmp_path / "run", interventions=interventions(back_door=single, front_door=even))
    found = numbers_of(run)
    assert found["frames_used"] == {"back_door": pytest.approx(1, abs=1e-6), "front_door": pytest.approx(4)}
    assert found["frames"] == 4


def test_numbers_are_those_of_the_explanation(tmp_path: Path) -> None:
    run, item = explained_run(tmp_path / "run")
    found = numbers_of(run)
    assert found["is_current"]
    assert [clip["id"] for clip in found["clips"]] == list(item.clip_ids)
    clip, parts = found["clips"][1], item.interventions
    assert parts is not None
    assert parts.back_door is not None
    assert clip["true"] == [name for name, is_true in zip(CLASS_NAMES, item.targets[1], strict=True) if is_true]
    best = np.argsort(-item.logits[1])[: max(1, int(item.targets[1].sum()))]
    assert clip["predicted"] == [CLASS_NAMES[number] for number in best]
    assert clip["shown"][0]["class"] == CLASS_NAMES[item.shown[1, 0]]
    np.testing.assert_allclose(clip["shown"][0]["back_door"], parts.back_door[1, item.shown[1, 0]])
    assert item.matching is not None
    assert found["matching"]["on_own"] == pytest.approx({"cached": 0.5, "trained": 0.6, "corrected": 0.7})
    np.testing.assert_allclose(found["matching"]["probabilities"]["corrected"], item.matching.probabilities[2])
    assert sum(found["joints"].values()) == pytest.approx(1)


def test_what_a_method_has_not_is_null(tmp_path: Path) -> None:
    run, _ = explained_run(tmp_path / "run", interventions=None, matching=None, pose=None, patches=None)
    found = numbers_of(run)
    assert (found["matching"], found["joints"]) == (None, None)
    assert found["frames_used"] == {"back_door": None, "front_door": None}
    assert found["clips"][0]["shown"][0]["back_door"] is None


def test_an_explanation_of_other_weights_is_named_and_not_shown(tmp_path: Path) -> None:
    run, item = explained_run(tmp_path / "run")
    predictions = run.predictions("test")
    assert describes(item, predictions)
    assert describes(replace(item, logits=item.logits + 1e-4), predictions)
    assert not describes(replace(item, logits=item.logits + 0.5), predictions)
    assert not describes(replace(item, clip_ids=("a", "b")), predictions)
    assert not describes(replace(item, class_names=("a", "b", "c", "d")), predictions)
    write_explanation(replace(item, logits=item.logits + 0.5), run.explanation_path("test"))
    assert numbers_of(run) == {"is_current": False}
    write_report([run], tmp_path / "out", num_resamples=5)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "of other weights than the predictions" in page
    assert "<img" not in page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one run, in a folder `out` beside it."""
    folder = tmp_path_factory.mktemp("explained")
    write_report([explained_run(folder / "run")[0]], folder / "out", num_resamples=5)
    return folder / "out"


def test_the_page_shows_every_part_and_each_picture_says_what_it_is(report: Path) -> None:
    page = (report / "index.html").read_text()
    inside = page[page.index("Inside the runs</h2>") :]
    assert inside.count("<img") == 2
    assert inside.count("<svg") == 3 + 2 * 2  # matching, relations, joints; per clip: weights, words
    for words in (
        "Fig. 1c and 5c",
        "Fig. 5a-b",
        "Relation bases G_k",
        "transport plan",
        "Eq. 1",
        "frame-word",
        "Evidence",
    ):
        assert words in inside, words
    for image in re.findall(r"<img[^>]*>", page):
        assert 'src="data:image/jpeg;base64,' in image
        assert re.search('alt="[^"]+"', image)
    assert "random weights" in inside  # the notice that the explanation carries


def test_every_number_of_the_tables_is_in_metrics_json(report: Path) -> None:
    page = ReadPage((report / "index.html").read_text())
    cells = [cell for table in page.tables for row in table.rows for cell in row]
    found = list(leaves(json.loads((report / "metrics.json").read_text())))
    known = set().union(*map(printed_forms, found)) | {"1", "5", "95"}
    known |= {f"{leaf:.1f}" for leaf in found if isinstance(leaf, float)}  # frames used are no shares
    numbers = re.findall(r"(?<![\w.-])\d+(?:\.\d+)?(?:e-\d+)?(?![\w.])", " ".join(cells))
    assert len(numbers) > 20
    assert sorted(set(numbers) - known) == []


def test_equal_explanations_give_equal_pages(report: Path, tmp_path: Path) -> None:
    write_report([explained_run(tmp_path / "run")[0]], tmp_path / "out", num_resamples=5)
    for file in ("index.html", "metrics.json"):
        assert (tmp_path / "out" / file).read_bytes() == (report / file).read_bytes()


def test_runs_without_explanations_get_no_section(tmp_path: Path) -> None:
    run = toy_runs.run(tmp_path / "run", kind="multi", splits=("test",))
    body = write_report([run], tmp_path / "out", num_resamples=5)
    assert body["runs"][0]["explained"] == {}
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Inside the runs" not in page
    assert "Predicted together" in page  # logits alone are enough for that


def test_hostile_names_stay_texts(tmp_path: Path) -> None:
    names = ("<script>x</script>", '" onload="x', "$x$", "a\nb")
    run = toy_runs.run(tmp_path / "run", kind="multi", splits=("test",), class_names=names)
    predictions = run.predictions("test")
    found = explanation(
        class_names=names, clip_ids=predictions.clip_ids[:2], logits=predictions.logits[:2],
        targets=predictions.targets[:2], notices=("<b>bold",),
    )  # fmt: skip
    write_explanation(found, run.explanation_path("test"))
    write_report([run], tmp_path / "out", num_resamples=5)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert not re.search(r"<[^>]*\sonload=", page)


def test_a_damaged_explanation_stops_the_report_with_advice(tmp_path: Path) -> None:
    run, _ = explained_run(tmp_path / "run")
    path = run.explanation_path("test")
    data = path.read_bytes()
    place = data.index(b"\xff\xd8\xff") + 20
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(CorruptShard, match="predict --explain"):
        write_report([run], tmp_path / "out", num_resamples=5)


def test_a_page_shows_few_clips_and_says_where_the_others_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explained_page, "_MOST_CLIPS", 1)
    monkeypatch.setattr(explained_page, "_FEWEST_CLIPS", 1)
    run, _ = explained_run(tmp_path / "run")
    page = Page("x")
    add_explanations(page, [run], [{"label": "run", "explained": {"test": numbers_of(run)}}])
    assert page.html().count("<img") == 1
    assert "1 clip: frames, maps and weights (1 more in the run&#x27;s explanations folder)" in page.html()


def test_weights_over_many_frames_are_added_up_in_groups(tmp_path: Path) -> None:
    frames = 40
    run, item = explained_run(
        tmp_path / "run",
        interventions=interventions(
            visual_prompts=np.zeros((2, frames, 6), np.float32),
            back_door=weights(2, 4, frames, seed=0),
            front_door=None,
            relation_graphs=None,
        ),
        patches=None,
        pose=None,
        frame_words=None,
        pictures=(),
        pts_seconds=np.tile(np.arange(frames) / 4, (2, 1)),
        frame_index=np.tile(np.arange(frames), (2, 1)),
    )
    write_report([run], tmp_path / "out", num_resamples=5)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Neighbouring frames are added up." in page
    assert len(numbers_of(run)["clips"][0]["shown"][0]["back_door"]) == frames
    assert atomic.read_json(tmp_path / "out" / "metrics.json")["runs"][0]["explained"]["test"]["frames"] == frames
    assert item.pictures == ()


def test_a_hundredth_of_a_point_is_the_finest_that_figures_keep() -> None:
    svg = figures.class_bars({"a": 33.333333, "b": 66.666666}, x_label="x")
    assert not re.search(r"\d\.\d{3}", svg)
    assert "\n" not in svg
