"""From prepared clips to rows: the models run here, in the parent, at one constant batch size.

A row must not depend on which clips happened to be ready together. So images of several clips share a batch of the
image encoder only where a row has the same bits at every place in a batch, which is measured when the encoder is
loaded: it fails, for one, on a CPU whose threads cut the batch unevenly. Elsewhere a batch holds images of one clip,
and a clip of few is padded to the size: several sizes would be several ways to round.

When memory runs out, images that wait for a full batch stay where they are and run in smaller pieces. Rows made then
say so; only they may depend on the moment at which it happened.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cache.errors import FailureCode, VideoError
from cache.manifest import Clip
from cache.rows import NO_PROVENANCE, Array, ClipRows, Failure
from extract.config import ExtractConfig
from extract.decoding.decode_process import Prepared

if TYPE_CHECKING:
    from extract.image_encoder import ImageEncoder
    from extract.pose.estimator import PoseEstimator


Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def rows_of(prepared: Prepared, fields: Mapping[str, Array | list[bytes]], reduced_batch: int = 0) -> ClipRows:
    """The rows of one clip: F of each field, and the batch size if it had to be reduced."""
    provenance = prepared.provenance
    if reduced_batch:
        provenance = replace(provenance or NO_PROVENANCE, reduced_batch=reduced_batch)
    return ClipRows(
        clip_id=prepared.clip_id,
        fields=fields,
        pts_seconds=prepared.pts_seconds,
        frame_index=prepared.frame_index,
        provenance=provenance,
    )


def failed_rows(prepared: Prepared, failure: Failure) -> ClipRows:
    """The row of a clip without features."""
    return ClipRows.failed(prepared.clip_id, failure, prepared.provenance)


def frame_rows(prepared: Prepared) -> ClipRows:
    """JPEGs, repeated where instants repeat."""
    return rows_of(prepared, {"jpeg": [prepared.jpegs[index] for index in prepared.image_of_instant]})


@dataclass(eq=False)
class _Encoding:
    """A clip on its way through the encoder; its images may lie in several batches."""

    prepared: Prepared
    num_left: int
    rows: list[Floats] = field(default_factory=list)
    reduced_batch: int = 0
    failure: Failure | None = None

    def take(self, rows: Floats, reduced_batch: int) -> None:
        self.rows.append(rows)
        self.num_left -= len(rows)
        self.reduced_batch = reduced_batch

    def fail(self, error: VideoError, num_images: int) -> None:
        self.failure = Failure(code=error.code, message=error.message)
        self.num_left -= num_images

    def to_rows(self) -> ClipRows:
        if self.failure is not None:
            return failed_rows(self.prepared, self.failure)
        return _visual_prompt_rows(self.prepared, np.concatenate(self.rows), self.reduced_batch)


class VisualPrompts:
    """The image encoder with a batch that fills up; clips come out when their last image has gone through."""

    def __init__(self, encoder: "ImageEncoder", num_frames: int | None) -> None:
        """Measures whether clips may share batches, where that can save time.

        Args:
            encoder: the image encoder.
            num_frames: most images of a clip; None: clips differ, the configured batch size is used as it is.

        Raises:
            VideoError: OUT_OF_MEMORY, a single image does not fit.
        """
        from extract.batch_size import BatchSize

        self.encoder = encoder
        self.batch = BatchSize(encoder.config.batch_size, encoder.device, model="image encoder")
        self.shares_batches = _may_gain(encoder, num_frames) and self.batch.run(
            lambda size: is_place_independent(encoder, size)
        )
        if not self.shares_batches and num_frames is not None:
            self.batch.limit(num_frames)
        side = encoder.spec.image_size
        self._images = np.zeros((self.batch.full if self.shares_batches else 0, 3, side, side), np.uint8)
        self._pieces: list[tuple[_Encoding, int]] = []  # of the images that wait for a full batch
        self._clips: deque[_Encoding] = deque()

    def add(self, prepared: Prepared) -> Iterator[ClipRows]:
        """Takes a clip's (U, 3, S, S) images; yields the clips that became complete."""
        images = prepared.pixels["inputs"]
        clip = _Encoding(replace(prepared, pixels={}), num_left=len(images))
        self._clips.append(clip)
        if not self.shares_batches:
            self._encode(images, [(clip, len(images))])
            yield from self._complete()
            return
        while len(images):
            filled = sum(count for _, count in self._pieces)
            count = min(len(images), len(self._images) - filled)
            self._images[filled : filled + count] = images[:count]
            self._pieces.append((clip, count))
            images = images[count:]
            if filled + count == len(self._images):
                yield from self.flush()

    def flush(self) -> Iterator[ClipRows]:
        """Runs the images that wait for a full batch, and yields the clips that became complete."""
        pieces, self._pieces = self._pieces, []
        if pieces:
            self._encode(self._images[: sum(count for _, count in pieces)], pieces)
        yield from self._complete()

    def _encode(self, images: Images, pieces: Sequence[tuple[_Encoding, int]]) -> None:
        """Runs images of one or more clips, each with the number of images that it has among them."""
        cuts = np.cumsum([count for _, count in pieces])[:-1]
        try:
            rows = np.split(self._forward(images), cuts)
        except VideoError as error:
            if len(pieces) == 1:
                pieces[0][0].fail(error, len(images))
                return
            for inputs, piece in zip(np.split(images, cuts), pieces, strict=True):  # whose image was too much?
                self._encode(inputs, [piece])
            return
        for part, (clip, _) in zip(rows, pieces, strict=True):
            clip.take(part, self.batch.reduced)

    def _complete(self) -> Iterator[ClipRows]:
        while self._clips and not self._clips[0].num_left:
            yield self._clips.popleft().to_rows()

    def _forward(self, images: Images) -> Floats:
        import torch

        tensor = torch.from_numpy(images)
        return self.batch.run(lambda size: self.encoder.encode_all(tensor, size).numpy())


def is_place_independent(encoder: "ImageEncoder", batch_size: int) -> bool:
    """True if an image's embedding has the same bits at every place in a batch.

    One step is enough: if every place agrees with the next one, all agree; kernels don't look at values.
    """
    import torch

    side = encoder.spec.image_size
    noise = np.random.default_rng(0).integers(0, 256, (batch_size, 3, side, side), dtype=np.uint8)
    images = torch.from_numpy(noise)
    return torch.equal(encoder.encode(images).roll(1, dims=0), encoder.encode(images.roll(1, dims=0)))


def _may_gain(encoder: "ImageEncoder", num_frames: int | None) -> bool:
    """True if batches that hold one clip would be partly padding, or small on a device that wants large ones."""
    if num_frames is None:
        return True
    is_full = num_frames % encoder.config.batch_size == 0
    return encoder.device.type != "cpu" and not is_full  # a CPU is as fast with small batches


def _visual_prompt_rows(prepared: Prepared, encoded: Floats, reduced_batch: int) -> ClipRows:
    with np.errstate(over="ignore"):
        half = encoded.astype(np.float16)
    if not np.isfinite(half).all():
        failure = Failure(code=FailureCode.NON_FINITE, message="the image encoder gave NaN or infinity (in fp16)")
        return failed_rows(prepared, failure)
    return rows_of(prepared, {"visual_prompts": half[prepared.image_of_instant]}, reduced_batch)


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
    fields = {name: values[instants] for name, values in distinct.items()}
    return rows_of(prepared, fields, estimator.batch.reduced)
