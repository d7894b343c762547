from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cache.skeletons import COCO_17, TOYOTA_13, Skeleton
from extract.preview.clip_view import Figure
from extract.preview.person import LEFT, MIDDLE, RIGHT, box_label, draw_person, limb_colour, sides
from tests.extract.preview.people import BACKGROUND, HEIGHT, WIDTH, standing

Pixels = npt.NDArray[np.int64]
NO_BOX = np.full(4, np.nan, np.float32)


def figure(skeleton: Skeleton = COCO_17, **values: object) -> Figure:
    person = Figure(
        seconds=0.0,
        frame_index=0,
        jpeg=None,
        xy=standing(skeleton, 1)[0],
        score=np.full(skeleton.num_joints, 0.9, np.float32),
        valid=1,
        box=NO_BOX,
        box_score=0.8,
        box_source=0,
    )
    return replace(person, **values)  # type: ignore[arg-type]


def drawn(person: Figure, skeleton: Skeleton = COCO_17, zoom: float = 4.0) -> Pixels:
    """(H, W, 3) of a picture that is `zoom` times as large as the source."""
    picture = Image.new("RGB", (round(WIDTH * zoom), round(HEIGHT * zoom)), BACKGROUND)
    found = draw_person(picture, person, skeleton, scale=(zoom, zoom), min_score=0.3)
    return np.asarray(found).astype(np.int64)


def only(joints: list[int], score: float = 0.9) -> npt.NDArray[np.float32]:
    scores = np.zeros(17, np.float32)
    scores[joints] = score
    return scores


@pytest.mark.parametrize("zoom", [0.5, 1.0, 2.5, 4.0])
def test_a_joint_lies_where_its_pixel_is_in_a_picture_of_another_size(zoom: float) -> None:
    changed = np.abs(drawn(figure(score=only([9])), zoom=zoom) - BACKGROUND).sum(axis=-1)
    rows, columns = np.mgrid[: changed.shape[0], : changed.shape[1]]
    centre = np.array([(columns * changed).sum(), (rows * changed).sum()]) / changed.sum()
    np.testing.assert_allclose(centre, (standing(COCO_17, 1)[0, 9] + 0.5) * zoom - 0.5, atol=0.3)


@pytest.mark.parametrize("skeleton", [COCO_17, TOYOTA_13], ids=lambda skeleton: skeleton.name)
def test_every_joint_has_the_colour_of_its_side(skeleton: Skeleton) -> None:
    person = figure(skeleton)
    picture = drawn(person, skeleton)
    for (x, y), colour, name in zip(person.xy, sides(skeleton), skeleton.joint_names, strict=True):
        expected = {"left": LEFT, "right": RIGHT}.get(name.partition("_")[0], MIDDLE)
        assert colour == expected
        np.testing.assert_allclose(picture[round(4 * y + 1.5), round(4 * x + 1.5)], expected, atol=2, err_msg=name)


def test_limbs_take_the_side_of_their_ends() -> None:
    assert limb_colour(LEFT, LEFT) == LEFT
    assert limb_colour(MIDDLE, RIGHT) == limb_colour(RIGHT, MIDDLE) == RIGHT
    assert limb_colour(LEFT, RIGHT) == MIDDLE


def test_every_limb_of_the_table_is_drawn_and_no_other() -> None:
    for first, second in [(7, 9), (5, 11), (11, 12), (9, 10), (0, 16)]:
        middle = (standing(COCO_17, 1)[0, [first, second]].mean(axis=0) * 4 + 1.5).round().astype(int)
        pixel = drawn(figure(score=only([first, second])))[middle[1], middle[0]]
        assert ((pixel != BACKGROUND).any()) == ((first, second) in COCO_17.limbs)


def test_a_missing_joint_takes_its_limbs_along() -> None:
    x, y = (standing(COCO_17, 1)[0, [7, 9]].mean(axis=0) * 4 + 1.5).round().astype(int)
    assert (drawn(figure(score=only([5, 7, 9])))[y, x] == LEFT).all()
    assert (drawn(figure(score=only([5, 9])))[y, x] == BACKGROUND).all()


def test_doubtful_joints_are_faint() -> None:
    x, y = (standing(COCO_17, 1)[0, 9] * 4 + 1.5).round().astype(int)
    clear, faint = (drawn(figure(score=only([9], score)))[y, x] for score in (0.31, 0.29))
    np.testing.assert_allclose(clear, LEFT, atol=2)
    share = (faint - np.array(BACKGROUND)) / (np.array(LEFT) - BACKGROUND)
    assert (share > 0.2).all()
    assert (share < 0.5).all()


def test_boxes_are_drawn_and_interpolated_ones_are_dashed() -> None:
    nobody, box = np.zeros(17, np.float32), np.array([30, 10, 130, 110], np.float32)

    def share_drawn(person: Figure) -> float:
        """Of the box's right edge."""
        return float((drawn(person)[60:420, 520:524] != BACKGROUND).any(axis=(1, 2)).mean())

    assert share_drawn(figure(score=nobody)) == 0
    assert share_drawn(figure(score=nobody, box=box, box_source=1)) == 1
    assert 0.4 < share_drawn(figure(score=nobody, box=box, box_source=4)) < 0.8


def test_a_box_that_leaves_the_frame_is_drawn_along_its_border() -> None:
    outside = np.array([-500, -500, 900, 900], np.float32)
    picture = drawn(figure(score=np.zeros(17, np.float32), box=outside, box_source=2))
    assert (picture[:, -1] != BACKGROUND).any(axis=-1).all()
    assert (picture[200:280, 200:400] == BACKGROUND).all()


def test_the_tag_of_a_box_names_its_source() -> None:
    assert box_label(figure(box_source=3)) == "detector 0.80"
    assert box_label(figure(box_source=4)) == "interpolated 0.80"
    assert box_label(figure(box_source=2)) == "whole frame"
