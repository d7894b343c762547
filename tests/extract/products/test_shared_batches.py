"""The batching itself, with a model that doubles: who shares a batch, who is blamed, in which order clips leave."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from cache.errors import FailureCode, VideoError
from cache.rows import ClipRows
from extract.batch_size import BatchSize
from extract.products import shared_batches
from extract.products.rows import rows_of
from extract.products.shared_batches import ClipWork, SharedBatches, is_place_independent
from tests.extract.products.prepared_clips import prepared

ALONE = {"a": [1, 2, 3], "b": list(range(20, 40)), "nobody": [], "c": [5], "d": [6, 7, 8, 9, 10]}
BAD, GREEDY = 66.0, 77.0


class Model:
    """Doubles (n, 2) inputs; of GREEDY ones not even one fits into memory."""

    def __init__(self) -> None:
        self.passes: list[list[float]] = []
        self.most = 100

    def __call__(self, inputs: Tensor, size: int) -> Tensor:
        if size > self.most or (inputs == GREEDY).any():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.passes += [part[:, 0].tolist() for part in inputs.split(size)]
        return 2 * inputs


class Sums(ClipWork):
    """The rows of a clip are its outputs; BAD ones cannot be used."""

    def __init__(self, name: str, values: list[float]) -> None:
        super().__init__(prepared(name, list(range(max(1, len(values)))), images=np.zeros(3)))
        self.outputs: list[Tensor] = []

    def take(self, outputs: Tensor) -> None:
        if (outputs == 2 * BAD).any():
            raise VideoError(FailureCode.NON_FINITE, "bad")
        self.outputs.append(outputs)

    def rows(self, reduced_batch: int) -> ClipRows:
        values = torch.cat(self.outputs)[:, 0].numpy() if self.outputs else np.zeros(1)
        return rows_of(self.prepared, {"sum": values}, reduced_batch)


def make(
    model: Model, monkeypatch: pytest.MonkeyPatch, *, shared: bool = True, most: int | None = None, size: int = 8
) -> SharedBatches:
    monkeypatch.setattr(shared_batches, "is_place_independent", lambda *_: shared)
    monkeypatch.setattr(shared_batches, "is_as_fast_with_few", lambda _: False)
    batch = BatchSize(size, torch.device("cpu"), model="toy")
    return SharedBatches(model, batch, lambda count: torch.zeros(count, 2), most=most, varies=True)


def inputs_of(values: list[float], piece: int) -> Iterator[Tensor]:
    """A clip's inputs, a few at a time; what they lay in is overwritten afterwards."""
    tensor = torch.tensor(values, dtype=torch.float32)[:, None].repeat(1, 2)
    for part in tensor.split(piece) if len(values) else []:
        yield part
        part.fill_(-1)


def run(batches: SharedBatches, clips: dict[str, list[float]], piece: int = 4) -> dict[str, ClipRows]:
    rows = [row for name, values in clips.items() for row in batches.add(Sums(name, values), inputs_of(values, piece))]
    rows += list(batches.flush())
    assert [row.clip_id for row in rows] == list(clips)
    return {row.clip_id: row for row in rows}


def floats(clips: dict[str, list[int]]) -> dict[str, list[float]]:
    return {name: [float(value) for value in values] for name, values in clips.items()}


@pytest.mark.parametrize("piece", [1, 4, 100])
@pytest.mark.parametrize("shared", [True, False])
def test_clips_of_any_length_get_their_own_outputs_in_order(
    monkeypatch: pytest.MonkeyPatch, shared: bool, piece: int
) -> None:
    model = Model()
    rows = run(make(model, monkeypatch, shared=shared), floats(ALONE), piece)
    for name, values in ALONE.items():
        assert rows[name].fields["sum"].tolist() == [2 * value for value in values or [0]]  # type: ignore[union-attr]
    sizes = [len(values) for values in model.passes]
    assert sizes == ([8, 8, 8, 5] if shared else [3, 8, 8, 4, 1, 5])


def test_a_clip_leaves_when_its_last_output_is_there_and_no_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = make(Model(), monkeypatch)
    left: list[list[str]] = []
    for name, values in floats(ALONE).items():
        left.append([row.clip_id for row in batches.add(Sums(name, values), inputs_of(values, 4))])
    left.append([row.clip_id for row in batches.flush()])
    assert left == [[], ["a"], [], ["b", "nobody", "c"], [], ["d"]]


