import numpy as np
import pytest

from extract.video.sampling import frames_on_screen, uniform_instants


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
