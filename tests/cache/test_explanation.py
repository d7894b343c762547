"""Explanations: sizes agree over all parts, weights are weights, and a file is what was written or is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.array_file import read
from cache.errors import CorruptShard
from cache.explanation import Explanation, arrays_of
from cache.explanation_file import read_explanation, write_explanation
from cache.run import Run
from tests.cache.explanations import CLASSES, CLIPS, FRAMES, explanation, interventions, normal, weights
from tests.toys import toy_run_info

BARE: dict[str, Any] = {
    "interventions": None,
    "patches": None,
    "matching": None,
    "pose": None,
    "frame_words": None,
    "pictures": (),
}


def same(first: Explanation, second: Explanation) -> bool:
    """Equal arrays and, without them, equal words."""
    arrays = [{name: array for name, _, array in arrays_of(item)} for item in (first, second)]
    bare: list[Any] = [replace(item, **without()) for item in (first, second)]
    equal = arrays[0].keys() == arrays[1].keys()
    equal &= all(np.array_equal(array, arrays[1][name]) for name, array in arrays[0].items())
    return equal and repr(bare[0]) == repr(bare[1]) and first.pictures == second.pictures


def without() -> dict[str, Any]:
    """All parts but the pictures switched off."""
    return {name: None for name in BARE if name != "pictures"}


@pytest.mark.parametrize("changes", [{}, BARE, {"interventions": interventions(back_door=None, relation_graphs=None)}])
def test_a_file_gives_back_what_was_written(tmp_path: Path, changes: dict[str, object]) -> None:
    written = explanation(**changes)
    write_explanation(written, tmp_path / "a.h5")
    found = read_explanation(tmp_path / "a.h5")
    assert same(written, found)
    for name in BARE:
        assert (getattr(found, name) is None) == (getattr(written, name) is None)
    if not changes:
        assert found.interventions is not None
        assert found.interventions.is_plan
        assert found.matching is not None
        assert (found.matching.rows, found.matching.temperature) == (("tea", "toast"), 0.01)
        assert found.frame_words is not None
        assert found.frame_words.words == (("take", "cup"), ("pour",), ("stir",), ("cut", "bread"))
        assert found.notices == ("random weights",)
        assert found.clip_pictures(1) == written.pictures[FRAMES:]


def test_equal_explanations_give_equal_files_of_plain_arrays(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        write_explanation(explanation(), tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    arrays, _ = read(tmp_path / "a.h5")  # the audit of every file of a cache: contiguous, no links, no vlen
    assert arrays["interventions.relation_graphs"].dtype == np.float16
    assert arrays["interventions.back_door"].dtype == np.float32


@pytest.mark.parametrize("name", ["patches.attention", "pictures", "about", "matching.counts"])
def test_a_changed_byte_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.h5"
    write_explanation(explanation(), path)
    arrays, _ = read(path)
    data = path.read_bytes()
    place = data.index(arrays[name].tobytes())
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(CorruptShard, match="predict --explain"):
        read_explanation(path)


def test_a_cut_file_and_another_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_explanation(explanation(), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptShard):
        read_explanation(path)
    run = Run.create(tmp_path / "run", toy_run_info(), {})
    assert run.explanation("test") is None
    frozen = Path(__file__).parent / "formats-v1" / "run" / "predictions" / "test.h5"
    run.explanation_path("test").parent.mkdir()
    run.explanation_path("test").write_bytes(frozen.read_bytes())
    with pytest.raises(CorruptShard, match="sha256"):
        run.explanation("test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": normal(CLIPS, CLASSES + 1, seed=0)}, r"logits has shape \(2, 5\), expected \(m, C\) with C = 4"),
        (
            {"interventions": interventions(back_door=normal(CLIPS, CLASSES, FRAMES, seed=0))},
            "back_door must be weights",
        ),
        (
            {"interventions": interventions(front_door=2 * weights(CLIPS, CLASSES, FRAMES, seed=0))},
            "front_door must be weights",
        ),
        (
            {"interventions": interventions(front_door=weights(CLIPS, CLASSES, FRAMES + 1, seed=0))},
            r"front_door has shape \(2, 4, 5\), expected \(m, C, L\) with L = 4",
        ),
        ({"interventions": interventions(text=np.full((CLASSES, 6), np.nan, np.float32))}, "text holds NaN"),
        ({"pictures": (b"x",)}, "1 pictures for 8 frames"),
        ({"shown": np.array([[0, 1, 4], [0, 1, 2]])}, "outside 0..3"),
        ({"pts_seconds": np.zeros(4)}, r"pts_seconds has shape \(4,\)"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explanation(**changes)
