import numpy as np
import pytest

from train.sampling import batches, clip_generator, epoch_order, num_batches, segment_centres, segment_draws


@pytest.mark.parametrize(
    ("num_cached", "num_frames", "expected"),
    [
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (8, 4, [1, 3, 5, 7]),
        (9, 3, [1, 4, 7]),
        (64, 1, [32]),
        (10, 4, [1, 3, 6, 8]),
        (10, 9, [0, 1, 2, 3, 4, 5, 6, 7, 9]),
        (16, 12, [0, 1, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15]),
    ],
)
def test_centres_are_those_counted_by_hand(num_cached: int, num_frames: int, expected: list[int]) -> None:
    assert segment_centres(num_cached, num_frames).tolist() == expected


@pytest.mark.parametrize(("num_cached", "num_frames"), [(64, 16), (10, 4), (7, 7), (5, 3)])
def test_draws_reach_every_instant_of_their_own_segment_and_no_other(num_cached: int, num_frames: int) -> None:
    seen = np.array([segment_draws(num_cached, num_frames, clip_generator(0, epoch, 0)) for epoch in range(400)])
    assert (np.diff(seen, axis=1) > 0).all()
    reached = [sorted(set(column)) for column in seen.T.tolist()]
    assert [instant for segment in reached for instant in segment] == list(range(num_cached))


@pytest.mark.parametrize(("num_cached", "num_frames"), [(10, 4), (64, 48), (16, 12), (10, 9), (64, 10)])
def test_centres_lie_in_the_segments_that_draws_come_from(num_cached: int, num_frames: int) -> None:
    draws = np.array([segment_draws(num_cached, num_frames, clip_generator(1, epoch, 3)) for epoch in range(200)])
    centres = segment_centres(num_cached, num_frames)
    assert (draws.min(axis=0) <= centres).all()
    assert (centres <= draws.max(axis=0)).all()


@pytest.mark.parametrize("num_frames", [0, 9])
def test_more_frames_than_instants_are_refused(num_frames: int) -> None:
    with pytest.raises(ValueError, match="cannot be taken from 8 cached instants"):
        segment_centres(8, num_frames)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    order = epoch_order(50, 3, 7)
    assert sorted(order) == list(range(50))
    assert np.array_equal(order, epoch_order(50, 3, 7))
    assert not np.array_equal(order, epoch_order(50, 3, 8))
    assert not np.array_equal(order, epoch_order(50, 4, 7))


def test_batches_from_the_middle_continue_where_the_first_ones_stopped() -> None:
    order = epoch_order(11, 0, 0)
    whole = list(batches(order, 4))
    assert [len(piece) for piece in whole] == [4, 4, 3]
    assert num_batches(11, 4) == 3
    assert np.array_equal(np.concatenate(whole), order)
    assert [piece.tolist() for piece in batches(order, 4, first=1)] == [piece.tolist() for piece in whole[1:]]


def test_a_rest_that_is_too_small_joins_the_batch_before_it() -> None:
    sizes = {count: [len(piece) for piece in batches(np.arange(count), 4, smallest=2)] for count in (1, 4, 5, 6, 9)}
    assert sizes == {1: [1], 4: [4], 5: [5], 6: [4, 2], 9: [4, 5]}
    assert all(num_batches(count, 4, smallest=2) == len(found) for count, found in sizes.items())
    assert [piece.tolist() for piece in batches(np.arange(9), 4, first=1, smallest=2)] == [[4, 5, 6, 7, 8]]
    assert [len(piece) for piece in batches(np.arange(5), 4)] == [4, 1]
