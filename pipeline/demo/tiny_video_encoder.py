"""The demo's video encoder: a small TimeSformer taught to say what happens in each frame of random action sequences.

It stands in for a TimeSformer pretrained on Kinetics: it knows motions, and it has never seen an activity, a script or
a confounder. The question it answers in training is per frame (sixteen actions), the head is thrown away.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.demo.corpus import labelled_clip
from pipeline.demo.scripts import ACTIONS
from train.config import VideoEncoderConfig
from train.encoders.timesformer import TimeSformer, pool_frames
from train.frames import normalise

NUM_FRAMES_USED = 8
"""L of the demo: eight instants of a video."""
VIDEO_ENCODER = VideoEncoderConfig(
    pretrained="none", frozen=True, image_size=64, resize=64, patch_size=8, width=96, depth=3, heads=3, drop_path=0.0
)


class FrameClassifier(nn.Module):
    """A TimeSformer and a linear layer on each frame's pooled tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TimeSformer(VIDEO_ENCODER.timesformer(NUM_FRAMES_USED))
        self.head = nn.Linear(VIDEO_ENCODER.width, len(ACTIONS))

    def forward(self, frames: Tensor) -> Tensor:
        """frames: (n, L, 3, 64, 64) normalised -> (n, L, actions)."""
        return self.head(pool_frames(self.encoder(frames), NUM_FRAMES_USED))


def random_batch(rng: np.random.Generator, batch_size: int) -> tuple[Tensor, Tensor]:
    """Normalised frames (n, L, 3, 64, 64) of random action sequences, and each frame's action (n, L)."""
    pairs = [labelled_clip(rng, NUM_FRAMES_USED) for _ in range(batch_size)]
    frames = torch.from_numpy(np.stack([images for images, _ in pairs])).permute(0, 1, 4, 2, 3)
    labels = torch.from_numpy(np.stack([actions for _, actions in pairs]))
    return normalise(frames, VIDEO_ENCODER.mean, VIDEO_ENCODER.std), labels


def train_video_encoder(
    *, steps: int = 1100, batch_size: int = 16, seed: int = 0, progress: Callable[[int, str], None] | None = None
) -> FrameClassifier:
    """Trains the encoder; about eight minutes on one core.

    Args:
        steps: optimiser steps.
        batch_size: clips per step.
        seed: of weights and corpus.
        progress: called after each step with its number and a line of text.
    """
    torch.manual_seed(seed)
    model = FrameClassifier().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng([seed, 2])
    for step in range(steps):
        frames, labels = random_batch(rng, batch_size)
        loss = F.cross_entropy(model(frames).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, f"loss {loss.item():.3f}")
    return model.eval()


@torch.inference_mode()
def frame_accuracy(model: FrameClassifier, *, num_clips: int = 200, seed: int = 1000) -> float:
    """Share of frames of new clips whose action is named."""
    rng = np.random.default_rng([seed, 2])
    frames, labels = random_batch(rng, num_clips)
    predicted = torch.cat([model(chunk).argmax(dim=-1) for chunk in frames.split(20)])
    return float((predicted == labels).float().mean())
