"""Frames and boxes in, joints out: the frozen HRNet with its crop and its decoding.

Why one constant batch size with a padded tail: a convolution may round differently in a batch of another size, and
joints must not depend on how the work was cut. Crops of several clips may share a batch; a clip's rows stay the same.
People are cropped batch by batch, so that a long clip needs no more memory on the device than a short one.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.errors import FailureCode, VideoError, WeightsError
from cache.skeletons import COCO_17
from cache.weights_file import WeightsFile, WeightsSource, find_weights
from extract.batch_size import BatchSize
from extract.config import PoseConfig
from extract.pose.crop import MEAN, PADDING, STD, crop_people
from extract.pose.heatmaps import decode_joints, merge_mirrored
from extract.pose.hrnet import HEATMAP_STRIDE, HRNetPose, load_checkpoint
from extract.pose.people import box_settings

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]

_KEY = "extract.pose.weights"
_MAX_BYTES = 2**24  # of frames on the device at a time; as float32 they take four times as much
_SIZE = re.compile(r"(256)x(192)|(384)x(288)")


def _released(tag: str, digest: str, note: str) -> WeightsSource:
    filename = f"{tag}-{digest}_20200708.pth"
    return WeightsSource(
        name=tag,
        url=f"https://download.openmmlab.com/mmpose/top_down/hrnet/{filename}",
        licence="Apache-2.0; trained on COCO",
        filename=filename,
        note=note,
    )


HRNET_SOURCES: Mapping[str, WeightsSource] = {
    source.name: source
    for source in (
        _released("hrnet_w32_coco_256x192", "c78dce93", "COCO val AP 74.9"),
        _released("hrnet_w32_coco_384x288", "d9f0d786", "COCO val AP 76.1"),
        _released("hrnet_w48_coco_256x192", "b9e0b3ab", "COCO val AP 75.6"),
        _released("hrnet_w48_coco_384x288", "314c8528", "COCO val AP 76.7"),
    )
}
"""Plain HRNets of mmpose, trained without UDP.

