"""The arithmetic of `bench train` on hand-made figures."""

import json
from dataclasses import replace

import pytest

from extract.bench.parts import DECODING, IMAGE_ENCODER, Cost
from pipeline.training_bench.decoding import VIDEO_ENCODER
from pipeline.training_bench.report import Round, TrainingReport
from train.bench.memory import PeakMemory
from train.bench.steps import LoadingCost, Steps, StepSeconds

MEMORY = PeakMemory(peak=3_000_000_000, before=1_000_000_000, what="resident in this process")


def steps(data: float, model: float, *, num_clips: int = 2) -> Steps:
    """Three equal steps: half of the model's seconds forward, a quarter each backward and in the optimiser."""
    parts = {"data": data, "forward": model / 2, "backward": model / 4, "optimizer": model / 4}
    one = StepSeconds(parts=parts, whole=data + model)  # type: ignore[arg-type]  # a part each
    return Steps(steps=(one,) * 3, num_clips=num_clips)


def one_round(*, decoding: float = 8.0, is_gpu: bool = False, frozen: bool = False) -> Round:
    """Of a clip: the model 1 s, the loader's wait 0.25 s, CLIP 2 s, decoding 1.2 s on one thread."""
    parts = {
        DECODING: Cost(core_seconds=0.6, seconds=1.2),
        IMAGE_ENCODER: Cost(core_seconds=3.0, seconds=2.0),
    }
    parts |= {VIDEO_ENCODER: Cost(core_seconds=6.0, seconds=4.0)} if frozen else {}
    return Round(
        cached=steps(0.5, 2.0),
        bare=steps(9.0, 2.0),
        decoding=steps(decoding - 2.0, 2.0),
        with_tokens=steps(3.0, 2.0) if frozen else None,
        loading=LoadingCost(seconds=0.2, core_seconds=0.4),
        parts=parts,
        cores=2,
        is_gpu=is_gpu,
    )


def test_on_a_cpu_the_bound_is_the_sum_of_all_parts_over_the_bare_model() -> None:
    entry = one_round()
    assert entry.decoding_bound_seconds == pytest.approx(1 + 2 + 1.2 / 2)
    assert entry.ratios == pytest.approx(
        {
            "ratio_to_bare_model": 1 / 1.25,
            "data_share": 0.5 / 2.5,
            "ratio_to_decoding": 4 / 1.25,
            "ratio_to_decoding_with_tokens": None,
            "bound": 3.6,
            "ratio_to_bound": 4 / 1.25 / 3.6,
            "decoding_to_its_parts": 3.6 / 4,
        }
    )


def test_on_a_gpu_decoding_is_free_while_the_device_is_slower() -> None:
    assert one_round(is_gpu=True).decoding_bound_seconds == pytest.approx(1 + 2)
    slow = {DECODING: Cost(core_seconds=20.0, seconds=20.0), IMAGE_ENCODER: Cost(core_seconds=3.0, seconds=2.0)}
    assert replace(one_round(is_gpu=True), parts=slow).decoding_bound_seconds == pytest.approx(20 / 2)


def test_with_frozen_tokens_both_baselines_are_told_and_the_bound_has_their_encoder() -> None:
    ratios = one_round(frozen=True).ratios
    assert ratios["bound"] == pytest.approx(1 + 2 + 4 + 0.6)
    assert ratios["ratio_to_decoding_with_tokens"] == pytest.approx(2.5 / 1.25)


def test_the_report_holds_medians_over_rounds() -> None:
    rounds = tuple(one_round(decoding=seconds, frozen=True) for seconds in (8.0, 20.0, 10.0))
    report = TrainingReport(rounds=rounds, memory=MEMORY, facts={"device": "cpu"})
    body = json.loads(json.dumps(report.to_json()))
    assert body["ratio_to_decoding"] == pytest.approx(5 / 1.25)
    assert [entry["ratio_to_decoding"] for entry in body["rounds"]] == pytest.approx([3.2, 8.0, 4.0])
    assert body["clips_per_second"] == pytest.approx(
        {"from_cache": 0.8, "bare_model": 1.0, "decoding": 0.2, "decoding_with_tokens": 0.4}
    )
    assert body["step_seconds"] == pytest.approx(
        {"data": 0.5, "forward": 1.0, "backward": 0.5, "optimizer": 0.5, "whole": 2.5}
    )
    assert body["loader"] == {"seconds": 0.2, "core_seconds": 0.4}
    assert body["parts"][VIDEO_ENCODER] == {"core_seconds": 6.0, "seconds": 4.0}
    assert (body["peak_memory_bytes"], body["memory"]["before"]) == (3_000_000_000, 1_000_000_000)
    assert (body["core_share"], body["device"]) == (0.5, "cpu")


def test_without_frozen_tokens_nothing_is_made_up_for_them() -> None:
    report = TrainingReport(rounds=(one_round(),), memory=MEMORY, facts={})
    assert report.ratios["ratio_to_decoding_with_tokens"] is None
    assert "decoding_with_tokens" not in report.seconds_per_clip
