"""torchvision's functions are the other implementation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from train.colour import Change, Pixels, brightness, change_colours, contrast, drop_colour, hue, saturation

PAIRS: dict[str, tuple[Change, Callable[..., Any], tuple[float, ...]]] = {
    "brightness": (brightness, functional.adjust_brightness, (0.0, 0.6, 1.0, 1.371)),
    "contrast": (contrast, functional.adjust_contrast, (0.0, 0.6, 1.0, 1.371)),
    "saturation": (saturation, functional.adjust_saturation, (0.0, 0.8, 1.0, 1.137)),
    "hue": (hue, functional.adjust_hue, (-0.5, -0.1, 0.0, 0.0371, 0.5)),
}
CASES = [(name, amount) for name, (_, _, amounts) in PAIRS.items() for amount in amounts]


def pictures() -> Pixels:
    """(3, 3, 40, 60): noise; colours close to grey; all corners of the colour cube, greys, black and white."""
    generator = np.random.default_rng(0)
    noise, near = generator.integers(0, 256, (2, 3, 40, 60))
    near = near[:1] + generator.integers(-2, 3, (3, 40, 60))
    corners = generator.choice([0, 1, 127, 128, 254, 255], (3, 40, 60))
    corners[:, :5] = np.arange(60) * 4
    return np.stack([noise, near, corners]).clip(0, 255).astype(np.uint8)


def changed(frames: Pixels, *changes: tuple[Change, float]) -> Pixels:
    out = np.empty_like(frames, order="C")
    change_colours(frames, changes, out)
    return out


@pytest.mark.parametrize(("name", "amount"), CASES)
def test_every_change_is_torchvisions_to_one_level(name: str, amount: float) -> None:
    ours, theirs, _ = PAIRS[name]
    frames = pictures()
    found, expected = changed(frames, (ours, amount)), theirs(torch.from_numpy(frames), amount).numpy()
    apart = np.abs(found.astype(int) - expected.astype(int))
    assert apart.max() <= 1
    assert (apart[0] > 0).mean() < 0.005  # the noise; where a channel equals the grey, torchvision may lose a level


def test_dropping_colour_is_torchvisions_grey() -> None:
    frames = pictures()
    expected = functional.rgb_to_grayscale(torch.from_numpy(frames), num_output_channels=3).numpy()
    apart = np.abs(changed(frames, (drop_colour, 0.0)).astype(int) - expected.astype(int))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.001


@pytest.mark.parametrize(("change", "amount"), [(brightness, 1.0), (contrast, 1.0), (saturation, 1.0), (hue, 0.0)])
def test_no_change_changes_nothing(change: Change, amount: float) -> None:
    np.testing.assert_array_equal(changed(pictures(), (change, amount)), pictures())


def test_a_third_of_a_turn_makes_red_green_and_green_blue() -> None:
    frames = np.zeros((1, 3, 1, 3), np.uint8)
    frames[0, :, 0] = np.diag([200, 150, 100]) + 20  # one column each: red, green, blue
    turned = changed(frames, (hue, 1 / 3))
    np.testing.assert_array_equal(turned[0, :, 0], np.roll(frames[0, :, 0], 1, axis=0))


def test_changes_are_made_in_their_order_each_ending_in_whole_numbers() -> None:
    frames = np.full((1, 3, 2, 2), 101, np.uint8)
    dark_first = changed(frames, (brightness, 0.5), (brightness, 3.0))
    bright_first = changed(frames, (brightness, 3.0), (brightness, 0.5))
    assert (dark_first == 150).all()  # 50.5 -> 50 -> 150
    assert (bright_first == 127).all()  # 303 -> 255 -> 127.5


def test_frames_do_not_change_each_other() -> None:
    frames = pictures()
    alone = [changed(frames[number : number + 1], (contrast, 1.3), (saturation, 0.8)) for number in range(3)]
    np.testing.assert_array_equal(changed(frames, (contrast, 1.3), (saturation, 0.8)), np.concatenate(alone))


def test_channels_last_and_mirrored_frames_are_the_same_pixels_and_may_be_changed_in_place() -> None:
    frames = pictures()
    last = np.ascontiguousarray(frames.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    changes = ((hue, 0.1), (contrast, 0.7))
    expected = changed(frames, *changes)
    np.testing.assert_array_equal(changed(last, *changes), expected)
    np.testing.assert_array_equal(changed(frames[..., ::-1], *changes), expected[..., ::-1])
    change_colours(frames, changes, frames)
    np.testing.assert_array_equal(frames, expected)
