"""Crop, ideal heatmap and decoding in a row: a point drawn in the frame has to come back."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cache.skeletons import COCO_17
from extract.pose.crop import MEAN, STD, crop_people, crop_regions
from extract.pose.heatmaps import decode_joints, find_peaks, merge_mirrored, refine_udp

Floats = npt.NDArray[np.float64]

HEIGHT, WIDTH = 256, 192
BOX = [[100.0, 50.0, 220.0, 370.0]]  # its region is centred at (160, 210), 300 x 400
SIGMA = 2.0  # heatmap pixels


def frame_with_a_point(x: float, y: float) -> torch.Tensor:
    """(1, 420, 330, 3) with a soft white point."""
    rows, columns = np.mgrid[:420, :330]
    blob = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 8.0**2))
    return torch.from_numpy(np.repeat((255 * blob)[None, ..., None], 3, axis=-1).round().astype(np.uint8))


def brightest_point(crop: torch.Tensor) -> Floats:
    """x and y in crop pixels: the centre of gravity of the light."""
    light = ((crop[0, 0] * STD[0] + MEAN[0]) * 255).double().clamp(min=2).numpy() - 2
    rows, columns = np.mgrid[: light.shape[0], : light.shape[1]]
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()


def gaussian(point: Floats, height: int = 64, width: int = 48) -> npt.NDArray[np.float32]:
    rows, columns = np.mgrid[:height, :width]
    squared = (columns - point[0]) ** 2 + (rows - point[1]) ** 2
    return np.exp(-squared / (2 * SIGMA**2)).astype(np.float32)[None, None]


def quarters(point: Floats) -> Floats:
    """The nearest point that a quarter shift can express: the codec `msra` promises no more."""
    return np.round(point - 0.25) + 0.25


def to_heatmap(codec: str) -> Callable[[Floats], Floats]:
    """Crop pixels to heatmap pixels, as each codec's training data are made."""
    if codec == "udp":
        return lambda point: point * np.array([47 / 191, 63 / 255])
    return lambda point: point / 4


@pytest.mark.parametrize("codec", ["msra", "dark", "udp"])
@pytest.mark.parametrize("target", [(160.0, 210.0), (83.3, 141.7), (245.1, 301.9)])
def test_a_point_in_the_frame_comes_back(codec: str, target: tuple[float, float]) -> None:
    if codec == "msra":  # a point that lies on a quarter of a heatmap pixel
        scale = 300 / 48
        target = tuple((quarters((np.array(target) - (10, 10)) / scale) * scale + 10).tolist())
    crop = crop_people(frame_with_a_point(*target), BOX, height=HEIGHT, width=WIDTH, codec=codec)
    maps = gaussian(to_heatmap(codec)(brightest_point(crop)))
    xy, _ = decode_joints(maps, BOX, codec=codec)
    np.testing.assert_allclose(xy[0, 0], target, atol=0.1)


def test_the_crops_of_two_codecs_differ_by_the_pixel_that_udp_does_not_count() -> None:
    frame = frame_with_a_point(280.0, 380.0)
    plain, udp = (
        brightest_point(crop_people(frame, BOX, height=HEIGHT, width=WIDTH, codec=codec)) for codec in ("msra", "udp")
    )
    # x' = (x - cx + Sx / 2) * W / Sx, or W - 1 in place of W
    np.testing.assert_allclose(plain, [270 * 192 / 300, 370 * 256 / 400], atol=0.05)
    np.testing.assert_allclose(udp, [270 * 191 / 300, 370 * 255 / 400], atol=0.05)


def test_the_region_of_udp_ends_at_the_centres_of_the_last_pixels() -> None:
    frame = torch.zeros(1, 41, 31, 3, dtype=torch.uint8)
    frame[0, 0, 0], frame[0, 40, 30] = 100, 200
    box = [[3.0, 4.0, 27.0, 36.0]]  # a region of 30 x 40 pixels from (0, 0) on
    centre, size = crop_regions(box, 64, 48)
    assert [*centre[0], *size[0]] == [15, 20, 30, 40]
    crop = crop_people(frame, box, height=64, width=48, codec="udp")[0, 0] * STD[0] + MEAN[0]
    assert crop[0, 0].item() * 255 == pytest.approx(100, abs=0.01)
    assert crop[-1, -1].item() * 255 == pytest.approx(200, abs=0.01)


