"""Prepared clips whose pixels tell where they come from: what the tests of products share."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.rows import ClipRows
from extract.decoding.decode_process import Prepared
from extract.products.visual_prompts import VisualPrompts

FLAT = {"a": [1, 2, 3], "b": list(range(20, 40)), "c": [5], "d": [6, 7, 8, 9, 10]}
"""Clips by name: 29 images of which every pixel has one value."""


def prepared(name: str, instants: list[int], **pixels: npt.NDArray[Any]) -> Prepared:
    """A clip with a row for each of `instants`, which are indices of its distinct frames."""
    shown = np.array(instants)
    return Prepared(
        clip_id=name,
        pts_seconds=shown.astype(float),
        frame_index=shown,
        image_of_instant=shown,
        pixels=pixels,
    )


def clip(name: str, values: list[int], instants: list[int] | None = None) -> Prepared:
    """A clip whose images have these first pixels, for an encoder of 32 x 32."""
    inputs = np.zeros((len(values), 3, 32, 32), np.uint8)
    inputs[:, 0, 0, 0] = values
    return prepared(name, instants if instants is not None else list(range(len(values))), inputs=inputs)


def drain(prompts: VisualPrompts, clips: list[Prepared]) -> Iterator[ClipRows]:
    """Rows of all clips."""
    for one in clips:
        yield from prompts.add(one)
    yield from prompts.flush()
