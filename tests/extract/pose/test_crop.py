import numpy as np
import pytest
import torch

from extract.pose.crop import MEAN, STD, crop_people, crop_regions


def denormalised(crops: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return (crops * std + mean) * 255


def random_frames(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def test_the_region_of_the_worked_example() -> None:
    centre, size = crop_regions([[100, 50, 220, 370]], 256, 192)
    assert centre.tolist() == [[160, 210]]
    assert size.tolist() == [[300, 400]]


def test_a_wide_box_grows_in_height_and_a_tall_one_in_width() -> None:
    _, size = crop_regions([[0, 0, 300, 100], [0, 0, 30, 400]], 256, 192)
    np.testing.assert_allclose(size, [[375, 500], [375, 500]])


@pytest.mark.parametrize("box", [[10, 10, 10, 20], [30, 10, 10, 20], [0, 0, float("nan"), 5]])
def test_boxes_without_area_are_refused(box: list[float]) -> None:
    with pytest.raises(ValueError, match="x1 < x2"):
        crop_regions([box], 256, 192)


def test_a_region_of_the_size_of_the_input_copies_pixels() -> None:
    frames = random_frames(2, 64, 48)
    box = [48 * 0.1, 64 * 0.1, 48 * 0.9, 64 * 0.9]  # enlarged by 1.25 it is the frame
    crops = denormalised(crop_people(frames, [box, box], height=64, width=48))
    torch.testing.assert_close(crops, frames.permute(0, 3, 1, 2).float(), atol=0.02, rtol=0)


def test_pixels_are_sampled_where_the_official_formula_says() -> None:
    frames = random_frames(1, 90, 120)
    box, height, width = [31.0, 12.5, 77.0, 60.25], 64, 48
    centre, size = crop_regions([box], height, width)
    crop = denormalised(crop_people(frames, [box], height=height, width=width))[0]
    picture = frames[0].permute(2, 0, 1).double()
    for u, v in [(0, 3), (5, 40), (24, 32), (47, 63)]:
        x = centre[0, 0] + (u - width / 2) * size[0, 0] / width
        y = centre[0, 1] + (v - height / 2) * size[0, 1] / height
        left, top = int(np.floor(x)), int(np.floor(y))
        a, b = x - left, y - top
        expected = (
            (1 - a) * (1 - b) * picture[:, top, left]
            + a * (1 - b) * picture[:, top, left + 1]
            + (1 - a) * b * picture[:, top + 1, left]
            + a * b * picture[:, top + 1, left + 1]
        )
        torch.testing.assert_close(crop[:, v, u].double(), expected, atol=0.1, rtol=0)


def test_outside_of_the_frame_is_black_before_normalisation() -> None:
    frames = torch.full((1, 40, 40, 3), 255, dtype=torch.uint8)
    crop = denormalised(crop_people(frames, [[30, 0, 70, 40]], height=64, width=48))[0]
    assert crop[:, :, -1].abs().max() < 1e-3
    torch.testing.assert_close(crop[:, 32, 0], torch.full((3,), 255.0), atol=0.1, rtol=0)


def test_a_crop_does_not_depend_on_its_neighbours() -> None:
    frames = random_frames(3, 70, 50)
    boxes = np.array([[5, 5, 30, 60], [0, 0, 50, 70], [-10, 20, 20, 90]])
    together = crop_people(frames, boxes, height=64, width=48)
    for i in range(3):
        assert torch.equal(together[i : i + 1], crop_people(frames[i : i + 1], boxes[i : i + 1], height=64, width=48))


def test_no_box_gives_no_crop() -> None:
    assert crop_people(random_frames(0, 8, 8), np.zeros((0, 4)), height=64, width=48).shape == (0, 3, 64, 48)
