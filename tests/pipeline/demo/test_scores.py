import dataclasses

import numpy as np
import pytest

from cache.predictions import Predictions
from evaluate.analysis import map_of_classes, order_accuracy, pair_accuracy
from evaluate.metrics import acc1, map_macro
from evaluate.uncertainty import Interval
from pipeline.demo.scores import (
    Comparison,
    card_of,
    ceiling_sentence,
    compare,
    difference_sentence,
    mean_card,
    percent,
    points,
)
from pipeline.demo.scripts import ACTIONS, ACTIVITIES, CAUSAL_ACTIONS, CO_OCCURRING_ACTIONS, ORDER_PAIRS


def _activity(seed: int = 0, *, skill: float = 1.0) -> Predictions:
    generator = np.random.default_rng(seed)
    targets = np.arange(96, dtype=np.int64) % 8
    logits = generator.standard_normal((96, 8)) + skill * np.eye(8)[targets]
    return _predictions(logits.astype(np.float32), targets, "activity", "single", ACTIVITIES)


def _atomic(seed: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    targets = (generator.random((96, 16)) < 0.3).astype(np.uint8)
    logits = generator.standard_normal((96, 16)) + targets
    return _predictions(logits.astype(np.float32), targets, "atomic", "multi", ACTIONS)


def _predictions(logits, targets, task, kind, names) -> Predictions:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return Predictions(
        clip_ids=tuple(f"{number}" for number in range(len(logits))),
        logits=logits,
        targets=targets,
        task=task,
        kind=kind,
        class_names=tuple(names),
        dataset="world",
        protocol="default",
        split="test_iid",
        run_name="run",
    )


def _comparison(low: float, estimate: float, high: float) -> Comparison:
    return Comparison(
        method="CMDCL",
        reference="control",
        task="activity",
        split="test_counterfactual",
        metric="acc1",
        num_videos=150,
        num_seeds=1,
        difference=Interval(estimate=estimate, low=low, high=high, level=0.95, method="basic bootstrap"),
    )


def test_activity_numbers_equal_those_of_the_evaluation_stage() -> None:
    predictions = _activity()
    assert card_of(predictions)(None) == pytest.approx(
        {
            "acc1": acc1(predictions.logits, predictions.targets),
            "pair_accuracy": pair_accuracy(predictions, ORDER_PAIRS),
            "order_accuracy": order_accuracy(predictions, ORDER_PAIRS),
        }
    )


def test_atomic_numbers_equal_those_of_the_evaluation_stage() -> None:
    predictions = _atomic()
    assert card_of(predictions)(None) == pytest.approx(
        {
            "map_macro": map_macro(predictions.logits, predictions.targets),
            "map_causal": map_of_classes(predictions, CAUSAL_ACTIONS),
            "map_co_occurring": map_of_classes(predictions, CO_OCCURRING_ACTIONS),
        }
    )


def test_a_weight_of_two_is_the_clip_twice() -> None:
    for predictions in (_activity(), _atomic()):
        twice = np.concatenate([np.arange(96), np.arange(10)])
        repeated = dataclasses.replace(
            predictions,
            clip_ids=tuple(f"{number}" for number in range(106)),
            logits=predictions.logits[twice],
            targets=predictions.targets[twice],
        )
        weights = np.where(np.arange(96) < 10, 2.0, 1.0)
        assert card_of(predictions)(weights) == pytest.approx(card_of(repeated)(None))


def test_a_model_that_knows_sets_and_guesses_order_has_full_pair_and_half_order_accuracy() -> None:
    predictions = _activity()
    sets = {name: number for number, pair in enumerate(ORDER_PAIRS) for name in pair}
    row = np.array([[float(sets.get(a, a) == sets.get(b, b)) for b in ACTIVITIES] for a in ACTIVITIES])
    blind = dataclasses.replace(predictions, logits=row[predictions.targets].astype(np.float32))
    values = card_of(blind)(None)
    assert values["pair_accuracy"] == 1.0
    assert values["order_accuracy"] == 0.5
    assert values["acc1"] == pytest.approx(0.625)  # the ceiling


def test_seeds_are_averaged_and_differences_are_taken_on_the_same_videos() -> None:
    one, other, weak = card_of(_activity(1)), card_of(_activity(2)), card_of(_activity(3, skill=0.0))
    both = mean_card([one, other])
    assert both(None)["acc1"] == pytest.approx((one(None)["acc1"] + other(None)["acc1"]) / 2)
    single, differences = compare({"both": both, "weak": weak}, 96, pairs=[("both", "weak"), ("both", "both")])
    gain = differences["both", "weak"]["acc1"]
    assert gain.estimate == pytest.approx(single["both"]["acc1"].estimate - single["weak"]["acc1"].estimate)
    assert gain.low < gain.estimate < gain.high
    assert differences["both", "both"]["acc1"].low == differences["both", "both"]["acc1"].high == 0.0


def test_a_sentence_says_better_worse_or_nothing_as_its_interval_does() -> None:
    better = difference_sentence(_comparison(0.04, 0.12, 0.193))
    worse = difference_sentence(_comparison(-0.2, -0.1, -0.001))
    nothing = difference_sentence(_comparison(-0.03, 0.012, 0.054))
    assert better == (
        "CMDCL minus control, activity, counterfactual, Acc@1: +12.0 [+4.0, +19.3] points: "
        "CMDCL is better on these 150 videos."
    )
    assert worse.endswith("CMDCL is worse on these 150 videos.")
    assert nothing.endswith("+1.2 [-3.0, +5.4] points: no difference that these 150 videos can show.")


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.1), (-0.1, 0.0), (0.0, 0.0), (1e-17, 0.1), (-0.1, -1e-17)])
def test_an_interval_that_touches_zero_shows_nothing(low: float, high: float) -> None:
    assert "no difference" in difference_sentence(_comparison(low, (low + high) / 2, high))


def test_where_every_resample_agrees_no_bootstrap_interval_is_printed() -> None:
    cards = {"perfect": card_of(_activity(skill=1000.0)), "twin": card_of(_activity(1, skill=1000.0))}
    single, differences = compare(cards, 96, pairs=[("perfect", "twin")])
    assert single["perfect"]["acc1"].method == "Wilson"
    assert percent(single["perfect"]["acc1"]) == "100.0 [96.2, 100.0]"
    assert percent(single["perfect"]["order_accuracy"]) == "100.0"
    nothing = dataclasses.replace(_comparison(0, 0, 0), difference=differences["perfect", "twin"]["acc1"])
    assert "Acc@1: +0.0 points: no difference" in difference_sentence(nothing)


def test_a_caveat_follows_the_verdict() -> None:
    text = difference_sentence(dataclasses.replace(_comparison(0.04, 0.12, 0.193), caveat="Other backbones."))
    assert text.endswith("CMDCL is better on these 150 videos. Other backbones.")


def test_a_small_difference_keeps_its_sign_in_print() -> None:
    assert points(-0.0003) == "-0.03"
    assert points(0.0) == points(-1e-17) == "+0.0"
    assert points(0.25) == "+25.0"


def test_the_ceiling_sentence_has_three_outcomes() -> None:
    def sentence(low: float, high: float) -> str:
        interval = Interval(estimate=(low + high) / 2, low=low, high=high, level=0.95, method="basic bootstrap")
        return ceiling_sentence("CMDCL", "test_counterfactual", interval, 0.625)

    assert "above it" in sentence(0.7, 0.8)
    assert "below it" in sentence(0.4, 0.6)
    assert "not distinguishable" in sentence(0.6, 0.7)
