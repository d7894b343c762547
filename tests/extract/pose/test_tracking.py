from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from extract.config import PoseConfig
from extract.pose.boxes import DETECTOR, Boxes, Sightings
from extract.pose.tracking import clean, follow, join, weight

HEIGHT, WIDTH = 480, 640
Floats = npt.NDArray[np.float32]


def people(*boxes: Sequence[float]) -> Floats:
    return np.array(boxes, np.float32).reshape(-1, 5)


def person(x: float, y: float = 240, score: float = 0.9, height: float = 160) -> list[float]:
    """A standing person around (x, y)."""
    width = height * 3 / 8
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2, score]


def followed(candidates: Sequence[Floats], frames: Sequence[int] | None = None, **values: object) -> Boxes:
    looked_at = np.array(range(len(candidates)) if frames is None else frames, np.int64)
    wanted = np.arange(looked_at.max(initial=-1) + 1)
    config = PoseConfig(**values)  # type: ignore[arg-type]
    return follow(candidates, looked_at, wanted, HEIGHT, WIDTH, config, source=DETECTOR)


def two_who_cross(speed: float, num_frames: int, seed: int) -> tuple[list[Floats], list[list[list[float]]]]:
    """Two people who walk through each other's place, as a detector sees them: one box while they overlap by half."""
    rng = np.random.default_rng(seed)
    seen, truth = [], []
    for frame in range(num_frames):
        moved = speed * (frame - num_frames / 2)
        pair = [person(320 + moved, score=0.95), person(320 - 0.8 * moved, y=250, score=0.9, height=140)]
        noisy = [np.add(box, [*rng.normal(0, 1, 4), rng.normal(0, 0.02)]).astype(np.float32).tolist() for box in pair]
        hidden = abs(1.8 * moved) < 20 or rng.random() < 0.03  # 20 pixels apart: their boxes overlap by half
        visible = [max(noisy, key=lambda box: box[4])] if hidden else noisy
        seen.append(people(*rng.permutation(visible)))
        truth.append(noisy)
    return seen, truth


@pytest.mark.parametrize(("speed", "num_frames"), [(3.0, 60), (4.4, 60), (13.0, 40), (26.0, 20)])
def test_two_people_who_cross_keep_their_identities(speed: float, num_frames: int) -> None:
    """160 pixels tall, they walk at 4.4 pixels a frame of 30 per second, and at 26 of 5 per second."""
    for seed in range(5):
        seen, truth = two_who_cross(speed, num_frames, seed)
        tracks = join(seen, np.arange(num_frames), max_gap=10)
        assert len(tracks) == 2
        for track in tracks:
            apart = np.abs(1.8 * speed * (track.frames - num_frames / 2)) > 60
            who = [truth[frame].index(box.tolist()) for frame, box in zip(track.frames, track.boxes, strict=True)]
            assert len(set(np.array(who)[apart])) == 1, f"seed {seed}"
            assert {track.frames[apart][0] < num_frames / 3, track.frames[apart][-1] > num_frames * 2 / 3} == {True}


def test_a_short_gap_is_filled_and_a_long_one_stays_empty() -> None:
    moving = [people(person(100 + frame)) for frame in range(40)]
    nobody = people()
    for frame in (5, 6, 7, *range(15, 26)):  # 4 to 8 are 4 apart; 14 to 26 are 12 apart
        moving[frame] = nobody
    boxes = followed(moving)
    assert boxes.source.tolist() == [3] * 5 + [4] * 3 + [3] * 7 + [0] * 11 + [3] * 14
    assert boxes.valid.tolist() == [1] * 5 + [2] * 3 + [1] * 7 + [0] * 11 + [1] * 14
    assert boxes.track_id.tolist() == [0] * 15 + [-1] * 11 + [0] * 14
    np.testing.assert_array_equal(boxes.xyxy[6], np.array(person(106), np.float32)[:4])
    assert np.isnan(boxes.xyxy[15:26]).all()
    assert (boxes.score[15:26] == 0).all()


def test_who_left_before_the_clip_does_not_beat_who_is_in_it() -> None:
    large, small = person(320, score=0.99, height=300), person(60, 60, score=0.6, height=60)
    seen = [people(*[large] * (frame < 6), *[small] * (frame >= 10)) for frame in range(12)]
    config = PoseConfig()
    clip = follow(seen, np.arange(12), np.arange(10, 20), HEIGHT, WIDTH, config, source=DETECTOR)
    assert clip.source.tolist() == [3, 3] + [0] * 8
    np.testing.assert_array_equal(clip.xyxy[:2], np.array([small, small], np.float32)[:, :4])
    assert len(follow(seen, np.arange(12), np.arange(0), HEIGHT, WIDTH, config, source=DETECTOR).source) == 0


@pytest.mark.parametrize(("max_gap", "filled"), [(3, False), (4, True)])
def test_the_longest_gap_is_a_setting(max_gap: int, filled: bool) -> None:
    candidates = [people(person(100))] + [people()] * 3 + [people(person(100))]
    assert (followed(candidates, max_gap=max_gap).source[1:4] == 4).all() == filled


