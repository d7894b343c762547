"""People in images, found by one of torchvision's detectors that were trained on COCO.

Why the released networks are built here without torchvision's own loader: it would download by itself, and again for
the backbone. What it does beside that is done here too: an epsilon of 0 in the batch normalisation of two networks,
which their weights were made with.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.models import detection

from cache.errors import WeightsError
from cache.fingerprint import RANDOM_WEIGHTS
from cache.weights_file import WeightsFile, WeightsSource, find_weights
from extract.batch_size import BatchSize
from extract.config import DetectorName, PoseConfig
from extract.pose.hrnet import read_state

IMAGES_AT_ONCE = 4
"""Images per forward pass on a GPU: constant, the last batch is padded. A CPU is as fast with one at a time."""
PERSON = 1
"""COCO's label of people in all of these networks."""

_KEY = "extract.pose.detector_weights"
Floats = npt.NDArray[np.float32]


def _released(name: str, filename: str, box_ap: str) -> WeightsSource:
    return WeightsSource(
        name=name,
        url=f"https://download.pytorch.org/models/{filename}",
        licence="BSD-3-Clause; trained on COCO",
        filename=filename,
        note=f"COCO val box AP {box_ap}",
    )


DETECTOR_SOURCES: Mapping[str, WeightsSource] = {
    source.name: source
    for source in (
        _released("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", "37.0"),
        _released("fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", "46.7"),
        _released("fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth", "32.8"),
        _released(
            "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth", "22.8"
        ),
        _released("keypointrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn_coco-fc266e95.pth", "54.6 of people"),
        _released("ssdlite320_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large_coco-a79551df.pth", "21.3"),
    )
}
"""The weights that torchvision released for each detector; they are of the same name."""

_ZERO_EPSILON = ("fasterrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn")


@dataclass(frozen=True)
class _Trait:
    """A tensor name that only one kind of network has."""

    pattern: str
    kind: str


# The first that fits counts. The two sizes of fasterrcnn_mobilenet_v3_large differ in no tensor.
_TRAITS = (
    _Trait(r"roi_heads\.mask_", "a Mask R-CNN"),
    _Trait(r"roi_heads\.keypoint_", "keypointrcnn_resnet50_fpn"),
    _Trait(r"roi_heads\.box_head\.0\.0\.", "fasterrcnn_resnet50_fpn_v2"),
    _Trait(r"head\.classification_head\.module_list\.0\.1\.", "ssdlite320_mobilenet_v3_large"),
    _Trait(r"head\.classification_head\.", "an SSD, RetinaNet or FCOS"),
    _Trait(r"backbone\.body\.layer1\.", "fasterrcnn_resnet50_fpn"),
    _Trait(r"backbone\.body\.0\.0\.", "fasterrcnn_mobilenet_v3_large_fpn or fasterrcnn_mobilenet_v3_large_320_fpn"),
    _Trait(r"((roi_head\.)?bbox_head|rpn_head)\.", "a detector of mmdetection (what it found can be given as a file)"),
    _Trait(r"((keypoint_)?head\.)?final_layer\.", "a network for joints"),
    _Trait(r"(fc|classifier|head)\.", "a classifier of images"),
)