def test_udp_decodes_the_worked_example() -> None:
    maps = gaussian(np.array([20.3, 29.6]))
    assert refine_udp(maps, find_peaks(maps)[0])[0, 0] == pytest.approx([20.3, 29.6], abs=1e-4)
    xy, score = decode_joints(maps, BOX, codec="udp")
    # X = p / (w - 1) * S + c - S / 2
    assert xy[0, 0] == pytest.approx([20.3 / 47 * 300 + 10, 29.6 / 63 * 400 + 10], abs=1e-3)
    assert score[0, 0] == pytest.approx(0.969, abs=1e-3)


def one_by_one(maps: npt.NDArray[np.float32]) -> Floats:
    """UDP's step for every map by itself, with a matrix inverse; the maps are blurred already."""
    peaks = find_peaks(maps)[0].astype(np.float64)
    for person, joint in np.ndindex(maps.shape[:2]):
        at = np.pad(np.log(np.clip(maps[person, joint].astype(np.float64), 1e-3, 50)), 1, mode="edge")
        x, y = find_peaks(maps)[0][person, joint] + 1
        gradient = np.array([at[y, x + 1] - at[y, x - 1], at[y + 1, x] - at[y - 1, x]]) / 2
        xx, yy = at[y, x + 1] - 2 * at[y, x] + at[y, x - 1], at[y + 1, x] - 2 * at[y, x] + at[y - 1, x]
        beside = at[y, x + 1] + at[y + 1, x] + at[y, x - 1] + at[y - 1, x]
        xy = (at[y + 1, x + 1] + at[y - 1, x - 1] + 2 * at[y, x] - beside) / 2
        peaks[person, joint] -= np.linalg.inv(np.array([[xx, xy], [xy, yy]])) @ gradient
    return peaks


def test_udp_equals_a_second_implementation_also_at_the_border(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extract.pose.heatmaps._blur", lambda maps: maps)
    generator = np.random.default_rng(0)
    points = [*generator.uniform([1, 1], [46, 62], (20, 2)), np.array([0.1, 0.2]), np.array([46.9, 62.8])]
    maps = np.concatenate([gaussian(point) * 0.8 + 0.01 for point in points])
    steps = refine_udp(maps, find_peaks(maps)[0])
    np.testing.assert_allclose(steps, one_by_one(maps), atol=1e-6)


def test_a_flat_map_leaves_the_peak_where_it_is() -> None:
    maps = np.full((1, 1, 64, 48), 1e-4, np.float32)  # below what UDP looks at
    assert refine_udp(maps, find_peaks(maps)[0])[0, 0].tolist() == [0, 0]


def test_the_mirror_image_of_udp_lies_on_the_image() -> None:
    maps = torch.from_numpy(np.tile(gaussian(np.array([20.3, 29.6])), (1, 17, 1, 1)))
    merged = merge_mirrored(maps, maps.flip(-1), np.arange(17), codec="udp")
    torch.testing.assert_close(merged, maps)
    swapped = merge_mirrored(torch.zeros_like(maps), maps.flip(-1), COCO_17.flip_order, codec="udp")
    torch.testing.assert_close(swapped, maps / 2)


def test_mirrored_crops_of_udp_are_crops_of_the_mirrored_frame() -> None:
    frame = torch.randint(0, 256, (1, 90, 101, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes = [[20.0, 10.0, 62.0, 80.0]], [[100 - 62.0, 10.0, 100 - 20.0, 80.0]]
    crop = crop_people(frame, boxes[0], height=64, width=48, codec="udp")
    mirrored = crop_people(frame.flip(2), boxes[1], height=64, width=48, codec="udp")
    torch.testing.assert_close(crop.flip(-1), mirrored, atol=1e-3, rtol=0)
