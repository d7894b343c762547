from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection, resnet18
from torchvision.models._api import WeightsEnum

from cache.errors import VideoError, WeightsError
from extract.config import DetectorName, PoseConfig
from extract.pose.detector import DETECTOR_SOURCES, Detector, build, detector_settings, detector_weights, load_state
from extract.pose.hrnet import HRNetPose, read_state

CPU = torch.device("cpu")
SMALL: DetectorName = "fasterrcnn_mobilenet_v3_large_320_fpn"


def config(name: DetectorName = SMALL, **values: Any) -> PoseConfig:  # noqa: ANN401 (any setting)
    return PoseConfig(boxes="detector", detector=name, **values)


def noise(count: int, height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def state_of(name: str) -> dict[str, Tensor]:
    """Names and shapes alone, for networks that are to be refused."""
    with torch.device("meta"):
        return dict(getattr(detection, name)(weights=None, weights_backbone=None).state_dict())


class ABoxPerBrightRow(nn.Module):
    """Finds a person in every white row of pixels, and a dog in every grey one; remembers the sizes of its batches."""

    def __init__(self, limit: int = 1000) -> None:
        super().__init__()
        self.limit = limit
        self.sizes: list[int] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        if len(images) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.sizes.append(len(images))
        return [self.find(image) for image in images]

    def find(self, image: Tensor) -> dict[str, Tensor]:
        assert image.dtype == torch.float32
        brightness = image.mean(dim=(0, 2))  # (H,)
        rows = brightness.nonzero()[:, 0]
        corners = [torch.zeros(len(rows)), rows, torch.full((len(rows),), image.shape[2]), rows + 1]
        labels = torch.where(brightness[rows] == 1, 1, 18)
        return {"boxes": torch.stack(corners, dim=1).float(), "labels": labels, "scores": (rows + 1) / 100}


def striped(*rows_of_image: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    images = np.zeros((len(rows_of_image), 8, 6, 3), np.uint8)
    for image, rows in zip(images, rows_of_image, strict=True):
        image[list(rows)] = 255
    return images


def test_people_come_best_first_and_other_things_not_at_all() -> None:
    images = striped((1, 5), (), (2,))
    images[2, 4] = 100  # a dog
    found = Detector(ABoxPerBrightRow(), CPU).detect(images)
    assert [boxes.shape for boxes in found] == [(2, 5), (0, 5), (1, 5)]
    expected = [[[0, 5, 6, 6, 0.06], [0, 1, 6, 2, 0.02]], [[0, 2, 6, 3, 0.03]]]
    np.testing.assert_array_equal(found[0], np.array(expected[0], np.float32))
    np.testing.assert_array_equal(found[2], np.array(expected[1], np.float32))
    assert found[0].dtype == np.float32
    assert Detector(ABoxPerBrightRow(), CPU).detect(images[:0]) == []


def test_batches_have_one_size_and_halve_where_memory_runs_out() -> None:
    images = striped((1,), (2,), (3,), (4,), (5,), (6,))
    for limit, sizes, reduced in ((1000, [4, 4], 0), (3, [2, 2, 2], 2)):
        model = ABoxPerBrightRow(limit)
        detector = Detector(model, CPU)
        detector.batch.full = detector.batch.current = 4  # as on a GPU
        assert [boxes[0, 1] for boxes in detector.detect(images)] == [1, 2, 3, 4, 5, 6]
        assert (model.sizes, detector.batch.reduced) == (sizes, reduced)
    with pytest.raises(VideoError, match="person detector ran out of memory"):
        Detector(ABoxPerBrightRow(limit=0), CPU).detect(images)


def test_the_names_and_released_files_are_torchvisions() -> None:
    assert set(DETECTOR_SOURCES) == set(get_args(DetectorName))
    for name, source in DETECTOR_SOURCES.items():
        (released,) = (value for key, value in vars(detection).items() if key.lower() == f"{name}_weights")
        assert source.url == released.DEFAULT.url


def _with_small_variance(key: str, value: Tensor) -> Tensor:
    """Activations of a hundredth, normalised by their size."""
    if key.endswith("running_var"):
        return value * 1e-4
    return value * 1e-2 if value.ndim == 4 else value


@pytest.mark.parametrize(
    "name",
    [
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "ssdlite320_mobilenet_v3_large",
        pytest.param("fasterrcnn_resnet50_fpn_v2", marks=pytest.mark.slow),
        pytest.param("keypointrcnn_resnet50_fpn", marks=pytest.mark.slow),
    ],
)
def test_a_network_is_that_which_torchvision_builds_for_its_released_weights(
    name: DetectorName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small variances make the epsilon of the batch normalisation count, and all of it lies before the heads."""
    torch.manual_seed(0)
    ours = build(name).eval()
    state = {key: _with_small_variance(key, value) for key, value in ours.state_dict().items()}
    load_state(ours, name, state, source="a file")
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_args, **_kwargs: state)
    theirs = getattr(detection, name)(weights="DEFAULT").eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        features = [cast(Any, network).backbone(image) for network in (ours, theirs)]
    assert features[0].keys() == features[1].keys()
    for key in features[0]:
        scale = float(features[1][key].abs().max())
        assert scale > 0
        torch.testing.assert_close(features[0][key], features[1][key], rtol=0, atol=1e-3 * scale)


def a_file_that_finds_people(path: Path) -> dict[str, Tensor]:
    """Random weights whose last layer leans towards people, as a file with the names of torchvision's first release."""
    torch.manual_seed(0)
    state = dict(build(SMALL).state_dict())
    state["roi_heads.box_predictor.cls_score.bias"][1] = 6
    for new, old in (("inner_blocks.0.0", "inner_blocks.0"), ("rpn.head.conv.0.0", "rpn.head.conv")):
        for key in [key for key in state if new in key]:
            state[key.replace(new, old)] = state.pop(key)
    torch.save(state, path)
    return state


def test_weights_from_a_file_find_people_in_every_size_of_frame(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    a_file_that_finds_people(path)
    detector = Detector.load(config(detector_weights=str(path)), CPU)
    for height, width in ((48, 64), (90, 50)):
        found = detector.detect(noise(2, height, width))
        for boxes in found:
            assert len(boxes) > 0
            assert (boxes[:, :4] >= 0).all()
            assert (boxes[:, [2, 3]] <= [width, height]).all()
            assert (np.diff(boxes[:, 4]) <= 0).all()
    alone = detector.detect(noise(2)[1:])
    np.testing.assert_array_equal(alone[0], detector.detect(noise(2))[1])


def test_a_training_checkpoint_of_torchvision_loads(tmp_path: Path) -> None:
    state = a_file_that_finds_people(tmp_path / "bare.pth")
    torch.save({"model": torch.load(tmp_path / "bare.pth"), "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "t.pth")
    assert read_state(tmp_path / "t.pth").keys() == state.keys()
    bare, trained = (
        Detector.load(config(detector_weights=str(tmp_path / name)), CPU).detect(noise(1))[0]
        for name in ("bare.pth", "t.pth")
    )
    np.testing.assert_array_equal(bare, trained)


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    name: DetectorName = "ssdlite320_mobilenet_v3_large"
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    built = [Detector.load(config(name, detector_weights="none", seed=seed), CPU)._model for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)
    states = [next(iter(model.parameters())) for model in built]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_files_of_other_networks_are_refused_by_name() -> None:
    cases = {
        "keypointrcnn_resnet50_fpn": state_of("keypointrcnn_resnet50_fpn"),
        "fasterrcnn_resnet50_fpn_v2": state_of("fasterrcnn_resnet50_fpn_v2"),
        "fasterrcnn_mobilenet_v3_large_fpn": state_of("fasterrcnn_mobilenet_v3_large_fpn"),
        "ssdlite320_mobilenet_v3_large": state_of("ssdlite320_mobilenet_v3_large"),
        "a Mask R-CNN": state_of("maskrcnn_resnet50_fpn"),
        "an SSD, RetinaNet or FCOS": state_of("retinanet_resnet50_fpn"),
        "a network for joints": dict(HRNetPose("hrnet_w8_tiny").state_dict()),
        "a classifier of images": dict(resnet18().state_dict()),
        "a detector of mmdetection": {"backbone.conv1.weight": torch.ones(1), "rpn_head.rpn_cls.weight": torch.ones(1)},
        "no network that is known here": {"model.0.conv.weight": torch.ones(1)},
    }
    for what, state in cases.items():
        with pytest.raises(WeightsError, match=f"a file is {what}.*fasterrcnn_resnet50_fpn"):
            load_state(nn.Module(), "fasterrcnn_resnet50_fpn", state, source="a file")


def test_other_classes_and_broken_numbers_are_refused() -> None:
    model = build(SMALL)
    fewer = {"weights": None, "weights_backbone": None, "num_classes": 5}
    other = dict(detection.fasterrcnn_mobilenet_v3_large_320_fpn(**fewer).state_dict())
    with pytest.raises(WeightsError, match=r"classes of COCO.*size mismatch for roi_heads\.box_predictor"):
        load_state(model, SMALL, other, source="a file")
    broken = dict(model.state_dict())
    broken["rpn.head.cls_logits.bias"] = torch.full_like(broken["rpn.head.cls_logits.bias"], float("nan"))
    with pytest.raises(WeightsError, match=r"NaN or infinity, in rpn\.head\.cls_logits\.bias"):
        load_state(model, SMALL, broken, source="a file")
    missing = {key: value for key, value in model.state_dict().items() if not key.startswith("rpn.")}
    with pytest.raises(WeightsError, match="Missing key"):
        load_state(model, SMALL, missing, source="a file")


def test_names_that_contradict_the_configuration_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth"
    path.write_bytes(b"x")
    with pytest.raises(WeightsError, match="fasterrcnn_mobilenet_v3_large_fpn by its name"):
        detector_weights(config(detector_weights=str(path)))
    with pytest.raises(WeightsError, match="fasterrcnn_resnet50_fpn_v2 by its name"):
        detector_weights(config("fasterrcnn_resnet50_fpn", detector_weights="fasterrcnn_resnet50_fpn_v2"))
    assert detector_weights(config("fasterrcnn_mobilenet_v3_large_fpn", detector_weights=str(path))).path == path


def test_absent_weights_are_an_error_that_says_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"download\.pytorch\.org.*907ea3f9.*extract\.pose\.detector_weights=PATH"):
        detector_weights(config(), offline=True)


def test_the_settings_tell_weights_apart_by_content_and_not_by_name(tmp_path: Path) -> None:
    for name, content in (("a.pth", b"1"), ("b.pth", b"1"), ("c.pth", b"2")):
        (tmp_path / name).write_bytes(content)
    same, renamed, other = (detector_settings(config(detector_weights=str(tmp_path / f"{n}.pth"))) for n in "abc")
    assert same == renamed != other
    random = detector_settings(config(detector_weights="none", seed=3, detect_every=5))
    assert random == {"detector": SMALL, "detector_weights": "none", "detector_seed": 3, "detect_every": 5}


def test_the_joints_of_keypoint_rcnn_are_not_computed() -> None:
    heads = cast(Any, build("keypointrcnn_resnet50_fpn")).roi_heads
    assert not heads.has_keypoint()
