"""The demo's pose network: an HRNet of width 8 in the official format, trained on the rendered figure's true joints.

Crops and heatmaps are made by `extract.pose`, so training sees exactly what extraction feeds in. A reader will ask
why peaks weigh 20 times as much: heatmaps this small are nearly empty, and without it the network learns silence.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from extract.pose.crop import crop_people, crop_regions
from extract.pose.heatmaps import decode_joints
from extract.pose.hrnet import HEATMAP_STRIDE, HRNetPose
from pipeline.demo.corpus import posed_frame
from pipeline.demo.renderer import SIZE

VARIANT = "hrnet_w8_tiny"
INPUT_SIZE = 64
CODEC = "msra"
_SIGMA = 1.2  # heatmap pixels
_PEAK_WEIGHT = 20.0


def whole_frame(count: int) -> npt.NDArray[np.float64]:
    """(count, 4) boxes that hold the whole frame."""
    return np.tile(np.array([0.0, 0.0, SIZE, SIZE]), (count, 1))


def target_heatmaps(joints: npt.NDArray[np.float32]) -> Tensor:
    """Gaussians at the joints. joints: (m, J, 2) in frame pixels -> (m, J, h, w)."""
    side = INPUT_SIZE // HEATMAP_STRIDE
    centre, size = crop_regions(whole_frame(len(joints)), INPUT_SIZE, INPUT_SIZE)
    peaks = (joints - centre[:, None]) / size[:, None] * side + side / 2  # (m, J, 2) x y
    grid = np.arange(side)
    squared = (grid - peaks[..., 0, None])[..., None, :] ** 2 + (grid - peaks[..., 1, None])[..., :, None] ** 2
    return torch.from_numpy(np.exp(-squared / (2 * _SIGMA**2))).float()


def train_pose(
    *, steps: int = 500, batch_size: int = 48, seed: int = 0, progress: Callable[[int, str], None] | None = None
) -> HRNetPose:
    """Trains the pose network; about a minute on one core.

    Args:
        steps: optimiser steps.
        batch_size: frames per step.
        seed: of weights and corpus.
        progress: called after each step with its number and a line of text.
    """
    torch.manual_seed(seed)
    model = HRNetPose(VARIANT).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng([seed, 3])
    for step in range(steps):
        frames, joints = _random_batch(rng, batch_size)
        target = target_heatmaps(joints)
        images = crop_people(frames, whole_frame(batch_size), height=INPUT_SIZE, width=INPUT_SIZE)
        loss = ((1 + _PEAK_WEIGHT * target) * (model(images) - target).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, f"loss {loss.item():.4f}")
    return model.eval()


@torch.inference_mode()
def pose_errors(model: HRNetPose, *, num_frames: int = 500, seed: int = 1000) -> tuple[npt.NDArray[np.float64], float]:
    """How far predicted joints are from the true ones, on new frames.

    Returns:
        Distances in pixels (frames, J), NaN where a joint is missing; and PCK@0.2, the share of joints within a fifth
        of the torso's length (shoulder to opposite hip), where a missing joint counts as wrong.
    """
    frames, joints = _random_batch(np.random.default_rng([seed, 3]), num_frames)
    boxes = whole_frame(num_frames)
    images = crop_people(frames, boxes, height=INPUT_SIZE, width=INPUT_SIZE)
    heatmaps = torch.cat([model(chunk) for chunk in images.split(50)]).numpy()
    found, _ = decode_joints(heatmaps, boxes, codec=CODEC, stride=HEATMAP_STRIDE)
    distances = np.linalg.norm(found.astype(np.float64) - joints, axis=-1)
    torso = np.linalg.norm(joints[:, 5] - joints[:, 12], axis=-1)
    return distances, float((distances <= 0.2 * torso[:, None]).mean())


def _random_batch(rng: np.random.Generator, count: int) -> tuple[Tensor, npt.NDArray[np.float32]]:
    pairs = [posed_frame(rng) for _ in range(count)]
    return torch.from_numpy(np.stack([image for image, _ in pairs])), np.stack([joints for _, joints in pairs])
