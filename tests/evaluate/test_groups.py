"""Groups of clips: the headline of each value, which of them are shown, and which is worst."""

import numpy as np
import pytest

from cache.predictions import Predictions
from evaluate import metrics
from evaluate.clusters import AUTO, cluster_of
from evaluate.groups import GroupScore, per_group, shown_groups, worst_value
from tests.evaluate import toy_runs


def _with(groups: dict[str, tuple[str, ...]], n: int = 60) -> Predictions:
    item = toy_runs.predictions(n=n)
    object.__setattr__(item, "groups", groups)
    return item


def test_per_group_equals_the_metric_of_the_clips_of_that_group() -> None:
    item = toy_runs.predictions()
    inside = np.array(item.groups["subject"]) == "P03"
    for headline in ("acc1", "mean_class_accuracy"):
        found = per_group(item, "subject", headline=headline)["P03"]
        assert found.num_clips == int(inside.sum())
        assert found.value == pytest.approx(getattr(metrics, headline)(item.logits[inside], item.targets[inside]))
    with pytest.raises(ValueError, match="no group 'camera'"):
        per_group(item, "camera", headline="acc1")


def test_a_value_whose_clips_have_no_label_has_no_score() -> None:
    item = toy_runs.predictions(kind="multi")
    item.targets[np.array(item.groups["subject"]) == "P03"] = 0
    found = per_group(item, "subject", headline="map_macro")
    assert found["P03"].value is None
    assert found["P04"].value is not None
    assert worst_value(found) != "P03"


def test_the_worst_value_is_one_of_ten_clips_and_more_and_known() -> None:
    def score(num_clips: int, value: float | None) -> GroupScore:
        return GroupScore(num_clips=num_clips, value=value)

    scores = {"": score(90, 0.0), "a": score(9, 0.1), "b": score(10, 0.4), "c": score(30, 0.3), "d": score(30, None)}
    assert worst_value(scores) == "c"
    assert worst_value({"a": score(9, 0.1), "b": score(10, 0.4)}) is None  # nothing to choose from


def test_groups_of_one_value_or_of_next_to_no_clips_each_are_not_shown() -> None:
    own, few, many = tuple(map(str, range(300))), ("x", "y") * 150, tuple(str(n // 5) for n in range(300))
    assert list(shown_groups(_with({"own": own, "one": ("x",) * 300, "few": few, "many": many}, n=300))) == [
        "few",
        "many",
    ]


def test_subjects_are_drawn_together_where_five_and_more_are_known() -> None:
    five, four = tuple("ABCDE" * 12), tuple("ABCD" * 15)
    assert cluster_of(_with({"subject": five}), AUTO) == "subject"
    assert cluster_of(_with({"subject": four}), AUTO) is None
    assert cluster_of(_with({"subject": ("",) * 60}), AUTO) is None
    assert cluster_of(_with({"camera": five}), AUTO) is None
    assert cluster_of(_with({"subject": four}), "subject") == "subject"
    assert cluster_of(_with({"subject": five}), None) is None
