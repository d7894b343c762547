"""Metrics against scikit-learn, against hand-computed cases, and under transformations that must not matter."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score

from evaluate import metrics
from evaluate.ranking import RankedScores
from tests.evaluate import toy_runs

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
MULTI = [metrics.map_macro, metrics.map_macro_all_zero, metrics.map_weighted, metrics.map_micro, metrics.map_charades]


def _multi(n: int = 200, num_classes: int = 12, *, ties: bool = False) -> tuple[Floats, Labels]:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(n, num_classes)).astype(np.float32)
    targets = (rng.random((n, num_classes)) < 0.1).astype(np.uint8)
    return (np.round(scores) if ties else scores), targets


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_equals_scikit_learn(ties: bool) -> None:
    scores, targets = _multi(ties=ties)
    expected = [average_precision_score(targets[:, c], scores[:, c]) for c in range(targets.shape[1])]
    np.testing.assert_allclose(metrics.average_precision(scores, targets), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_average_precision_equals_scikit_learn_with_sample_weights(ties: bool) -> None:
    scores, targets = _multi(ties=ties)
    weights = np.random.default_rng(1).integers(0, 4, size=len(scores)).astype(np.float64)
    expected = [
        average_precision_score(targets[:, c], scores[:, c], sample_weight=weights) for c in range(targets.shape[1])
    ]
    found = RankedScores(scores, targets).average_precision(weights)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_weights_are_the_same_as_repeated_clips() -> None:
    scores, targets = _multi(60, ties=True)
    rows = np.random.default_rng(2).integers(60, size=60)
    weights = np.bincount(rows, minlength=60).astype(np.float64)
    weighted = RankedScores(scores, targets).average_precision(weights)
    np.testing.assert_allclose(weighted, metrics.average_precision(scores[rows], targets[rows]), atol=1e-12)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_averages_equal_scikit_learn(average: str) -> None:
    scores, targets = _multi(ties=True)
    ours = {"macro": metrics.map_macro, "micro": metrics.map_micro, "weighted": metrics.map_weighted}[average]
    expected = average_precision_score(targets, scores, average=average)
    assert ours(scores, targets) == pytest.approx(expected, abs=1e-12)


def test_a_class_without_positives_is_dropped_or_counts_zero_as_the_name_says() -> None:
    scores, targets = _multi()
    targets[:, 4] = 0
    values = np.delete(metrics.average_precision(scores, targets), 4)
    assert np.isnan(metrics.average_precision(scores, targets)[4])
    assert metrics.map_macro(scores, targets) == pytest.approx(values.mean(), abs=1e-12)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No positive class found")
        expected = average_precision_score(targets, scores, average="macro")
    assert metrics.map_macro_all_zero(scores, targets) == pytest.approx(expected, abs=1e-12)


def test_constant_scores_give_the_prevalence() -> None:
    _, targets = _multi()
    constant, prevalence = np.zeros(targets.shape, dtype=np.float32), targets.mean(axis=0)
    np.testing.assert_allclose(metrics.average_precision(constant, targets), prevalence, atol=1e-12)
    weighted = (prevalence**2).sum() / prevalence.sum()
    among_labelled = targets[targets.any(axis=1)].mean()
    expected = [prevalence.mean(), prevalence.mean(), weighted, targets.mean(), among_labelled]
    assert [metric(constant, targets) for metric in MULTI] == pytest.approx(expected, abs=1e-12)


def test_perfect_scores_give_one_under_every_average() -> None:
    _, targets = _multi()
    scores = targets.astype(np.float32)
    for metric in MULTI:
        assert metric(scores, targets) == 1.0


@pytest.mark.parametrize("ties", [False, True])
def test_row_order_and_increasing_maps_do_not_change_average_precision(ties: bool) -> None:
    scores, targets = _multi(ties=ties)
    rows = np.random.default_rng(0).permutation(len(scores))
    checked: list[Callable[..., Any]] = [metrics.average_precision, *MULTI]
    for metric in checked:
        expected = metric(scores, targets)
        np.testing.assert_allclose(metric(scores[rows], targets[rows]), expected, atol=1e-12)
        np.testing.assert_allclose(metric(np.exp(scores.astype(np.float64)) * 3 + 1, targets), expected, atol=1e-12)


def test_row_order_and_increasing_maps_do_not_change_accuracies() -> None:
    item = toy_runs.predictions(n=200)
    rows = np.random.default_rng(0).permutation(200)
    for metric in (metrics.acc1, metrics.acc5, metrics.mean_class_accuracy, metrics.mean_class_accuracy_mmaction2):
        expected = pytest.approx(metric(item.logits, item.targets), abs=1e-12)
        assert metric(item.logits[rows], item.targets[rows]) == expected
        assert metric(np.exp(item.logits.astype(np.float64)), item.targets) == expected


def test_sorting_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = _multi(ties=True)
    expected = metrics.average_precision(scores, targets)
    monkeypatch.setattr("evaluate.ranking._BLOCK", 500)
    np.testing.assert_array_equal(metrics.average_precision(scores, targets), expected)


def test_charades_rule_by_hand() -> None:
    scores = np.array([[0.9], [0.8], [0.7], [0.6]], dtype=np.float32)
    assert metrics.map_charades(scores, np.array([[0], [1], [0], [1]])) == pytest.approx(1.0)
    # With a second class every clip is labelled, so that none moves to the end: precisions 1/2 and 2/4.
    both = np.hstack([scores, scores])
    targets = np.array([[0, 1], [1, 0], [0, 1], [1, 0]])
    assert metrics.map_charades(both, targets) == pytest.approx(((1 / 2 + 2 / 4) / 2 + (1 + 2 / 3) / 2) / 2)


def _charades_written_out(scores: Floats, targets: Labels) -> float:
    """The official formula, clip by clip: mean precision at the positives, clips without a label at minus infinity."""
    values = []
    for c in range(scores.shape[1]):
        column = [float(score) if targets[i].any() else -np.inf for i, score in enumerate(scores[:, c])]
        found, precisions = 0, []
        for rank, i in enumerate(sorted(range(len(column)), key=lambda i: -column[i]), start=1):
            if targets[i, c]:
                found += 1
                precisions.append(found / rank)
        values.append(sum(precisions) / len(precisions))
    return sum(values) / len(values)


def test_charades_rule_equals_its_formula_written_out() -> None:
    scores, targets = _multi(300)
    assert (targets.sum(axis=1) == 0).sum() > 50
    assert len(np.unique(scores)) == scores.size
    found = metrics.map_charades(scores, targets)
    assert found == pytest.approx(_charades_written_out(scores, targets), abs=1e-12)
    assert found > metrics.map_macro(scores, targets) + 0.01


def test_the_charades_rule_on_a_resample_is_that_of_the_repeated_clips() -> None:
    item = toy_runs.predictions(kind="multi", n=80)
    item.targets[:30] = 0
    rows = np.random.default_rng(2).integers(80, size=80)
    weights = np.bincount(rows, minlength=80).astype(np.float64)
    expected = metrics.map_charades(item.logits[rows], item.targets[rows])
    assert metrics.resampled_card(item)(weights)["map_charades"] == pytest.approx(expected, abs=1e-12)


def test_no_clip_with_a_label_leaves_the_charades_rule_nothing_to_average() -> None:
    scores, targets = _multi()
    with pytest.raises(ValueError, match="nothing to average"):
        metrics.map_charades(scores, targets * 0)


def test_charades_rule_equals_macro_map_where_every_clip_has_a_label_and_no_scores_tie() -> None:
    scores, targets = _multi()
    targets[:, 0] = 1
    assert metrics.map_charades(scores, targets) == pytest.approx(metrics.map_macro(scores, targets), abs=1e-12)


def test_charades_rule_equals_a_minimum_score_for_unlabelled_clips() -> None:
    scores, targets = _multi()
    moved = scores.astype(np.float64)
    moved[targets.sum(axis=1) == 0] = scores.min() - 1
    assert metrics.map_charades(scores, targets) == pytest.approx(metrics.map_macro(moved, targets), abs=1e-12)


@pytest.mark.parametrize("k", [1, 5])
def test_top_k_accuracy_equals_scikit_learn(k: int) -> None:
    item = toy_runs.predictions(n=300)
    expected = top_k_accuracy_score(item.targets, item.logits, k=k, labels=np.arange(8))
    assert {1: metrics.acc1, 5: metrics.acc5}[k](item.logits, item.targets) == pytest.approx(expected, abs=1e-12)


def test_a_collapsed_model_scores_chance_whatever_the_order_of_the_classes() -> None:
    targets = np.array([0, 0, 0, 1])
    assert metrics.acc1(np.ones((4, 10), dtype=np.float32), targets) == pytest.approx(0.1)
    assert metrics.acc5(np.ones((4, 10), dtype=np.float32), targets) == pytest.approx(0.5)


def test_acc5_refuses_fewer_than_five_classes_and_the_card_leaves_it_out() -> None:
    item = toy_runs.predictions(class_names=("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="C is 4"):
        metrics.acc5(item.logits, item.targets)
    assert "acc5" not in metrics.evaluate(item)


def test_mean_class_accuracy_by_hand_and_as_mmaction2() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 0, 2, 1]]  # predicted
    targets = np.array([0, 0, 0, 1])  # class 2 is predicted once and never present
    assert metrics.mean_class_accuracy(logits, targets) == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.mean_class_accuracy_mmaction2(logits, targets) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_mean_class_accuracy_equals_balanced_accuracy() -> None:
    item = toy_runs.predictions(n=400)
    expected = balanced_accuracy_score(item.targets, item.logits.argmax(axis=1))
    assert metrics.mean_class_accuracy(item.logits, item.targets) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "metric",
    [*MULTI, metrics.average_precision],
)
def test_nan_and_infinite_scores_are_refused(metric: Callable[[Floats, Labels], object], bad: float) -> None:
    scores, targets = _multi()
    scores[3, 2] = bad
    with pytest.raises(ValueError, match="1 of 200 clips have NaN or infinite"):
        metric(scores, targets)
    with pytest.raises(ValueError, match="NaN or infinite"):
        metrics.acc1(scores, targets.argmax(axis=1))


def test_targets_that_do_not_fit_are_refused() -> None:
    scores, targets = _multi()
    with pytest.raises(ValueError, match="must be 0 or 1"):
        metrics.average_precision(scores, targets * 2)
    with pytest.raises(ValueError, match="targets have shape"):
        metrics.average_precision(scores, targets[:, :3])
    with pytest.raises(ValueError, match="class indices"):
        metrics.acc1(scores, np.full(len(scores), 12))


def test_the_card_of_a_single_label_task_agrees_with_the_functions() -> None:
    item = toy_runs.predictions()
    card = metrics.evaluate(item)
    for name in ("acc1", "acc5", "mean_class_accuracy", "mean_class_accuracy_mmaction2"):
        assert card[name] == getattr(metrics, name)(item.logits, item.targets)
    assert card["map_macro"] == metrics.map_macro(item.logits, np.eye(8, dtype=np.uint8)[item.targets])
    assert (card["num_clips"], card["num_classes"], card["num_ties"]) == (60, 8, 0)


def test_the_card_of_a_multi_label_task_agrees_with_the_functions_and_counts_dropped_classes() -> None:
    item = toy_runs.predictions(kind="multi")
    item.targets[:, 2] = 0
    card = metrics.evaluate(item)
    for name in ("map_macro", "map_micro", "map_weighted", "map_macro_all_zero", "map_charades"):
        assert card[name] == getattr(metrics, name)(item.logits, item.targets)
    assert card["num_classes_dropped"] == 1


def test_saturated_scores_are_counted_as_ties() -> None:
    item = toy_runs.predictions(kind="multi")
    item.logits[:10, 0] = 7.0  # of one class: one ranking of clips
    assert metrics.evaluate(item)["num_ties"] == 9
    single = toy_runs.predictions()
    single.logits[:10, 0] = 7.0  # of ten clips: ten rankings of classes
    assert metrics.evaluate(single)["num_ties"] == 0
    single.logits[3, :4] = 7.0
    single.logits[5, 1:3] = -7.0
    assert metrics.evaluate(single)["num_ties"] == 3 + 1


def test_the_mean_without_sil_is_that_of_the_other_classes() -> None:
    names = (*toy_runs.CLASS_NAMES[:3], "SIL", *toy_runs.CLASS_NAMES[4:])
    item = toy_runs.predictions(kind="multi", class_names=names)
    item.targets[:] |= np.eye(8, dtype=np.uint8)[3]  # in every clip
    card = metrics.evaluate(item)
    others = np.delete(metrics.average_precision(item.logits, item.targets), 3)
    assert card["map_macro_without_sil"] == pytest.approx(others.mean(), abs=1e-12)
    assert card["map_macro"] == pytest.approx((others.sum() + 1) / 8, abs=1e-12)
    assert "map_macro_without_sil" not in metrics.evaluate(toy_runs.predictions(kind="multi"))
    item.targets[:] = np.eye(8, dtype=np.uint8)[3]
    assert "map_macro_without_sil" not in metrics.evaluate(item)


def test_importing_evaluate_does_not_import_torch() -> None:
    code = (
        "import sys, evaluate.report, evaluate.compare, evaluate.analysis\n"
        "sys.exit(int('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