@pytest.mark.parametrize("shared", [True, False])
def test_the_clip_whose_outputs_are_bad_fails_and_its_neighbours_do_not(
    monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    clips = floats(ALONE) | {"b": [20.0, BAD, *range(22, 40)]}
    rows = run(make(Model(), monkeypatch, shared=shared), clips)
    assert failures_of(rows) == {"b": FailureCode.NON_FINITE}
    assert rows["d"].fields["sum"].tolist() == [12, 14, 16, 18, 20]  # type: ignore[union-attr]


@pytest.mark.parametrize("shared", [True, False])
def test_the_clip_that_takes_too_much_memory_fails_and_its_neighbours_run_in_smaller_batches(
    monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    clips = floats(ALONE) | {"b": [20.0, GREEDY, *range(22, 40)]}
    rows = run(make(Model(), monkeypatch, shared=shared), clips)
    assert failures_of(rows) == {"b": FailureCode.OUT_OF_MEMORY}
    reduced = {name: row.provenance.reduced_batch if row.provenance else 0 for name, row in rows.items()}
    assert (reduced["d"], reduced["a"]) == (1, 1 if shared else 0)
    assert rows["a"].fields["sum"].tolist() == [2, 4, 6]  # type: ignore[union-attr]


def test_a_clip_whose_inputs_cannot_be_made_fails_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Tensor]:
        yield torch.ones(2, 2)
        raise VideoError(FailureCode.NO_BOXES, "no boxes for the rest")

    batches = make(Model(), monkeypatch)
    rows = list(batches.add(Sums("first", [1.0]), inputs_of([1.0], 1)))
    rows += batches.add(Sums("broken", [1.0]), broken())
    rows += batches.add(Sums("last", [3.0]), inputs_of([3.0], 1))
    assert rows == []  # all wait for a full batch, the failed one behind the first
    rows += batches.flush()
    assert [row.clip_id for row in rows] == ["first", "broken", "last"]
    assert failures_of({row.clip_id: row for row in rows}) == {"broken": FailureCode.NO_BOXES}
    assert rows[2].fields["sum"].tolist() == [6]  # type: ignore[union-attr]


def test_of_a_long_clip_no_more_waits_than_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = Model(), 0

    def long() -> Iterator[Tensor]:
        nonlocal made
        for _ in range(50):
            assert made - sum(len(values) for values in model.passes) < 8
            made += 3
            yield torch.ones(3, 2)

    list(make(model, monkeypatch).add(Sums("long", [1.0] * 150), long()))
    assert made == 150


def test_a_clip_on_its_way_holds_no_pixels() -> None:
    assert Sums("a", [1.0]).prepared.pixels == {}


@pytest.mark.parametrize(
    ("device", "most", "varies", "independent", "expected"),
    [
        ("cpu", 16, False, True, (False, 16)),  # every clip fills its batch
        ("cpu", 16, True, True, (False, 8)),  # as fast as 64 there, and clips of few are hardly padded
        ("cpu", 5, True, True, (False, 5)),
        ("cpu", None, True, True, (False, 8)),
        ("cpu", None, False, True, (True, 64)),
        ("cpu", None, False, False, (False, 64)),
        ("cuda", None, True, True, (True, 64)),
        ("cuda", None, True, False, (False, 64)),
        ("cuda", 16, False, True, (True, 64)),
        ("cuda", 16, False, False, (False, 16)),
        ("cuda", 64, False, True, (False, 64)),
        ("cuda", 128, False, True, (False, 64)),
        ("cuda", 64, True, True, (True, 64)),
        ("cuda", 100, False, True, (True, 64)),
    ],
)
def test_batches_are_shared_where_that_can_save_time_and_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    most: int | None,
    varies: bool,
    independent: bool,
    expected: tuple[bool, int],
) -> None:
    monkeypatch.setattr(shared_batches, "is_place_independent", lambda *_: independent)
    batch = BatchSize(64, torch.device(device), model="toy")
    made = SharedBatches(Model(), batch, lambda count: torch.zeros(count, 2), most=most, varies=varies)
    assert (made.are_shared, batch.full) == expected
    assert batch.reduced == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_model_that_rounds_otherwise_at_one_place_is_found_out(dtype: torch.dtype, place: int) -> None:
    def even(inputs: Tensor, _: int) -> Tensor:
        return inputs.double().sqrt()

    def uneven(inputs: Tensor, size: int) -> Tensor:
        outputs = even(inputs, size)
        outputs[place] *= 1 + 1e-15
        return outputs

    room = torch.zeros(8, 5, dtype=dtype)
    assert is_place_independent(even, room)
    assert not is_place_independent(uneven, room)


def failures_of(rows: dict[str, ClipRows]) -> dict[str, FailureCode]:
    return {name: row.failure.code for name, row in rows.items() if row.failure}
