from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cache.skeletons import COCO_17
from train.models.pevl_config import PeVLConfig
from train.views import View, crop_views, joints_on_picture, random_view, view_frames, view_joints

SIZE = 56
CONFIG = PeVLConfig()
STILL = np.arange(1)
Extent = tuple[int, int]


def dot_at(x: int, y: int, source: Extent, picture: Extent) -> torch.Tensor:
    """(1, 3, H, W): a white square of 5 source pixels around pixel (x, y), resized as extraction resizes."""
    pixels = np.zeros((*source, 3), np.uint8)
    pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
    resized = Image.fromarray(pixels).resize((picture[1], picture[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None]


def dot_in(frame: torch.Tensor) -> tuple[float, float]:
    """x and y of the centre of what is white in (3, H, W), pixel i covering [i, i + 1)."""
    light = frame.float().mean(0)
    light = torch.where(light > 100, light, 0.0)
    along_x, along_y = light.sum(0), light.sum(1)
    return tuple(float((line * (torch.arange(len(line)) + 0.5)).sum() / line.sum()) for line in (along_x, along_y))  # type: ignore[return-value]


def seen_joint(x: float, y: float, view: View) -> torch.Tensor:
    """(3,) one joint given in JPEG pixels that stand for source pixels."""
    joints = joints_on_picture(torch.tensor([[[x, y, 1.0]]]), (48, 64), (48, 64))
    return view_joints(joints, view, flip_order=STILL, min_score=0.3)[0, 0]


def some_views(picture: Extent) -> list[View]:
    drawn = [
        random_view(*picture, config=CONFIG, size=SIZE, generator=np.random.default_rng(seed)) for seed in range(40)
    ]
    fixed = crop_views(*picture, size=SIZE, crops=3)
    return [*drawn, *fixed, *(replace(view, mirrored=True) for view in fixed)]


@pytest.mark.parametrize(
    ("source", "picture"),
    [((48, 64), (48, 64)), ((97, 131), (48, 65)), ((131, 97), (65, 48)), ((40, 40), (40, 40))],
)
def test_a_dot_drawn_at_a_joint_is_found_at_the_moved_joint(source: Extent, picture: Extent) -> None:
    generator = np.random.default_rng(3)
    found, mirrored = 0, 0
    for view in some_views(picture):
        x, y = (int(generator.integers(2, side - 2)) for side in (source[1], source[0]))
        joints = joints_on_picture(torch.tensor([[[x, y, 1.0]]]), source, picture)
        moved = view_joints(joints, view, flip_order=STILL, min_score=0.3)[0, 0]
        half = 3 * SIZE / min(view.height, view.width)  # a square that the border cuts has its centre elsewhere
        if moved[2] and half < float(moved[:2].min()) and float(moved[:2].max()) < SIZE - half:
            frames = view_frames(dot_at(x, y, source, picture), view)
            assert dot_in(frames[0]) == pytest.approx(moved[:2].tolist(), abs=0.6), view
            found, mirrored = found + 1, mirrored + view.mirrored
    assert found > 10
    assert mirrored > 3


def test_the_first_and_the_last_pixel_of_a_box_are_in_and_their_neighbours_out() -> None:
    view = View(top=8, left=4, height=16, width=32, size=32)
    assert seen_joint(4, 8, view).tolist() == [0.5, 1.0, 1.0]
    assert seen_joint(35, 23, view).tolist() == [31.5, 31.0, 1.0]
    assert seen_joint(3.5, 7.5, view).tolist() == [0.0, 0.0, 1.0]
    for x, y in ((3, 8), (4, 7), (36, 23), (35, 24), (35.5, 23), (35, 23.5)):
        assert seen_joint(x, y, view).tolist() == [0.0, 0.0, 0.0]


def test_each_axis_of_the_video_has_its_own_scale() -> None:
    joints = torch.tensor([[[0.0, 0.0, 0.7], [63.0, 47.0, 0.2]]])
    moved = joints_on_picture(joints, (48, 64), (24, 48))
    assert torch.allclose(moved, torch.tensor([[[0.375, 0.25, 0.7], [47.625, 23.75, 0.2]]]))


def test_a_crop_shifts_and_a_flip_mirrors_joints() -> None:
    view = View(top=0, left=0, height=48, width=48, size=48)
    plain = seen_joint(20, 30, view)
    shifted = seen_joint(20, 30, replace(view, top=5, left=7))
    assert (plain - shifted).tolist() == [7.0, 5.0, 0.0]
    mirrored = seen_joint(20, 30, replace(view, mirrored=True))
    assert mirrored.tolist() == [48 - plain[0], plain[1], 1.0]


def test_a_mirrored_left_wrist_stands_in_the_row_of_the_right_wrist() -> None:
    left, right = (COCO_17.joint_names.index(f"{side}_wrist") for side in ("left", "right"))
    joints = torch.full((2, 17, 3), torch.nan)
    joints[..., 2] = 0
    joints[1, left] = torch.tensor([10.0, 20.0, 0.9])
    view = View(top=0, left=0, height=48, width=48, size=48, mirrored=True)
    moved = view_joints(joints, view, flip_order=COCO_17.flip_order, min_score=0.3)
    assert moved[1, right].tolist() == pytest.approx([38.0, 20.0, 0.9])
    assert moved.count_nonzero() == 3


@pytest.mark.parametrize(("x", "score"), [(torch.nan, 0.0), (10.0, 0.29), (10.0, 0.0), (10.0, -0.1), (-1.0, 0.9)])
def test_a_missing_uncertain_or_outer_joint_is_all_zero(x: float, score: float) -> None:
    view = View(top=0, left=0, height=48, width=48, size=48)
    joints = torch.tensor([[[x, x, score], [5.0, 6.0, 0.3]]])
    for least in (0.3, 0.0):
        moved = view_joints(joints, view, flip_order=np.arange(2), min_score=least)
        assert moved[0, 1].tolist() == pytest.approx([5.0, 6.0, 0.3])
        assert moved[0, 0].tolist() == [0.0, 0.0, 0.0] or (score == 0.29 and least == 0.0)


def test_the_three_crops_lie_at_both_ends_and_in_the_middle_of_the_longer_side() -> None:
    wide = crop_views(48, 65, size=SIZE, crops=3)
    assert [(view.top, view.left, view.height, view.width) for view in wide] == [
        (0, 0, 48, 48),
        (0, 8, 48, 48),
        (0, 17, 48, 48),
    ]
    tall = crop_views(65, 48, size=SIZE, crops=3)
    assert [(view.top, view.left) for view in tall] == [(0, 0), (8, 0), (17, 0)]
    assert crop_views(48, 65, size=SIZE, crops=1) == (wide[1],)


def test_three_crops_of_a_square_frame_are_one_view() -> None:
    first, *others = crop_views(48, 48, size=SIZE, crops=3)
    assert others == [first, first]


def test_views_of_whole_pixels_copy_them() -> None:
    frames = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    view = View(top=3, left=9, height=32, width=32, size=32)
    assert torch.equal(view_frames(frames, view), frames[:, :, 3:35, 9:41])
    assert torch.equal(view_frames(frames, replace(view, mirrored=True)), frames[:, :, 3:35, 9:41].flip(-1))


@pytest.mark.parametrize("picture", [(48, 64), (200, 90)])
def test_random_views_lie_in_the_picture_with_shares_and_aspects_over_the_whole_range(picture: Extent) -> None:
    config = PeVLConfig()
    generator = np.random.default_rng(0)
    drawn = [random_view(*picture, config=config, size=SIZE, generator=generator) for _ in range(600)]
    assert all(view.top >= 0 and view.top + view.height <= picture[0] for view in drawn)
    assert all(view.left >= 0 and view.left + view.width <= picture[1] for view in drawn)
    assert {view.top + view.height for view in drawn} >= {picture[0]}
    shares = np.array([view.height * view.width for view in drawn]) / (picture[0] * picture[1])
    aspects = np.array([view.width / view.height for view in drawn])
    rounding = 0.1
    assert 0.08 * (1 - rounding) < shares.min() < 0.12
    assert (0.3 if picture == (200, 90) else 0.7) < shares.max() <= 1
    assert 0.75 * (1 - rounding) < aspects.min() < 0.8
    assert 1.25 < aspects.max() < 4 / 3 * (1 + rounding)
    assert 0.4 < np.mean([view.mirrored for view in drawn]) < 0.6


def test_a_crop_that_never_fits_is_the_centre_square() -> None:
    config = PeVLConfig(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0)
    view = random_view(48, 64, config=config, size=SIZE, generator=np.random.default_rng(0))
    assert view == View(top=0, left=8, height=48, width=48, size=SIZE)


def test_a_tiny_picture_still_has_a_view() -> None:
    for seed in range(50):
        view = random_view(3, 2, config=PeVLConfig(), size=8, generator=np.random.default_rng(seed))
        assert view_frames(torch.zeros(1, 3, 3, 2, dtype=torch.uint8), view).shape == (1, 3, 8, 8)
