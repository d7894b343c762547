"""Joints: the people of all clips through the frozen pose network, and its heatmaps to joints at once.

Why people are cut out before they wait for a batch, and heatmaps decoded before their clip is complete: frames lie in
memory that the next clip needs, and the heatmaps of a long clip would fill gigabytes (0.2 MB a frame).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.manifest import Clip
from cache.rows import ClipRows
from cache.skeletons import COCO_17
from extract.decoding.decode_process import Prepared
from extract.pose.boxes import Boxes
from extract.pose.estimator import PoseEstimator
from extract.pose.people import PersonDetector, boxes_of
from extract.products.rows import rows_of
from extract.products.shared_batches import ClipWork, SharedBatches

Floats = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]


class Joints:
    """The pose network with a batch that fills up; clips come out when their last person has gone through."""

    def __init__(
        self, estimator: PoseEstimator, num_frames: int | None, detector: PersonDetector | None = None
    ) -> None:
        """Measures whether clips may share batches, where that can save time.

        Args:
            estimator: the pose network; the size of its passes becomes smaller where a clip has no more frames.
            num_frames: most people of a clip, one per frame; None: clips differ, the configured batch size is used.
            detector: needed where person boxes come from it.

        Raises:
            VideoError: OUT_OF_MEMORY, a single person does not fit.
        """
        self.estimator, self.detector = estimator, detector
        self.batch = estimator.batch
        height, width = estimator.config.input_height, estimator.config.input_width
        self._batches = SharedBatches(
            estimator.forward,
            self.batch,
            lambda size: torch.zeros(size, 3, height, width, device=estimator.device),
            most=num_frames,
            varies=estimator.config.boxes != "whole_frame",  # frames with nobody need no pass
        )

    @property
    def shares_batches(self) -> bool:
        """True if a batch holds people of several clips."""
        return self._batches.are_shared

    def add(self, prepared: Prepared, clip: Clip) -> Iterator[ClipRows]:
        """Takes a clip's (U, H, W, 3) frames; yields the clips that became complete."""
        people = _People(prepared, self.estimator)
        return self._batches.add(people, self._crops(people, prepared, clip))

    def flush(self) -> Iterator[ClipRows]:
        """Runs the people who wait for a full batch, and yields the clips that became complete."""
        return self._batches.flush()

    def boxes(self, prepared: Prepared, clip: Clip) -> Boxes:
        """The person of each distinct frame; raises as `boxes_of`."""
        _, first = np.unique(prepared.image_of_instant, return_index=True)  # one instant for every distinct frame
        images = prepared.pixels["images"]
        return boxes_of(self.estimator.config, clip, images, prepared.frame_index[first], self.detector)

    def _crops(self, people: "_People", prepared: Prepared, clip: Clip) -> Iterator[Tensor]:
        """The clip's people, cut out as many at a time as go through the network; a VideoError is the clip's."""
        people.boxes = self.boxes(prepared, clip)
        people.reduced_detector = self.detector.reduced_batch if self.detector is not None else 0
        images, boxes, size = prepared.pixels["images"], people.boxes.xyxy, self.batch.current
        for start in range(0, len(images), size):
            yield self._cut_out(images[start : start + size], boxes[start : start + size])

    def _cut_out(self, images: Images, boxes: Floats) -> Tensor:
        return self.batch.run(lambda size: self.estimator.crops(images, boxes, at_once=size))


class _People(ClipWork):
    """One clip's boxes, and joints as far as its heatmaps have come."""

    def __init__(self, prepared: Prepared, estimator: PoseEstimator) -> None:
        super().__init__(prepared)
        self.boxes: Boxes | None = None
        self.reduced_detector = 0
        self._estimator = estimator
        self._joints: list[tuple[Floats, Floats]] = []
        self._num_taken = 0

    def take(self, outputs: Tensor) -> None:
        """Takes (n, J, h, w) heatmaps of the next frames in which somebody is."""
        assert self.boxes is not None
        boxes = self.boxes.xyxy[self.boxes.present][self._num_taken : self._num_taken + len(outputs)]
        self._num_taken += len(outputs)
        self._joints.append(self._estimator.decode(outputs.numpy(), boxes))

    def rows(self, reduced_batch: int) -> ClipRows:
        """All fields of the stream; a frame that is shown twice was measured once.

        Of two networks that ran out of memory the smaller batch is told: either may have changed the last bits.
        """
        boxes = self.boxes
        assert boxes is not None
        xy = np.full((len(boxes.xyxy), COCO_17.num_joints, 2), np.nan, np.float32)
        score = np.zeros(xy.shape[:2], np.float32)
        if self._joints:
            xy[boxes.present], score[boxes.present] = (
                np.concatenate(values) for values in zip(*self._joints, strict=True)
            )
        distinct: dict[str, Any] = {
            "xy": xy,
            "score": score,
            "valid": boxes.valid,
            "box": boxes.xyxy,
            "box_score": boxes.score,
            "track_id": boxes.track_id,
            "box_source": boxes.source,
        }
        fields = {name: values[self.prepared.image_of_instant] for name, values in distinct.items()}
        reduced = [size for size in (reduced_batch, self.reduced_detector) if size]
        return rows_of(self.prepared, fields, min(reduced, default=0))
