"""Which clips and classes are shown."""

import numpy as np
import pytest

from cache.errors import ConfigError
from cache.manifest import Clip
from train.clip_set import ClipSet
from train.explanations.choice import Choice, choice_of, shown_classes, spread


def clip_set(targets: list[object], *, split: str = "test", skipped: dict[str, str] | None = None) -> ClipSet:
    clips = tuple(Clip(id=f"{split}-{n}", video=f"{n}.mp4", splits={}, labels={}) for n in range(len(targets)))
    return ClipSet(split=split, clips=clips, targets=np.array(targets), skipped=skipped or {})


def test_clips_are_spread_over_the_classes_of_a_single_label_split() -> None:
    numbers = spread(clip_set([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2]), 4)
    assert numbers.tolist() == sorted(numbers)
    assert [[0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2][n] for n in numbers] == [0, 0, 1, 2]


def test_clips_of_a_multi_label_split_are_spread_over_the_split() -> None:
    assert spread(clip_set([[1, 0]] * 12), 3).tolist() == [2, 6, 10]
    assert spread(clip_set([[1, 0]] * 3), 8).tolist() == [0, 1, 2]


def test_named_clips_are_taken_from_the_splits_that_have_them() -> None:
    sets = {"a": clip_set([0, 1, 1], split="a"), "b": clip_set([0, 1], split="b")}
    found = Choice(clip_ids=("a-2", "a-0")).numbers(sets)
    assert {split: numbers.tolist() for split, numbers in found.items()} == {"a": [0, 2]}
    assert {split: len(numbers) for split, numbers in Choice(count=2).numbers(sets).items()} == {"a": 2, "b": 2}


def test_a_clip_that_is_not_there_or_has_no_logits_is_refused() -> None:
    sets = {"a": clip_set([0, 1], split="a", skipped={"a-9": "no label for task activity"})}
    with pytest.raises(ConfigError, match="in none of the splits that are predicted"):
        Choice(clip_ids=("a-0", "b-1")).numbers(sets)
    with pytest.raises(ConfigError, match="no label for task activity"):
        Choice(clip_ids=("a-9",)).numbers(sets)


def test_the_command_line_gives_a_number_or_clips() -> None:
    assert choice_of(None, ()) is None
    assert choice_of(5, ()) == Choice(count=5)
    assert choice_of(None, ("a",)) == Choice(clip_ids=("a",))
    with pytest.raises(ConfigError, match="one of the two"):
        choice_of(5, ("a",))


@pytest.mark.parametrize(
    ("logits", "targets", "expected"),
    [
        ([0.1, 0.9, 0.5, 0.3], [1, 0, 0, 0], [0, 1, 2]),  # wrong: the true one stands first
        ([0.1, 0.9, 0.5, 0.3], [0, 1, 0, 0], [1, 2, 3]),  # right: the runners-up
        ([0.1, 0.9, 0.5, 0.3], [1, 1, 1, 0], [1, 2, 3]),  # two true ones by their logit, and the best other
        ([0.1, 0.9, 0.5, 0.3], [1, 1, 1, 1], [1, 2, 3]),  # no other
        ([0.1, 0.9], [1, 0], [0, 1]),
        ([0.1, 0.9, 0.5, 0.3], [0, 0, 0, 0], [1, 2, 3]),
    ],
)
def test_true_classes_are_shown_first_and_a_wrong_one_always(
    logits: list[float], targets: list[int], expected: list[int]
) -> None:
    found = shown_classes(np.array(logits, np.float32), np.array(targets, np.uint8))
    assert found.tolist() == expected
