"""Steps of the trainer as the bench sees them: their times by hand, and that they are the trainer's own."""

import itertools
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.runs import tiny_config, write_toys
from train.bench.steps import WARM_UP, StepBench, StepRecorder, Steps, StepSeconds
from train.data import Batch
from train.experiment import Experiment
from train.sampling import Indices
from train.step_clock import PARTS, Part


class Clock:
    """Stands in for `time.perf_counter`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def step(data: float, forward: float, backward: float, optimizer: float, rest: float = 0.0) -> StepSeconds:
    parts: dict[Part, float] = dict(zip(PARTS, (data, forward, backward, optimizer), strict=True))
    return StepSeconds(parts=parts, whole=sum(parts.values()) + rest)


def test_a_step_ends_with_its_optimizer_and_has_what_lies_between_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    recorder = StepRecorder(torch.device("cpu"))
    clock.now += 50
    recorder.begin()
    for rest in (0.0, 8.0):
        for part, seconds in (("data", 1.0), ("forward", 2.0), ("forward", 2.0), ("backward", 4.0), ("optimizer", 0.5)):
            with recorder.time(part):  # type: ignore[arg-type]  # a part each
                clock.now += seconds
            clock.now += 0.25
        clock.now += rest
    assert recorder.steps == [step(1, 4, 4, 0.5, rest=1.0), step(1, 4, 4, 0.5, rest=1.25)]  # the 8 are of the third
    recorder.begin()
    assert recorder.steps == []


def test_times_are_medians_over_steps_and_the_wait_for_data_is_a_share_of_all() -> None:
    found = Steps(steps=(step(0, 2, 4, 1), step(9, 2, 5, 1, rest=1), step(0, 3, 3, 1)), num_clips=2)
    assert found.parts == {"data": 0, "forward": 2, "backward": 4, "optimizer": 1}
    assert found.seconds_per_clip == 7 / 2  # of 7, 18, 7
    assert found.model_seconds_per_clip == 7 / 2  # of 7, 8, 7
    assert found.data_share == 9 / (7 + 18 + 7)


@pytest.fixture
def bench(tmp_path: Path) -> StepBench:
    dataset = write_toys(tmp_path)
    config = tiny_config(batch_size=3, accumulate=2)
    experiment = Experiment.open(dataset, tmp_path / "cache", config, splits=["train"])
    return StepBench(experiment, tmp_path / "run", torch.device("cpu"), recipe="toy")


class Watched:
    """A source that notes what is asked of it and counts what is taken."""

    def __init__(self, bench: StepBench) -> None:
        self._source, self.asked, self.taken = bench.source, list[list[int]](), 0

    def batches(self, pieces: Iterable[Indices], epoch: int | None) -> Generator[Batch]:
        for batch in self._source.batches(self._noted(pieces), epoch):
            self.taken += 1
            yield batch

    def _noted(self, pieces: Iterable[Indices]) -> Iterator[Indices]:
        for piece in pieces:
            self.asked.append(piece.tolist())
            yield piece


def test_steps_train_the_model_on_batches_of_full_size_and_reading_goes_on_after_the_last(bench: StepBench) -> None:
    before = {name: value.clone() for name, value in bench.trainer.model.state_dict().items()}
    source = Watched(bench)
    found = bench.train_on(source, 5)
    assert (len(found.steps), found.num_clips) == (5, 3)
    assert source.taken == 2 * (WARM_UP + 5)  # two forward passes a step
    assert len(source.asked) > source.taken
    assert all(len(piece) == size for piece, size in zip(source.asked, itertools.cycle([2, 1]), strict=False))
    assert {number for piece in source.asked for number in piece} == set(range(8))  # more clips than the split has
    after = bench.trainer.model.state_dict()
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    assert all(seconds.parts["backward"] > 0 and seconds.parts["forward"] > 0 for seconds in found.steps)


def test_the_bare_model_trains_on_one_batch_that_is_read_once(
    bench: StepBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Watched(bench)
    monkeypatch.setattr(bench, "source", source)
    found = bench.bare(4)
    assert (source.taken, source.asked) == (2, [piece.tolist() for piece in bench.forward_passes(1)])
    assert (len(found.steps), found.num_clips) == (4, 3)
    assert found.model_seconds_per_clip > 0


def test_loading_reads_every_batch_once_and_trains_nothing(bench: StepBench, monkeypatch: pytest.MonkeyPatch) -> None:
    before: Any = {name: value.clone() for name, value in bench.trainer.model.state_dict().items()}
    source = Watched(bench)
    monkeypatch.setattr(bench, "source", source)
    cost = bench.load(4)
    assert source.taken == len(source.asked) == 8
    assert cost.seconds > 0
    assert cost.core_seconds > 0
    assert all(torch.equal(bench.trainer.model.state_dict()[name], value) for name, value in before.items())


def test_no_checkpoint_is_written(bench: StepBench, tmp_path: Path) -> None:
    bench.train_on(bench.source, 3)
    assert not list((tmp_path / "run").glob("checkpoints/*"))
