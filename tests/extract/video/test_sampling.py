import math

import numpy as np
import pytest

from extract.video.sampling import (
    Sampling,
    Seconds,
    frames_on_screen,
    middles,
    nth_frame_instants,
    rate_instants,
    uniform_instants,
)

VARIABLE = np.array([0.0, 0.033, 0.066, 0.4, 1.4, 1.433])
DURATION = 1.5


def nth(start: float, end: float, step: int, times: Seconds = VARIABLE, tick: float = 0.001) -> list[int]:
    instants = nth_frame_instants(times, start, end, step, duration=DURATION, tick=tick)
    return frames_on_screen(times, instants).tolist()


def test_instants_are_the_centres_of_equal_segments() -> None:
    np.testing.assert_allclose(uniform_instants(2.0, 6.0, 4), [2.5, 3.5, 4.5, 5.5])


def test_one_instant_is_the_middle() -> None:
    np.testing.assert_allclose(uniform_instants(0.0, 3.0, 1), [1.5])


def test_every_instant_shows_the_last_frame_whose_time_has_come() -> None:
    times = np.array([0.0, 0.1, 0.5])
    shown = frames_on_screen(times, np.array([-1.0, 0.0, 0.09, 0.1, 0.49, 0.5, 9.0]))
    assert shown.tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_the_grid_of_half_the_frames_lies_between_the_full_grid() -> None:
    fine, coarse = uniform_instants(0.0, 8.0, 8), uniform_instants(0.0, 8.0, 4)
    np.testing.assert_allclose(coarse, (fine[::2] + fine[1::2]) / 2)


@pytest.mark.parametrize(("start", "end", "count"), [(1.0, 1.0, 4), (2.0, 1.0, 4), (0.0, 1.0, 0)])
def test_a_clip_without_length_or_frames_is_refused(start: float, end: float, count: int) -> None:
    with pytest.raises(ValueError, match=r"no length|num_frames"):
        uniform_instants(start, end, count)


def test_a_rate_gives_the_centres_of_its_periods_from_the_start_of_the_clip() -> None:
    np.testing.assert_allclose(rate_instants(1.2, 3.2, 2.0), [1.45, 1.95, 2.45, 2.95])


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0.1, [0.05]), (0.49, [0.245]), (0.5, [0.25]), (0.74, [0.25]), (0.76, [0.25, 0.75]), (1.0, [0.25, 0.75])],
)
def test_a_rate_gives_the_rounded_number_of_periods_and_at_least_the_middle(
    length: float, expected: list[float]
) -> None:
    np.testing.assert_allclose(rate_instants(0.0, length, 2.0), expected)


@pytest.mark.parametrize(("fps", "tick"), [(30.0, 1 / 15360), (30000 / 1001, 0.001), (25.0, 1 / 25), (24.0, 1 / 90000)])
def test_the_rate_of_the_video_itself_gives_every_frame_once(fps: float, tick: float) -> None:
    times = np.round(np.arange(3000) / fps / tick) * tick  # as a container rounds them to its clock
    shown = frames_on_screen(times, rate_instants(0.0, 3000 / fps, fps))
    np.testing.assert_array_equal(shown, np.arange(3000))


def test_every_instant_of_a_rate_lies_inside_its_clip() -> None:
    generator = np.random.default_rng(0)
    for start, length, fps in zip(*generator.uniform(0.01, 50, (3, 500)), strict=True):
        instants = rate_instants(start, start + length, fps)
        assert instants[0] > start
        assert instants[-1] < start + length
        assert len(instants) == max(1, round(length * fps))


def test_every_nth_frame_counts_frames_and_not_time() -> None:
    assert nth(0.0, DURATION, 1) == [0, 1, 2, 3, 4, 5]
    assert nth(0.0, DURATION, 2) == [0, 2, 4]
    assert nth(0.0, DURATION, 9) == [0]


def test_every_nth_frame_starts_with_the_one_on_screen_and_ends_before_the_end() -> None:
    assert nth(0.2, 1.4, 1) == [2, 3]
    assert nth(0.4, 1.41, 1) == [3, 4]
    assert nth(0.5, 0.6, 1) == [3]


def test_spans_that_were_rounded_to_the_container_s_clock_begin_with_their_own_frame() -> None:
    times = np.round(np.arange(90) * 1001 / 30) / 1000  # milliseconds, as Matroska has them
    for first in range(1, 80, 7):
        start, end = first * 1.001 / 30, (first + 5) * 1.001 / 30
        instants = nth_frame_instants(times, start, end, 1, duration=90 * 1.001 / 30, tick=0.001)
        assert frames_on_screen(times, instants).tolist() == list(range(first, first + 5))


def test_the_instants_of_frames_are_far_from_both_neighbours() -> None:
    instants = middles(VARIABLE, DURATION)
    for noise in (-0.015, 0.015):
        assert frames_on_screen(VARIABLE, instants + noise).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"fps": 1.0, "every_nth": 2},
        {"num_frames": 4, "fps": 1.0},
        {"fps": -1.0},
        {"every_nth": -2},
        {"fps": math.nan},
        {"fps": math.inf},
    ],
)
def test_a_sampling_is_exactly_one_positive_number(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Sampling(**given)  # type: ignore[arg-type]


def test_the_fingerprint_of_uniform_sampling_is_what_it_always_was_and_others_differ() -> None:
    assert Sampling(num_frames=64).to_json() == {"instants": "centres of equal segments", "num_frames": 64}
    assert Sampling(fps=2).to_json()["fps"] == 2.0
    assert isinstance(Sampling(fps=2).to_json()["fps"], float)  # 2 and 2.0 are one setting and must be one digest
    assert Sampling(every_nth=2).to_json()["every_nth"] == 2


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(num_frames=9), 9),
        (Sampling(fps=2.0), 20),
        (Sampling(every_nth=5), 60),
        (Sampling(fps=0.01), 1),
        (Sampling(every_nth=999), 1),
    ],
)
def test_the_expected_rows_of_ten_seconds_at_thirty_frames(sampling: Sampling, expected: float) -> None:
    assert sampling.expected_rows(10.0, 30.0) == expected
    assert (sampling.rows_per_clip is None) == (sampling.num_frames == 0)