The official release (github.com/leoxiaobin/deep-high-resolution-net.pytorch) loads too.
"""

_TRAINED_WITHOUT_UDP = {*HRNET_SOURCES, *(source.filename for source in HRNET_SOURCES.values())}


class PoseEstimator:
    """A frozen HRNet that gives the joints of one person per frame."""

    def __init__(self, config: PoseConfig, model: HRNetPose, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.batch = BatchSize(config.batch_size, device, model="pose network")
        self._model = model.to(device).eval().requires_grad_(False)

    @classmethod
    def load(cls, config: PoseConfig, device: torch.device) -> Self:
        """Builds the network and loads its weights.

        Raises:
            WeightsError: the weights are absent or of another network.
        """
        weights = pose_weights(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = HRNetPose(config.model, COCO_17.num_joints)
        if weights.path is not None:
            load_checkpoint(model, weights.path)
        return cls(config, model, device)

    def estimate(self, frames: npt.NDArray[np.uint8], boxes: Floats) -> tuple[Floats, Floats]:
        """Joints of one clip.

        Args:
            frames: (F, H, W, 3) uint8 RGB.
            boxes: (F, 4) x1 y1 x2 y2 in source pixels, NaN where nobody is.

        Returns:
            xy (F, J, 2) in source pixels, NaN where missing; score (F, J), 0 where missing.

        Raises:
            VideoError: the network gave NaN or infinity, or one crop does not fit into the device's memory.
        """
        present = np.flatnonzero(_present(boxes))

        def heatmaps(size: int) -> Floats:
            pieces = (present[start : start + size] for start in range(0, len(present), size))
            return self._heatmaps((self.crops(frames[piece], boxes[piece]) for piece in pieces), size).numpy()

        return self.decode(self.batch.run(heatmaps), boxes)

    def crops(self, frames: npt.NDArray[np.uint8], boxes: Floats, *, at_once: int | None = None) -> Tensor:
        """Network inputs (m, 3, H, W) on the device, for the m frames of a clip in which somebody is.

        Args:
            frames: (F, H, W, 3) uint8 RGB; only a few at a time go to the device.
            boxes: (F, 4), NaN where nobody is.
            at_once: most of them at a time; None: as many as _MAX_BYTES hold.
        """
        step = max(1, min(at_once or len(frames), _MAX_BYTES // max(1, frames[:1].nbytes)))
        starts = range(0, max(1, len(frames)), step)
        crops = [self._crop(frames[start : start + step], boxes[start : start + step]) for start in starts]
        return torch.cat(crops) if len(crops) != 1 else crops[0]

    def heatmaps(self, crops: Tensor) -> Floats:
        """Heatmaps (m, J, H/4, W/4) of any number of crops, of one clip or of many."""
        return self.batch.run(lambda size: self.forward(crops, size)).numpy()

    def forward(self, crops: Tensor, size: int) -> Tensor:
        """Heatmaps (m, J, H/4, W/4) on the CPU, in passes of one constant size; the last one is padded."""
        return self._heatmaps(crops.split(size), size)

    def decode(self, heatmaps: Floats, boxes: Floats) -> tuple[Floats, Floats]:
        """Joints of one clip from the heatmaps of the frames in which somebody is; shapes as in `estimate`."""
        present = _present(boxes)
        if not np.isfinite(heatmaps).all():
            raise VideoError(FailureCode.NON_FINITE, "the pose network gave NaN or infinity")
        xy = np.full((len(boxes), COCO_17.num_joints, 2), np.nan, np.float32)
        score = np.zeros((len(boxes), COCO_17.num_joints), np.float32)
        xy[present], score[present] = decode_joints(
            heatmaps, boxes[present], codec=self.config.codec, stride=HEATMAP_STRIDE
        )
        return xy, score

    def _crop(self, frames: npt.NDArray[np.uint8], boxes: Floats) -> Tensor:
        present = _present(boxes)
        if not present.all():
            frames, boxes = frames[present], boxes[present]
        pictures = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        height, width = self.config.input_height, self.config.input_width
        return crop_people(pictures, boxes, height=height, width=width, codec=self.config.codec)

    @torch.inference_mode()
    def _heatmaps(self, batches: Iterable[Tensor], size: int) -> Tensor:
        stacks = [self._forward(batch, size).cpu() for batch in batches if len(batch)]
        return (torch.cat(stacks) if len(stacks) > 1 else stacks[0]) if stacks else self._empty()

    def _forward(self, crops: Tensor, size: int) -> Tensor:
        count = len(crops)
        batch = crops
        if count < size:
            batch = crops.new_zeros(size, *crops.shape[1:])
            batch[:count] = crops
        heatmaps = self._model(batch)
        if self.config.flip_test:
            mirrored = self._model(batch.flip(-1))
            heatmaps = merge_mirrored(heatmaps, mirrored, COCO_17.flip_order, codec=self.config.codec)
        return heatmaps[:count].float()

    def _empty(self) -> Tensor:
        sides = (self.config.input_height // HEATMAP_STRIDE, self.config.input_width // HEATMAP_STRIDE)
        return torch.zeros(0, COCO_17.num_joints, *sides)


def pose_weights(config: PoseConfig, *, offline: bool = False) -> WeightsFile:
    """The weights that a configuration names, without loading them.

    Raises:
        WeightsError: absent, or by their name of another network, input size or codec.
    """
    if config.weights in HRNET_SOURCES:
        _check_name(config, config.weights)
    weights = find_weights(config.weights, sources=HRNET_SOURCES, what="HRNet", key=_KEY, offline=offline)
    if weights.path is not None and config.weights not in HRNET_SOURCES:
        _check_name(config, weights.name)
    return weights


def pose_fingerprint_model(config: PoseConfig) -> tuple[dict[str, Any], dict[str, Any], WeightsFile]:
    """The `model` and `preprocessing` sections of the fingerprint of joints, without loading the network.

    Where the boxes come from is part of it: other boxes are other joints. The third part is the network's weights.
    """
    weights = pose_weights(config)
    model: dict[str, Any] = {"name": config.model, "skeleton": COCO_17.name}
    model |= {"weights": weights.sha256, "weights_name": weights.name}
    model |= {"seed": config.seed} if weights.random else {}
    preprocessing: dict[str, Any] = {
        "input_height": config.input_height,
        "input_width": config.input_width,
        "padding": PADDING,
        "mean": list(MEAN),
        "std": list(STD),
        "codec": config.codec,
        "flip_test": config.flip_test,
    }
    return model, preprocessing | box_settings(config), weights


def _present(boxes: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(boxes).all(axis=1))


def _check_name(config: PoseConfig, name: str) -> None:
    """Weights don't know their input size or codec; their usual names do, so a contradiction is refused."""
    if config.codec == "udp" and name in _TRAINED_WITHOUT_UDP:
        raise WeightsError(
            f"{name} was trained without UDP, whose joints lie elsewhere in a heatmap, but extract.pose.codec = 'udp'. "
            "Set the codec to 'msra' or 'dark', or give a path to weights that were trained for UDP"
        )
    lowered = name.lower()
    codec = next((codec for codec in ("udp", "dark") if re.search(rf"[_-]{codec}(?![a-z])", lowered)), None)
    if codec is not None and codec != config.codec:
        raise WeightsError(
            f"{name} was trained for the codec {codec!r} by its name, but extract.pose.codec = {config.codec!r}. "
            "Set the codec, give other weights, or rename the file if its name is wrong"
        )
    width = re.search(r"hrnet_?(w\d+)", lowered)
    if width is not None and not config.model.startswith(f"hrnet_{width[1]}"):
        raise WeightsError(f"{name} is not the network asked for: extract.pose.model = {config.model!r}")
    size = _SIZE.search(lowered)
    if size is not None:
        height, columns = (int(side) for side in size.groups() if side)
        if (height, columns) != (config.input_height, config.input_width):
            raise WeightsError(
                f"{name} was trained at {height} x {columns}, but the input is {config.input_height} x "
                f"{config.input_width}: set extract.pose.input_height = {height} and input_width = {columns}"
            )
