"""From prepared clips to rows: the models run here, in the parent, at one constant batch size.

A row must not depend on which clips happened to be ready together. So images of several clips share a batch of the
image encoder only where a row has the same bits at every place in a batch, which is measured when the encoder is
loaded: it fails, for one, on a CPU whose threads cut the batch unevenly. Elsewhere a batch holds one clip.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cache.errors import FailureCode, VideoError
from cache.manifest import Clip
from cache.rows import Array, ClipRows, Failure
from extract.config import ExtractConfig
from extract.decode_process import Prepared

if TYPE_CHECKING:
    from extract.image_encoder import ImageEncoder
    from extract.pose.estimator import PoseEstimator


def rows_of(prepared: Prepared, fields: Mapping[str, Array | list[bytes]]) -> ClipRows:
    """The rows of one clip: F of each field."""
    return ClipRows(
        clip_id=prepared.clip_id,
        fields=fields,
        pts_seconds=prepared.pts_seconds,
        frame_index=prepared.frame_index,
        provenance=prepared.provenance,
    )


def failed_rows(prepared: Prepared, failure: Failure) -> ClipRows:
    """The row of a clip without features."""
    return ClipRows.failed(prepared.clip_id, failure, prepared.provenance)


def frame_rows(prepared: Prepared) -> ClipRows:
    """JPEGs, repeated where instants repeat."""
    return rows_of(prepared, {"jpeg": [prepared.jpegs[index] for index in prepared.image_of_instant]})


class VisualPrompts:
    """The image encoder with a batch that fills up; clips come out when their last image has gone through."""

    def __init__(self, encoder: "ImageEncoder", num_frames: int) -> None:
        self._encoder = encoder
        self._size = encoder.config.batch_size
        fills_batches = num_frames % self._size == 0  # one clip is enough: nothing to gain, nothing to measure
        on_device = encoder.device.type != "cpu"  # a CPU is as fast with small batches
        self.shares_batches = on_device and not fills_batches and is_place_independent(encoder)
        if not self.shares_batches:
            self._size = min(self._size, num_frames)
        self._batch = np.zeros((self._size, 3, encoder.spec.image_size, encoder.spec.image_size), np.uint8)
        self._filled = 0
        self._waiting: deque[tuple[Prepared, int]] = deque()  # clips with the number of images they have
        self._rows: list[npt.NDArray[np.float32]] = []  # encoded, not yet handed out
        self._num_rows = 0

    def add(self, prepared: Prepared) -> Iterator[ClipRows]:
        """Takes a clip's (U, 3, S, S) images; yields the clips that became complete."""
        images = prepared.pixels["inputs"]
        self._waiting.append((prepared, len(images)))
        while len(images):
            count = min(len(images), self._size - self._filled)
            self._batch[self._filled : self._filled + count] = images[:count]
            self._filled += count
            images = images[count:]
            if self._filled == self._size:
                yield from self.flush()
        if not self.shares_batches:
            yield from self.flush()

    def flush(self) -> Iterator[ClipRows]:
        """Runs the batch, padded by what it held before, and yields the clips that became complete."""
        if self._filled:
            self._rows.append(self._encode()[: self._filled])
            self._num_rows += self._filled
            self._filled = 0
        while self._waiting and self._waiting[0][1] <= self._num_rows:
            prepared, count = self._waiting.popleft()
            encoded = np.concatenate(self._rows)
            self._rows, self._num_rows = [encoded[count:]], self._num_rows - count
            yield _visual_prompt_rows(prepared, encoded[:count])

    def _encode(self) -> npt.NDArray[np.float32]:
        import torch

        return self._encoder.encode(torch.from_numpy(self._batch)).cpu().numpy()


def is_place_independent(encoder: "ImageEncoder") -> bool:
    """True if an image's embedding has the same bits at every place in a batch.

    One step is enough: if every place agrees with the next one, all agree; kernels don't look at values.
    """
    import torch

    size, side = encoder.config.batch_size, encoder.spec.image_size
    noise = np.random.default_rng(0).integers(0, 256, (size, 3, side, side), dtype=np.uint8)
    images = torch.from_numpy(noise)
    return torch.equal(encoder.encode(images).roll(1, dims=0), encoder.encode(images.roll(1, dims=0)))


def _visual_prompt_rows(prepared: Prepared, encoded: npt.NDArray[np.float32]) -> ClipRows:
    with np.errstate(over="ignore"):
        half = encoded.astype(np.float16)
    if not np.isfinite(half).all():
        failure = Failure(code=FailureCode.NON_FINITE, message="the image encoder gave NaN or infinity (in fp16)")
        return failed_rows(prepared, failure)
    return rows_of(prepared, {"visual_prompts": half[prepared.image_of_instant]})


def joint_rows(prepared: Prepared, clip: Clip, estimator: "PoseEstimator", config: ExtractConfig) -> ClipRows:
    """Joints of every instant; a frame that is shown twice is measured once if its boxes are the same."""
    from extract.pose.boxes import boxes_for

    images, instants = prepared.pixels["images"], prepared.image_of_instant
    _, first = np.unique(instants, return_index=True)  # one instant for every distinct frame
    height, width = images.shape[1:3]
    try:
        index = prepared.frame_index[first]
        boxes = boxes_for(config.pose, clip, len(index), height, width, index)
        xy, score = estimator.estimate(images, boxes.xyxy)
    except VideoError as error:
        return failed_rows(prepared, Failure(code=error.code, message=error.message))
    distinct: dict[str, Any] = {
        "xy": xy,
        "score": score,
        "valid": boxes.valid,
        "box": boxes.xyxy,
        "box_score": boxes.score,
        "track_id": boxes.track_id,
        "box_source": boxes.source,
    }
    return rows_of(prepared, {name: values[instants] for name, values in distinct.items()})