class Detector:
    """A frozen detector that gives the boxes of people."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        """Takes a network with torchvision's interface: a list of (3, H, W) images in 0..1 to boxes, labels, scores."""
        self.device = device
        size = 1 if device.type == "cpu" else IMAGES_AT_ONCE
        self.batch = BatchSize(size, device, model="person detector")
        self._model = model.to(device).eval().requires_grad_(False)

    @classmethod
    def load(cls, config: PoseConfig, device: torch.device) -> Self:
        """Builds the configured detector and loads its weights.

        Raises:
            WeightsError: the weights are absent or of another network; the message says which.
        """
        weights = detector_weights(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = build(config.detector)
        if weights.path is not None:
            state = read_state(weights.path, what="person detector")
            load_state(model, config.detector, state, source=str(weights.path))
        return cls(model, device)

    @property
    def reduced_batch(self) -> int:
        """Images per forward pass since memory ran out; 0 before."""
        return self.batch.reduced

    def detect(self, images: npt.NDArray[np.uint8]) -> list[Floats]:
        """People of each image.

        What is found depends on these images alone: those of another clip never share a forward pass with them.

        Args:
            images: (m, H, W, 3) uint8 RGB.

        Returns:
            m arrays (k, 5) x1 y1 x2 y2 score in pixels, best first; k is 0 where nobody is.

        Raises:
            VideoError: OUT_OF_MEMORY, a single image does not fit.
        """
        return self.batch.run(lambda size: self._detect(images, size))

    @torch.inference_mode()
    def _detect(self, images: npt.NDArray[np.uint8], size: int) -> list[Floats]:
        found: list[Floats] = []
        for start in range(0, len(images), size):
            chunk = torch.from_numpy(np.ascontiguousarray(images[start : start + size])).to(self.device)
            batch = chunk.new_zeros(size, 3, *images.shape[1:3], dtype=torch.float32)
            batch[: len(chunk)] = chunk.permute(0, 3, 1, 2) / 255
            found += [_people(result) for result in self._model(list(batch))[: len(chunk)]]
        return found


def build(name: DetectorName) -> nn.Module:
    """A detector as torchvision builds it for its released weights, with new weights from torch's generator.

    Raises:
        ValueError: there is no such detector.
    """
    if name not in get_args(DetectorName):
        raise ValueError(f"detector {name!r}: choose one of {', '.join(get_args(DetectorName))}")
    model: Any = getattr(detection, name)(weights=None, weights_backbone=None)
    if name in _ZERO_EPSILON:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    if name == "keypointrcnn_resnet50_fpn":
        model.roi_heads.keypoint_roi_pool = None  # its joints are not asked for, and cost as much as the boxes
    return model


def load_state(model: nn.Module, name: DetectorName, state: Mapping[str, Tensor], *, source: str) -> None:
    """Loads tensors by torchvision's names, strictly, those of its earlier versions too.

    Args:
        model: what `build` made.
        name: of the detector, for messages.
        state: tensors by name.
        source: where they come from, for messages.

    Raises:
        WeightsError: they belong to another network, know other classes, or are not finite.
    """
    kind = next((trait.kind for trait in _TRAITS if any(re.match(trait.pattern, key) for key in state)), None)
    if kind is None or name not in kind.split():
        raise WeightsError(
            f"{source} is {kind or 'no network that is known here'}, but extract.pose.detector = {name!r}. "
            f"Give weights of it, or set the detector to one of {', '.join(DETECTOR_SOURCES)}"
        )
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise WeightsError(f"{source} holds NaN or infinity, in {broken[0]}: it would find nobody anywhere")
    try:
        model.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        lines = [line.strip()[:200] for line in str(error).splitlines()[1:4]]
        raise WeightsError(f"{source} does not fit {name} with the classes of COCO: {' '.join(lines)}") from error


def detector_weights(config: PoseConfig, *, offline: bool = False) -> WeightsFile:
    """The weights that a configuration names, without loading them.

    Raises:
        WeightsError: absent, or of another detector by their name.
    """
    given = config.detector_weights or config.detector
    if given != RANDOM_WEIGHTS:
        _check_name(config, PurePath(given).name)
    return find_weights(given, sources=DETECTOR_SOURCES, what="person detector", key=_KEY, offline=offline)


def detector_settings(config: PoseConfig) -> dict[str, Any]:
    """What decides who is found, as JSON values for the fingerprint, without loading the network."""
    weights = detector_weights(config)
    settings: dict[str, Any] = {"detector": config.detector, "detector_weights": weights.sha256}
    settings |= {"detector_seed": config.seed} if weights.random else {}
    return settings | {"detect_every": config.detect_every}


def _check_name(config: PoseConfig, name: str) -> None:
    """The two sizes of one network cannot be told apart by their tensors, so a contradicting name is refused."""
    named = next((other for other in sorted(DETECTOR_SOURCES, key=len, reverse=True) if other in name), None)
    if named is not None and named != config.detector:
        raise WeightsError(
            f"{name} is {named} by its name, but extract.pose.detector = {config.detector!r}. Set the detector, give "
            "other weights, or rename the file if its name is wrong"
        )


def _people(result: Mapping[str, Tensor]) -> Floats:
    """(k, 5) of one image, best first, in an order that does not hang on how a device sorts equal scores."""
    chosen = result["labels"] == PERSON
    boxes = torch.cat([result["boxes"][chosen], result["scores"][chosen, None]], dim=1).float().cpu().numpy()
    return boxes[np.lexsort((*boxes[:, 3::-1].T, -boxes[:, 4]))]
