"""A card for each frozen model: what it is, how it was made, what it was checked for.

The text is made from the measured numbers, so a card cannot praise a model that failed; `failed` says what fell short.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from extract.config import ImageEncoderConfig
from pipeline.demo.corpus import BIASED_SHARE, CORPUS
from pipeline.demo.probe import CONDITIONS, ProbeRow, probe

MIN_ATOMIC_COUNTERFACTUAL = 0.8
"""Zero-shot accuracy of the image encoder on single actions in other surroundings."""
MIN_ACTIVITY_DROP = 0.5
"""How much its zero-shot activity accuracy has to fall in other surroundings: it is meant to be biased."""
MIN_PCK = 0.9
MIN_FRAME_ACCURACY = 0.85

_FOOT = """
Made by `deconfound demo --train-frozen-models` from rendered frames and a seed; no photograph, no person and no
foreign weights went into it. Licence: MIT, as the code. It is good for the controlled world only.
"""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Markdown, and the checks that failed, a line each."""

    text: str
    failed: tuple[str, ...]


def image_encoder_card(architecture: Path, weights: Path) -> ModelCard:
    """Measures the image encoder in the world it was trained in: zero-shot, and the probe of bias."""
    config = ImageEncoderConfig(model=str(architecture), pretrained=str(weights))
    rows = {(row.condition, row.question): row for row in probe(config, CORPUS)}
    signal = rows["other surroundings", "atomic"].top1.estimate
    drop = rows["as filmed", "activity"].top1.estimate - rows["other surroundings", "activity"].top1.estimate
    checks = [
        ("atomic zero-shot accuracy, other surroundings", signal, MIN_ATOMIC_COUNTERFACTUAL),
        ("activity zero-shot accuracy, as filmed minus other surroundings", drop, MIN_ACTIVITY_DROP),
    ]
    table = "\n".join(_line(rows[condition, "activity"], rows[condition, "atomic"]) for condition in CONDITIONS)
    return _card(
        "deconfound-tiny-clip: image and text encoder",
        f"""A CLIP in open_clip's format: 64 px, patch 8, image tower 96 wide and 3 deep, text tower 2 deep, joint
width 96. The token embedding is random, frozen and rebuilt from its seed; it is not in the file.

Trained on captioned frames: {BIASED_SHARE:.0%} of activities in their usual surroundings (each confounder with
probability {CORPUS.rho_background}), the rest single actions anywhere. So it is biased on purpose, and knows actions.

Zero-shot on rendered frames of that world (accuracy; score = cosine with the own class minus the mean):

| frames | activity (chance 0.125) | activity score | action (chance 0.063) | action score |
|---|---|---|---|---|
{table}
""",
        checks,
    )


def pose_card(distances: npt.NDArray[np.float64], pck: float) -> ModelCard:
    """The pose network's card from `tiny_pose.pose_errors`."""
    return _card(
        "hrnet_w8_tiny: pose",
        f"""An HRNet of width 8 under the names of official checkpoints, 17 COCO joints, input 64 x 64, codec msra.
Trained on single rendered frames with the figure's true joints.

On {len(distances)} new frames, whole frame as box: mean error {np.nanmean(distances):.2f} px, median
{np.nanmedian(distances):.2f} px, wrists {np.nanmean(distances[:, 9:11]):.2f} px; {np.isnan(distances).mean():.1%} of
joints missing. Frames are 64 px high.
""",
        [("PCK@0.2 of the torso", pck, MIN_PCK)],
    )


def video_encoder_card(accuracy: float) -> ModelCard:
    """The video encoder's card from `tiny_video_encoder.frame_accuracy`."""
    return _card(
        "timesformer_p8_tiny: video encoder",
        """A TimeSformer under the names of Facebook's checkpoints, without head: 64 px, patch 8, 96 wide, 3 deep, 8
frames. Trained to name the action of each frame in random action sequences anywhere: the demo's stand-in for Kinetics.
It has seen no activity, no script and no confounder.
""",
        [("accuracy per frame on new clips, sixteen actions", accuracy, MIN_FRAME_ACCURACY)],
    )


def _card(title: str, body: str, checks: list[tuple[str, float, float]]) -> ModelCard:
    lines = [f"{what}: {value:.3f} (at least {least})" for what, value, least in checks]
    failed = tuple(line for line, (_, value, least) in zip(lines, checks, strict=True) if not value >= least)
    marks = "\n".join(f"- {'FAILED: ' if line in failed else ''}{line}" for line in lines)
    return ModelCard(text=f"# {title}\n\n{body}\nChecks:\n\n{marks}\n{_FOOT}", failed=failed)


def _line(activity: ProbeRow, atomic: ProbeRow) -> str:
    cells = [activity.top1, activity.score, atomic.top1, atomic.score]
    return f"| {activity.condition} | " + " | ".join(f"{cell.estimate:.3f}" for cell in cells) + " |"