def test_boxes_between_looks_are_those_of_numpys_interpolation() -> None:
    rng = np.random.default_rng(0)
    frames = np.array([0, 3, 7, 12, 22])
    seen = [np.array(person(200 + 3 * frame, score=rng.uniform(0.5, 1)), np.float32) for frame in frames]
    boxes = followed([people(box.tolist()) for box in seen], frames.tolist())
    for column in range(4):
        expected = np.interp(np.arange(23), frames, np.array(seen)[:, column])
        np.testing.assert_allclose(boxes.xyxy[:, column], expected, rtol=1e-6)
    np.testing.assert_allclose(boxes.score, np.interp(np.arange(23), frames, np.array(seen)[:, 4]), rtol=1e-6)
    assert (boxes.source == 3).sum() == 5
    assert boxes.xyxy.dtype == boxes.score.dtype == np.float32


def test_the_order_of_candidates_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    crowd = [
        people(*(person(60 + 90 * number + 2 * frame, score=0.6 + 0.05 * (number % 3)) for number in range(6)))
        for frame in range(12)
    ]
    shuffled = [rng.permutation(boxes) for boxes in crowd]
    first, second = followed(crowd), followed(shuffled)
    np.testing.assert_array_equal(first.xyxy, second.xyxy)
    np.testing.assert_array_equal(first.track_id, second.track_id)


def test_the_main_person_is_the_one_with_the_largest_weight() -> None:
    """In the centre: n frames of score x sqrt(area). At a distance of 0.35 diagonals it counts exp(-1/2)."""
    centre, aside = [220, 140, 420, 340, 0.8], [220 + 280, 140, 420 + 280, 340, 0.8]  # 0.35 of 800 pixels to the right
    sightings = [Sightings(frames=np.arange(3), boxes=people(*[box] * 3)) for box in (centre, aside)]
    assert weight(sightings[0], HEIGHT, WIDTH) == pytest.approx(3 * 0.8 * 200)
    assert weight(sightings[1], HEIGHT, WIDTH) == pytest.approx(3 * 0.8 * 200 * np.exp(-0.5))
    judge, athlete = person(60, score=0.99, height=150), person(330, score=0.7, height=200)
    boxes = followed([people(judge, athlete)] * 4)
    assert boxes.xyxy[:, 0].tolist() == [person(330, height=200)[0]] * 4
    assert boxes.track_id.tolist() == [1] * 4  # the judge, more certain, was seen first


def test_who_is_there_longer_wins_over_who_passes_by() -> None:
    athlete = [people(person(200)) for _ in range(12)]
    for frame in (5, 6):
        athlete[frame] = people(person(200), person(400, score=0.99, height=300))
    assert (followed(athlete).xyxy[:, 0] == person(200)[0]).all()


def test_a_box_inside_of_a_better_one_is_the_same_person() -> None:
    whole, torso = [100, 100, 200, 400, 0.9], [110, 110, 190, 250, 0.8]
    beside = [190, 100, 290, 400, 0.7]
    config = PoseConfig()
    kept = clean(people(torso, beside, whole, whole), HEIGHT, WIDTH, config)
    assert kept.tolist() == people(whole, beside).tolist()
    better_torso = [*torso[:4], 0.95]  # a child in front of an adult is nobody's part
    assert len(clean(people(better_torso, whole), HEIGHT, WIDTH, config)) == 2


def test_small_and_uncertain_boxes_are_nobody() -> None:
    tiny, unsure, empty = [0, 0, 20, 30, 0.9], person(300, score=0.4), [50, 50, 50, 90, 0.9]
    assert followed([people(tiny, unsure, empty)]).source.tolist() == [0]
    assert followed([people(unsure)], min_box_score=0.3).source.tolist() == [3]
    assert followed([people(tiny)], min_box_area=0.001).source.tolist() == [3]
    assert followed([people(empty)], min_box_area=0.0).source.tolist() == [0]


def test_who_comes_back_to_where_she_was_lost_is_known_again() -> None:
    here, elsewhere = people(person(200)), people(person(420))
    away = [people()] * 15
    assert [len(track.frames) for track in join([here, *away, here], np.arange(17), max_gap=10)] == [2]
    assert [len(track.frames) for track in join([here, *away, elsewhere], np.arange(17), max_gap=10)] == [1, 1]


def test_the_only_person_may_move_faster_than_boxes_overlap() -> None:
    steps = [people(person(100 + 90 * frame)) for frame in range(5)]
    assert len(join(steps, np.arange(5), max_gap=10)) == 1
    with_another = [people(*boxes.tolist(), person(320, y=60, height=100)) for boxes in steps]
    assert len(join(with_another, np.arange(5), max_gap=10)) > 2  # who is who cannot be known
    closer = [people(person(100)), people(person(190, height=240))]  # 2.25 times the area: a cut, or someone else
    assert len(join(closer, np.arange(2), max_gap=10)) == 2
    farther = [people(person(100)), people(person(265))]
    assert len(join(farther, np.arange(2), max_gap=10)) == 2


def test_a_sighting_that_barely_overlaps_a_track_is_someone_else() -> None:
    def num_tracks(step: float) -> int:
        return len(
            join([people(person(100), person(400)), people(person(100 + step), person(400))], np.arange(2), max_gap=9)
        )

    assert num_tracks(30) == 2  # 60 wide: an overlap of 1/3
    assert num_tracks(34) == 3  # 0.28


def test_nobody_at_all_is_an_answer() -> None:
    boxes = followed([people()] * 3)
    assert boxes.source.tolist() == [0, 0, 0]
    assert boxes.track_id.tolist() == [-1, -1, -1]
    assert np.isnan(boxes.xyxy).all()
    assert len(followed([]).source) == 0
