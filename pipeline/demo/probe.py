"""The papers' probe of bias, where the causes are known: does the image-text match survive without its cause?

Frames of the i.i.d. test videos are rendered four times over: as they are; in surroundings drawn without the label;
with person and object covered (the cause gone, the scene stays); before a grey wall (the scene gone, the cause stays).
The score is CLIP's: cosine with the own class minus the mean cosine over all classes. A biased model keeps much of its
score when the cause is covered and loses much when the scene goes. Frames, not videos: no compression in between.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from evaluate.uncertainty import Interval, Resamples, draw, student_interval
from extract.config import ImageEncoderConfig
from extract.decoding.resizing import preprocess
from extract.image_encoder import ImageEncoder
from extract.text_encoder import encode_texts
from pipeline.demo.renderer import Mode, render_frame
from pipeline.demo.scripts import ACTIONS, ACTIVITIES, NUM_FRAMES, Recording, Split, WorldConfig, draw_recording

Condition = Literal["as filmed", "other surroundings", "cause covered", "surroundings removed"]
Question = Literal["activity", "atomic"]
CONDITIONS: Mapping[Condition, tuple[Split, Mode]] = {
    "as filmed": ("test_iid", "plain"),
    "other surroundings": ("test_counterfactual", "plain"),
    "cause covered": ("test_iid", "masked"),
    "surroundings removed": ("test_iid", "neutral"),
}
_CLASSES: Mapping[Question, tuple[str, ...]] = {"activity": ACTIVITIES, "atomic": ACTIONS}
_FRAMES = tuple(range(NUM_FRAMES // 16, NUM_FRAMES, NUM_FRAMES // 8))

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """One condition and question. Intervals resample videos, not frames."""

    condition: Condition
    question: Question
    top1: Interval
    score: Interval
    """Cosine with the own class minus the mean over classes."""
    kept: Interval
    """The score as a share of the score as filmed."""


def probe(config: ImageEncoderConfig, world: WorldConfig, *, num_videos: int = 80) -> tuple[ProbeRow, ...]:
    """Runs the probe with an image-text encoder.

    Args:
        config: which encoder.
        world: whose test videos are drawn.
        num_videos: per condition; eight frames of each.
    """
    device = torch.device("cpu")
    encoder = ImageEncoder.load(config, device)
    texts = {question: _unit(encode_texts(config, names, device)[0]) for question, names in _CLASSES.items()}
    images = {condition: _image_features(encoder, world, condition, num_videos) for condition in CONDITIONS}
    rows = []
    for question, text in texts.items():
        hits, scores = {}, {}
        for condition, (split, _) in CONDITIONS.items():
            targets = _targets(world, split, question, num_videos)
            hits[condition], scores[condition] = match(images[condition], text, targets)
        rows += _rows(question, hits, scores)
    return tuple(rows)


def match(images: Floats, text: Floats, targets: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Per video, the share of frames whose best class is the target, and the mean score.

    Args:
        images: (videos, frames, D) of length 1.
        text: (C, D) of length 1.
        targets: (videos, frames) class numbers.
    """
    cosines = images @ text.T  # (videos, frames, C)
    own = np.take_along_axis(cosines, targets[..., None], axis=-1)[..., 0]
    hits = cosines.argmax(axis=-1) == targets
    return hits.mean(axis=1, dtype=np.float64), (own - cosines.mean(axis=-1)).mean(axis=1)


def _rows(question: Question, hits: Mapping[Condition, Floats], scores: Mapping[Condition, Floats]) -> list[ProbeRow]:
    rows = []
    for condition in CONDITIONS:

        def card(weights: Floats | None, condition: Condition = condition) -> dict[str, float]:
            filmed = np.average(scores["as filmed"], weights=weights)
            score = np.average(scores[condition], weights=weights)
            return {
                "top1": float(np.average(hits[condition], weights=weights)),
                "score": float(score),
                "kept": float(score / filmed),
            }

        num_videos = len(hits[condition])
        draws = draw({"": card}, Resamples(num_clips=num_videos))[""]
        bounds = {"top1": (0.0, 1.0), "score": (-2.0, 2.0), "kept": (-np.inf, np.inf)}
        intervals = {
            name: student_interval(value, draws[name], num_units=num_videos, bounds=bounds[name])
            for name, value in card(None).items()
        }
        rows.append(ProbeRow(condition=condition, question=question, **intervals))
    return rows


def _recordings(world: WorldConfig, split: Split, num_videos: int) -> Sequence[Recording]:
    return [draw_recording(world, split, number) for number in range(num_videos)]


def _image_features(encoder: ImageEncoder, world: WorldConfig, condition: Condition, num_videos: int) -> Floats:
    """(videos, frames, D) of length 1."""
    split, mode = CONDITIONS[condition]
    frames = [
        render_frame(recording, frame, mode) for recording in _recordings(world, split, num_videos) for frame in _FRAMES
    ]
    features = encoder.encode_all(preprocess(np.stack(frames), encoder.spec))
    return _unit(features.numpy()).reshape(num_videos, len(_FRAMES), -1)


def _targets(world: WorldConfig, split: Split, question: Question, num_videos: int) -> npt.NDArray[np.int64]:
    names = _CLASSES[question]
    return np.array(
        [
            [names.index(str(recording.activity) if question == "activity" else recording.action_at(frame))]
            for recording in _recordings(world, split, num_videos)
            for frame in _FRAMES
        ],
        dtype=np.int64,
    ).reshape(num_videos, len(_FRAMES))


def _unit(rows: npt.NDArray[np.float32]) -> Floats:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
