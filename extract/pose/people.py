"""Where the person who is followed is, in every kept frame of a clip: the one place that knows all three sources.

Why no fallback between them: a detector that finds nobody and a whole frame would give joints of nobody, which look
like joints. The configuration names one source, and a frame in which it finds nobody has nobody.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cache import atomic
from cache.errors import ConfigError
from cache.manifest import Clip
from extract.config import PoseConfig
from extract.pose.boxes import DETECTOR, MAX_GAP_FRAMES, Boxes, Floats, Frames, whole_frame
from extract.pose.boxes_file import boxes_from_file, has_choice
from extract.pose.tracking import follow, tracking_settings


class PersonDetector(Protocol):
    """What finds people in images; `extract.pose.detector.Detector` is one."""

    @property
    def reduced_batch(self) -> int:
        """Images per forward pass since memory ran out; 0 before."""
        ...

    def detect(self, images: npt.NDArray[np.uint8]) -> list[Floats]:
        """People of each image: (m, H, W, 3) uint8 RGB to m arrays (k, 5) x1 y1 x2 y2 score."""
        ...


def boxes_of(
    config: PoseConfig,
    clip: Clip,
    images: npt.NDArray[np.uint8],
    frame_index: Frames,
    detector: PersonDetector | None = None,
) -> Boxes:
    """The box of the person who is followed, in every kept frame.

    Args:
        config: its `boxes` says where they come from.
        clip: its id is looked up in the file of boxes.
        images: (U, H, W, 3) uint8 RGB, the distinct kept frames in order of time.
        frame_index: (U,) index of each in the video file.
        detector: needed where `boxes` is `detector`.

    Raises:
        ConfigError: no source was chosen, or the file is not of the format.
        VideoError: the file does not know the clip, ends before it does, or its boxes lie outside of the frame; or a
            single image does not fit into the memory of the detector's device.
    """
    num_frames, height, width = images.shape[:3]
    if len(frame_index) != num_frames:
        raise ValueError(f"{num_frames} frames need as many frame indices, not {len(frame_index)}")
    if config.boxes == "whole_frame":
        return whole_frame(num_frames, height, width)
    if config.boxes == "file":
        return boxes_from_file(config, clip, height, width, frame_index)
    if config.boxes == "detector":
        if detector is None:
            raise ValueError("boxes = 'detector' needs the detector")
        return _detected(config, images, detector)
    raise ConfigError("joints need person boxes: set extract.pose.boxes to 'whole_frame', 'file' or 'detector'")


def box_settings(config: PoseConfig) -> dict[str, Any]:
    """What decides where people are, as JSON values for the fingerprint of joints; no network is built.

    Raises:
        ConfigError: the file of boxes is absent or not of the format.
        WeightsError: the detector's weights are absent or of another detector by their name.
    """
    settings: dict[str, Any] = {"boxes": config.boxes}
    if config.boxes == "file":
        path = Path(config.boxes_file).expanduser()
        if not path.is_file():
            raise ConfigError(f"extract.pose.boxes_file = {config.boxes_file!r} is not a file")
        settings |= {"boxes_sha256": atomic.sha256_file(path), "max_gap_frames": MAX_GAP_FRAMES}
        settings |= {"tracking": tracking_settings(config)} if has_choice(path) else {}
    if config.boxes == "detector":
        from extract.pose.detector import detector_settings

        settings |= {**detector_settings(config), "tracking": tracking_settings(config)}
    return settings


def looked_at(num_frames: int, every: int) -> Frames:
    """The kept frames that a detector sees: every n-th one, and the last, behind which no box can be interpolated."""
    frames = np.arange(0, num_frames, every)
    return frames if not num_frames or frames[-1] == num_frames - 1 else np.append(frames, num_frames - 1)


def _detected(config: PoseConfig, images: npt.NDArray[np.uint8], detector: PersonDetector) -> Boxes:
    num_frames, height, width = images.shape[:3]
    frames = looked_at(num_frames, config.detect_every)
    people = detector.detect(images if len(frames) == num_frames else images[frames])
    return follow(people, frames, np.arange(num_frames), height, width, config, source=DETECTOR)
