"""Visual prompts: the images of all clips through the frozen image encoder, to fp16.

Why infinity in fp16 fails a clip: the encoder gave a number that the cache cannot hold, and one that stood in for it
would look like a feature.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cache.errors import FailureCode, VideoError
from cache.rows import ClipRows
from extract.batch_size import BatchSize
from extract.decoding.decode_process import Prepared
from extract.image_encoder import ImageEncoder
from extract.products.rows import rows_of
from extract.products.shared_batches import ClipWork, SharedBatches


class VisualPrompts:
    """The image encoder with a batch that fills up; clips come out when their last image has gone through."""

    def __init__(self, encoder: ImageEncoder, num_frames: int | None) -> None:
        """Measures whether clips may share batches, where that can save time.

        Args:
            encoder: the image encoder.
            num_frames: most images of a clip; None: clips differ, the configured batch size is used as it is.

        Raises:
            VideoError: OUT_OF_MEMORY, a single image does not fit.
        """
        self.encoder = encoder
        self.batch = BatchSize(encoder.config.batch_size, encoder.device, model="image encoder")
        side = encoder.spec.image_size
        self._batches = SharedBatches(
            encoder.encode_all,
            self.batch,
            lambda size: torch.zeros(size, 3, side, side, dtype=torch.uint8),  # bytes wait here, not on the device
            most=num_frames,
            varies=False,
        )

    @property
    def shares_batches(self) -> bool:
        """True if a batch holds images of several clips."""
        return self._batches.are_shared

    def add(self, prepared: Prepared) -> Iterator[ClipRows]:
        """Takes a clip's (U, 3, S, S) images; yields the clips that became complete."""
        return self._batches.add(_Prompts(prepared), [torch.from_numpy(prepared.pixels["inputs"])])

    def flush(self) -> Iterator[ClipRows]:
        """Runs the images that wait for a full batch, and yields the clips that became complete."""
        return self._batches.flush()


class _Prompts(ClipWork):
    """One clip's embeddings."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__(prepared)
        self._embeddings: list[Tensor] = []

    def take(self, outputs: Tensor) -> None:
        """Takes (n, D) float32."""
        self._embeddings.append(outputs)

    def rows(self, reduced_batch: int) -> ClipRows:
        """`visual_prompts` (F, D) fp16."""
        with np.errstate(over="ignore"):
            half = torch.cat(self._embeddings).numpy().astype(np.float16)
        if not np.isfinite(half).all():
            raise VideoError(FailureCode.NON_FINITE, "the image encoder gave NaN or infinity (in fp16)")
        return rows_of(self.prepared, {"visual_prompts": half[self.prepared.image_of_instant]}, reduced_batch)
