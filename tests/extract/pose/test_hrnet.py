import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from torch import Tensor

from cache.errors import WeightsError
from extract.pose.hrnet import VARIANTS, HRNetPose, load_checkpoint, load_state, read_state

State = dict[str, Tensor]

# sha256 of the sorted lines "<key> <shape>" of the official network, batch counters left out.
OFFICIAL_KEYS = {
    "hrnet_w32": (28_536_113, "c3950b5778e3bf82d620a8acd9178c4da1e5cec10c58685b5b5c59244f8664a4"),
    "hrnet_w48": (63_595_745, "97c06cc32483db4eefa4c47ebe015ffb3b11df8915f33676e1ea6278ee387922"),
}


def random_network(variant: str = "hrnet_w8_tiny", num_joints: int = 17) -> HRNetPose:
    torch.manual_seed(0)
    model = HRNetPose(variant, num_joints)
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.ndim == 1 and value.is_floating_point():
            value.add_(0.1 * torch.randn_like(value))
    torch.nn.init.normal_(model.final_layer.weight, std=0.1)
    return model.eval()


def official_names(model: HRNetPose) -> State:
    return {key.removeprefix("backbone."): value.clone() for key, value in model.state_dict().items()}


def mmpose_names(model: HRNetPose, head: str) -> State:
    return {key.replace("final_layer.", f"{head}.final_layer."): value for key, value in model.state_dict().items()}


