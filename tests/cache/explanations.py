"""An explanation with every part, no two numbers alike, for the tests of its file and of the pages made from it."""

import io
from typing import Any

import numpy as np
from PIL import Image

from cache.explanation import Explanation, FrameWords, Interventions, Matching, PatchMaps, PoseMask

CLIPS, CLASSES, SHOWN, FRAMES, WIDTH, PATCHES, JOINTS, POSE_FRAMES, BASES, WORDS = 2, 4, 3, 4, 6, 9, 3, 8, 2, 2
CLASS_NAMES = ("take", "pour", "stir", "cut")


def jpeg(seed: int, side: int = 24) -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def weights(*shape: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Rows of the last axis sum to 1."""
    drawn = np.random.default_rng(seed).random(shape) + 0.1
    return (drawn / drawn.sum(axis=-1, keepdims=True)).astype(np.float32)


def normal(*shape: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Any numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def interventions(**changes: Any) -> Interventions:  # noqa: ANN401 (fields of Interventions)
    """Of a PCMCI with all its stages."""
    defaults: dict[str, Any] = {
        "cached_text": normal(CLASSES, WIDTH, seed=1),
        "text": normal(CLASSES, WIDTH, seed=2),
        "corrected_text": normal(CLIPS, CLASSES, WIDTH, seed=3),
        "visual_prompts": normal(CLIPS, FRAMES, WIDTH, seed=4),
        "back_door": weights(CLIPS, CLASSES, FRAMES, seed=5),
        "is_plan": True,
        "front_door": weights(CLIPS, CLASSES, FRAMES, seed=6),
        "relation_graphs": weights(CLIPS, BASES, CLASSES, CLASSES, seed=7).astype(np.float16),
    }
    return Interventions(**(defaults | changes))


def explanation(**changes: Any) -> Explanation:  # noqa: ANN401 (fields of Explanation)
    """Every part at once, as no method makes them."""
    defaults: dict[str, Any] = {
        "method": "pcmci",
        "task": "atomic",
        "kind": "multi",
        "dataset": "toy",
        "protocol": "default",
        "split": "test",
        "run_name": "run",
        "clip_ids": ("clip-000", "clip-003"),
        "class_names": CLASS_NAMES,
        "logits": normal(CLIPS, CLASSES, seed=8),
        "targets": np.array([[1, 0, 1, 0], [0, 0, 0, 1]], np.uint8),
        "shown": np.array([[0, 2, 1], [3, 1, 0]]),
        "pts_seconds": np.arange(CLIPS * FRAMES).reshape(CLIPS, FRAMES) / 8,
        "frame_index": np.arange(CLIPS * FRAMES).reshape(CLIPS, FRAMES),
        "pictures": tuple(jpeg(number) for number in range(CLIPS * FRAMES)),
        "notices": ("random weights",),
        "interventions": interventions(),
        "patches": PatchMaps(
            attention=normal(CLIPS, FRAMES, PATCHES, seed=9), evidence=normal(CLIPS, SHOWN, FRAMES, PATCHES, seed=10)
        ),
        "matching": Matching(
            rows=("tea", "toast"),
            row_task="activity",
            counts=np.array([3, 5]),
            probabilities=weights(3, 2, CLASSES, seed=11),
            on_own=np.array([0.5, 0.6, 0.7], np.float32),
            temperature=0.01,
        ),
        "pose": PoseMask(
            joint_names=("nose", "left_wrist", "right_wrist"),
            joints=np.random.default_rng(12).random((CLIPS, FRAMES, JOINTS, 3)).astype(np.float32),
            joint_weights=weights(CLIPS, FRAMES, JOINTS, seed=13),
            mask=weights(CLIPS, FRAMES, PATCHES, seed=14),
        ),
        "frame_words": FrameWords(
            pose_seconds=np.arange(CLIPS * POSE_FRAMES).reshape(CLIPS, POSE_FRAMES) / 16,
            words=(("take", "cup"), ("pour",), ("stir",), ("cut", "bread")),
            cosines=normal(CLIPS, SHOWN, POSE_FRAMES, WORDS, seed=15),
        ),
    }
    return Explanation(**(defaults | changes))
