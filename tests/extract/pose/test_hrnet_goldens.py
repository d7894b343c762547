"""Our network against the official implementation, whose code is not needed here.

Both take weights drawn from each parameter's own (official) name, so any implementation with those names computes the
same heatmaps. The numbers were printed by the official network once, in fp32 on a CPU.
"""

import zlib

import numpy as np
import pytest
import torch
from torch import Tensor

from extract.pose.hrnet import HRNetPose
from tests.extract.pose.test_hrnet import Reference, official_names


def weights_from_name(name: str, shape: tuple[int, ...]) -> Tensor:
    """He-normal convolutions, batch norms near the identity, biases of 0.1, from a generator seeded by the name."""
    generator = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    noise = generator.standard_normal(shape)
    if len(shape) == 4:
        values = noise * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("running_var"):
        values = 1 + 0.5 * np.abs(noise)
    elif name.endswith(".weight"):
        values = 0.6 + 0.1 * noise
    else:
        values = 0.1 * noise
    return torch.from_numpy(values.astype(np.float32))


def named_network(variant: str) -> HRNetPose:
    model = HRNetPose(variant, 17).eval()
    state = model.state_dict()
    model.load_state_dict(
        {key: weights_from_name(key.removeprefix("backbone."), tuple(value.shape)) for key, value in state.items()}
    )
    return model


def noise_images(count: int, height: int, width: int) -> Tensor:
    generator = np.random.RandomState(0)
    return torch.from_numpy(generator.standard_normal((count, 3, height, width)).astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "height", "width", "mean", "corner"),
    [
        ("hrnet_w32", 256, 192, -7.699289, (44.27801513671875, 43.55461120605469, 47.50788116455078)),
        ("hrnet_w32", 384, 288, -8.074524, (44.5905876159668, 43.9722785949707, 46.59832000732422)),
        ("hrnet_w48", 256, 192, -1.650475, (13.101053237915039, 13.444989204406738, 13.0564546585083)),
    ],
)
def test_heatmaps_equal_those_of_the_official_network(
    variant: str, height: int, width: int, mean: float, corner: tuple[float, float, float]
) -> None:
    images = noise_images(2, height, width)
    with torch.inference_mode():
        heatmaps = named_network(variant)(images).numpy()
    np.testing.assert_allclose(heatmaps[0, 0, 10, 10:13], corner, rtol=1e-4)
    assert heatmaps.mean() == pytest.approx(mean, rel=1e-4)


@pytest.mark.slow
def test_the_size_without_official_numbers_equals_the_second_implementation() -> None:
    model = named_network("hrnet_w48")
    images = noise_images(1, 384, 288)
    with torch.inference_mode():
        heatmaps, expected = model(images), Reference(official_names(model))(images)
    assert heatmaps.shape == (1, 17, 96, 72)
    torch.testing.assert_close(heatmaps, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
