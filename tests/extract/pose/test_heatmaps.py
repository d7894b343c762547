from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cache.skeletons import COCO_17
from extract.pose.heatmaps import decode_joints, find_peaks, merge_mirrored, refine_dark, refine_msra

BOX = [[100.0, 50.0, 220.0, 370.0]]  # its region is centred at (160, 210), 300 x 400

Peaks = Mapping[tuple[int, int], float]

# Values at [y, x] of an empty 64 x 48 map -> x, y in the map, x, y in the image, score: from the official decoder.
CASES: dict[str, tuple[Peaks, tuple[float, float], tuple[float, float], float]] = {
    "quarter pixels towards the larger neighbours": (
        {(30, 20): 1, (30, 21): 0.6, (30, 19): 0.5, (29, 20): 0.7, (31, 20): 0.4},
        (20.25, 29.75),
        (136.5625, 195.9375),
        1.0,
    ),
    "the first of two equal maxima": ({(10, 5): 0.8, (40, 30): 0.8}, (5, 10), (41.25, 72.5), 0.8),
    "no shift at x = 1": ({(30, 1): 0.9, (30, 2): 0.5}, (1, 30), (16.25, 197.5), 0.9),
    "a shift at x = 46": ({(30, 46): 0.9, (30, 47): 0.5}, (46.25, 30), (299.0625, 197.5), 0.9),
    "no shift at x = 47": ({(30, 47): 0.9, (30, 46): 0.5}, (47, 30), (303.75, 197.5), 0.9),
    "no shift in the last row": ({(63, 20): 0.9, (63, 21): 0.5}, (20, 63), (135, 403.75), 0.9),
    "no shift between equal neighbours": ({(30, 20): 1, (30, 19): 0.5, (30, 21): 0.5}, (20, 30), (135, 197.5), 1.0),
}


def heatmap(values: Peaks) -> npt.NDArray[np.float32]:
    maps = np.zeros((1, 1, 64, 48), np.float32)
    for (y, x), value in values.items():
        maps[0, 0, y, x] = value
    return maps


def gaussian(x: float, y: float, sigma: float = 2.0) -> npt.NDArray[np.float32]:
    rows, columns = np.mgrid[:64, :48]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)).astype(np.float32)[None, None]


@pytest.mark.parametrize("case", CASES)
def test_joints_are_where_the_official_decoder_puts_them(case: str) -> None:
    values, in_map, in_image, expected_score = CASES[case]
    maps = heatmap(values)
    assert refine_msra(maps, find_peaks(maps)[0])[0, 0].tolist() == list(in_map)
    xy, score = decode_joints(maps, BOX, codec="msra")
    assert xy[0, 0].tolist() == list(in_image)
    assert score[0, 0] == pytest.approx(expected_score)


def test_a_map_without_a_positive_value_is_a_missing_joint() -> None:
    maps = np.concatenate([np.full((1, 1, 64, 48), -0.1, np.float32), heatmap({(30, 20): 1})], axis=1)
    xy, score = decode_joints(maps, BOX, codec="msra")
    assert np.isnan(xy[0, 0]).all()
    assert score[0].tolist() == [0.0, 1.0]
    assert xy[0, 1].tolist() == [135, 197.5]


def test_a_gaussian_between_pixels() -> None:
    maps = gaussian(20.3, 29.6)
    xy, score = decode_joints(maps, BOX, codec="msra")
    assert xy[0, 0].tolist() == [136.5625, 195.9375]
    assert score[0, 0] == pytest.approx(0.969, abs=1e-3)
    dark = refine_dark(maps, find_peaks(maps)[0])[0, 0]
    assert dark == pytest.approx([20.2998, 29.6002], abs=1e-4)


def test_dark_finds_gaussians_better_than_a_quarter_shift() -> None:
    generator = np.random.default_rng(0)
    for x, y in generator.uniform([8, 8], [40, 56], (20, 2)):
        dark = refine_dark(gaussian(x, y), find_peaks(gaussian(x, y))[0])[0, 0]
        assert np.abs(dark - (x, y)).max() < 0.01


def test_dark_leaves_peaks_at_the_border() -> None:
    maps = gaussian(0, 63)
    assert refine_dark(maps, find_peaks(maps)[0])[0, 0].tolist() == [0, 63]


def test_people_and_joints_keep_their_places() -> None:
    maps = np.zeros((3, 2, 64, 48), np.float32)
    for person in range(3):
        for joint in range(2):
            maps[person, joint, 10 * person + 5, 7 * joint + 3] = 1
    boxes = np.tile([[0.0, 0.0, 192 / 1.25, 256 / 1.25]], (3, 1))  # 4 image pixels per map pixel
    xy, _ = decode_joints(maps, boxes, codec="msra")
    step = xy - xy[:1, :1]
    np.testing.assert_allclose(step[..., 0], [[0, 28]] * 3, atol=1e-3)
    np.testing.assert_allclose(step[..., 1], [[0, 0], [40, 40], [80, 80]], atol=1e-3)


def test_heatmaps_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        decode_joints(np.full((1, 1, 64, 48), np.nan, np.float32), BOX, codec="msra")


def test_merging_with_the_mirror_image_swaps_sides_and_shifts_by_one() -> None:
    heatmaps = torch.zeros(1, 17, 4, 6)
    mirrored = torch.zeros(1, 17, 4, 6)
    mirrored[0, 9, 2, 1] = 1.0  # left wrist of the mirror image: the right wrist, 4 columns from the left
    merged = merge_mirrored(heatmaps, mirrored, COCO_17.flip_order)
    assert merged.nonzero().tolist() == [[0, 10, 2, 5]]
    assert merged.max() == 0.5


def test_the_first_column_of_a_turned_map_stays() -> None:
    mirrored = torch.rand(1, 17, 4, 6, generator=torch.Generator().manual_seed(0))
    merged = merge_mirrored(torch.zeros_like(mirrored), mirrored, np.arange(17))
    assert torch.equal(merged[..., 0] * 2, mirrored[..., 5])
    assert torch.equal(merged[..., 1] * 2, mirrored[..., 5])