class Reference:
    """The network written again from the paper's figure and the official names, without timm."""

    def __init__(self, state: State) -> None:
        self.state = state

    def conv(self, x: Tensor, conv: str, norm: str | None, stride: int = 1) -> Tensor:
        weight = self.state[f"{conv}.weight"]
        x = F.conv2d(x, weight, self.state.get(f"{conv}.bias"), stride, weight.shape[-1] // 2)
        if norm is None:
            return x
        mean, var, scale, shift = (
            self.state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, scale, shift)

    def block(self, x: Tensor, name: str) -> Tensor:
        depth = 3 if f"{name}.conv3.weight" in self.state else 2
        y = x
        for i in range(1, depth + 1):
            y = self.conv(y, f"{name}.conv{i}", f"{name}.bn{i}")
            y = y.relu() if i < depth else y
        has_shortcut = f"{name}.downsample.0.weight" in self.state
        return (y + (self.conv(x, f"{name}.downsample.0", f"{name}.downsample.1") if has_shortcut else x)).relu()

    def blocks(self, x: Tensor, name: str) -> Tensor:
        i = 0
        while f"{name}.{i}.conv1.weight" in self.state:
            x, i = self.block(x, f"{name}.{i}"), i + 1
        return x

    def fuse(self, xs: list[Tensor], i: int, name: str) -> Tensor:
        total = torch.zeros_like(xs[i])
        for j, x in enumerate(xs):
            y = x
            for k in range(i - j):
                y = self.conv(y, f"{name}.{i}.{j}.{k}.0", f"{name}.{i}.{j}.{k}.1", stride=2)
                y = y.relu() if k < i - j - 1 else y
            if j > i:
                y = F.interpolate(self.conv(x, f"{name}.{i}.{j}.0", f"{name}.{i}.{j}.1"), scale_factor=2.0 ** (j - i))
            total = total + y
        return total.relu()

    def stage(self, xs: list[Tensor], stage: int) -> list[Tensor]:
        module = 0
        while f"stage{stage}.{module}.branches.0.0.conv1.weight" in self.state:
            name = f"stage{stage}.{module}"
            xs = [self.blocks(x, f"{name}.branches.{i}") for i, x in enumerate(xs)]
            outputs = [i for i in range(stage) if any(key.startswith(f"{name}.fuse_layers.{i}.") for key in self.state)]
            xs, module = [self.fuse(xs, i, f"{name}.fuse_layers") for i in outputs], module + 1
        return xs

    def __call__(self, x: Tensor) -> Tensor:
        x = self.conv(x, "conv1", "bn1", 2).relu()
        x = self.blocks(self.conv(x, "conv2", "bn2", 2).relu(), "layer1")
        xs = [
            self.conv(x, "transition1.0.0", "transition1.0.1").relu(),
            self.conv(x, "transition1.1.0.0", "transition1.1.0.1", 2).relu(),
        ]
        xs = self.stage(xs, 2)
        for stage in (3, 4):
            name = f"transition{stage - 1}.{stage - 1}.0"
            xs = self.stage([*xs, self.conv(xs[-1], f"{name}.0", f"{name}.1", 2).relu()], stage)
        return self.conv(xs[0], "final_layer", None)


@pytest.mark.parametrize("variant", OFFICIAL_KEYS)
def test_names_and_shapes_are_those_of_the_official_network(variant: str) -> None:
    model = HRNetPose(variant)
    num_parameters, digest = OFFICIAL_KEYS[variant]
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters
    lines = [f"{k} {tuple(v.shape)}" for k, v in official_names(model).items() if not k.endswith("num_batches_tracked")]
    assert hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest() == digest


@pytest.mark.parametrize(("variant", "height", "width"), [("hrnet_w8_tiny", 96, 64), ("hrnet_w32", 64, 64)])
def test_heatmaps_equal_a_second_implementation_of_the_paper(variant: str, height: int, width: int) -> None:
    model = random_network(variant)
    images = torch.randn(2, 3, height, width)
    with torch.no_grad():
        heatmaps, expected = model(images), Reference(official_names(model))(images)
    assert heatmaps.shape == (2, 17, height // 4, width // 4)
    torch.testing.assert_close(heatmaps, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_the_tiny_network_is_small() -> None:
    assert 150_000 < sum(parameter.numel() for parameter in HRNetPose("hrnet_w8_tiny").parameters()) < 300_000


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="hrnet_w32, hrnet_w48"):
        HRNetPose("hrnet_w18")


def training_checkpoint(model: HRNetPose) -> dict[str, Any]:
    state = {f"module.{key}": value + 1 for key, value in official_names(model).items()}
    return {"epoch": 210, "state_dict": state, "best_state_dict": official_names(model), "perf": 0.74}


def without_counters(model: HRNetPose) -> State:
    return {key: value for key, value in official_names(model).items() if "num_batches" not in key}


LAYOUTS: dict[str, Callable[[HRNetPose], dict[str, Any]]] = {
    "official": official_names,
    "official with module.": lambda model: {f"module.{key}": value for key, value in official_names(model).items()},
    "official checkpoint": training_checkpoint,
    "without counters": without_counters,
    "mmpose 0.x": lambda model: {"meta": {"epoch": 210}, "state_dict": mmpose_names(model, "keypoint_head")},
    "mmpose 1.x": lambda model: {
        "meta": {"dataset_meta": {"sigmas": np.ones(17, np.float32), "ids": np.arange(17)}},
        "state_dict": mmpose_names(model, "head"),
    },
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_known_layout_gives_the_same_heatmaps(layout: str, legacy: bool, tmp_path: Path) -> None:
    model = random_network()
    path = tmp_path / "weights.pth"
    torch.save(LAYOUTS[layout](model), path, _use_new_zipfile_serialization=not legacy)
    other = HRNetPose("hrnet_w8_tiny").eval()
    load_checkpoint(other, path)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(other(images), model(images))


def test_half_precision_safetensors_load(tmp_path: Path) -> None:
    model = random_network()
    path = tmp_path / "tiny.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}, path)
    other = HRNetPose("hrnet_w8_tiny")
    load_checkpoint(other, path)
    assert other.final_layer.weight.dtype == torch.float32
    torch.testing.assert_close(other.final_layer.weight, model.final_layer.weight, rtol=1e-3, atol=1e-4)


def test_known_confusions_are_named() -> None:
    model = HRNetPose("hrnet_w8_tiny")
    good = official_names(model)
    cases: dict[str, State] = {
        "classifies ImageNet": {**good, "incre_modules.0.0.conv1.weight": torch.zeros(1)},
        "deconvolution": {**good, "head.deconv_layers.0.weight": torch.zeros(1)},
        "whole-body": {**good, "final_layer.weight": torch.zeros(133, 8, 1, 1)},
        "MPII": {**good, "final_layer.weight": torch.zeros(16, 8, 1, 1)},
        "UDP": {**good, "final_layer.weight": torch.zeros(51, 8, 1, 1)},
        "holds hrnet_w48": {**good, "final_layer.weight": torch.zeros(17, 48, 1, 1)},
        "no `final_layer`": {k: v for k, v in good.items() if not k.startswith("final_layer")},
        "1 tensors missing": {k: v for k, v in good.items() if k != "conv1.weight"},
        "1 unknown": {**good, "extra.weight": torch.zeros(1)},
        "1 of another shape": {**good, "conv1.weight": torch.zeros(1, 3, 3, 3)},
    }
    for message, state in cases.items():
        with pytest.raises(WeightsError, match=message):
            load_state(model, state)


def shapes_of(build: Callable[[], torch.nn.Module]) -> State:
    """Names and shapes of a whole network, without its numbers."""
    with torch.device("meta"):
        return build().state_dict()


def with_head(state: State, prefix: str, num_channels: int) -> State:
    head = {"final_layer.weight": torch.empty(num_channels, 32, 1, 1), "final_layer.bias": torch.empty(num_channels)}
    return {**state, **{prefix + key: value for key, value in head.items()}}


def test_whole_networks_of_other_kinds_are_refused_by_name() -> None:
    with torch.device("meta"):
        model = HRNetPose("hrnet_w32")
    trunk = {key: value for key, value in model.state_dict().items() if key.startswith("backbone.")}
    deconvolution = {"keypoint_head.deconv_layers.0.weight": torch.empty(256, 256, 4, 4)}
    cases: dict[str, State] = {
        "an HRNet that classifies ImageNet": shapes_of(lambda: timm.create_model("hrnet_w32")),
        "not an HRNet pose network": shapes_of(lambda: timm.create_model("resnet18")),
        "deconvolution layers in its head": with_head({**trunk, **deconvolution}, "keypoint_head.", 17),
        "133 joints is the whole-body format": with_head(trunk, "head.", 133),
        "51 channels is a UDP head": with_head(trunk, "keypoint_head.", 51),
        "16 joints is the MPII format": with_head(trunk, "", 16),
        "holds hrnet_w48, but the model asked for is hrnet_w32": shapes_of(lambda: HRNetPose("hrnet_w48")),
        "holds hrnet_w8_tiny": shapes_of(lambda: HRNetPose("hrnet_w8_tiny")),
    }
    for message, state in cases.items():
        with pytest.raises(WeightsError, match=f"^wrong.pth .*{message}"):
            load_state(model, state, source="wrong.pth")


def test_a_file_that_could_run_code_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {}, "hook": Reference}, path)
    with pytest.raises(WeightsError, match="could run code"):
        load_checkpoint(HRNetPose("hrnet_w8_tiny"), path)


def test_a_file_that_cannot_be_found_says_whose_weights_it_was_to_hold(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"HRNet weights .* do not exist"):
        read_state(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match=r"person detector weights .* do not exist"):
        read_state(tmp_path / "absent.pth", what="person detector")


@pytest.mark.parametrize("name", ["empty.pth", "text.pth", "text.safetensors", "list.pth", "absent.pth"])
def test_files_that_are_no_checkpoints_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "list.pth":
        torch.save([1, 2], path)
    elif name != "absent.pth":
        path.write_bytes(b"" if name == "empty.pth" else b"<html>not found</html>")
    with pytest.raises(WeightsError, match=name):
        load_checkpoint(HRNetPose("hrnet_w8_tiny"), path)


def test_all_variants_are_known_to_the_configuration() -> None:
    from typing import get_args, get_type_hints

    from extract.config import PoseConfig

    assert set(get_args(get_type_hints(PoseConfig)["model"])) == set(VARIANTS)
