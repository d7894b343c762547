"""A PeVL of a few thousand parameters whose every weight matters, and inputs for the tests of its parts.

The classes' prompts have other lengths, two clips share a label, one joint is missing throughout and one clip has a
pose frame without any, so that a position, a pairing or a frame that is taken by mistake changes a number.
"""

from typing import Any

import torch
from torch import Tensor, nn

from train.encoders.clip_tower import ClipShape, ClipTowers, ImageTower, TextTower
from train.models.pevl import PeVL, VisualFeatures
from train.models.pevl_config import PeVLConfig

CLIPS, FRAMES, POSE_FRAMES, JOINTS, CLASSES, WIDTH, DIM = 4, 2, 6, 5, 5, 16, 12
SHARED = (1, 4)
"""The pose frames in the middle of each of two video frames, of six."""
IMAGE, PATCH = 32, 8
GRID = IMAGE // PATCH
LABELS = torch.tensor([3, 0, 3, 1])
NUM_WORDS = (2, 5, 1, 3, 4)
SHAPE = ClipShape(
    image_size=IMAGE,
    patch_size=PATCH,
    width=WIDTH,
    depth=2,
    heads=4,
    mlp_ratio=2.0,
    text_width=8,
    text_depth=2,
    text_heads=2,
    context_length=8,
    vocab_size=64,
    embed_dim=DIM,
)
NO_UCMR: dict[str, Any] = {"p2v": "off", "v2p": False}


def random(*shape: int, seed: int) -> Tensor:
    """The same normal numbers for a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def config(**changes: Any) -> PeVLConfig:  # noqa: ANN401 (fields of PeVLConfig)
    """Temperatures far from each other and from the defaults."""
    defaults = {"pose_frames": POSE_FRAMES, "tau": 0.2, "tau_a": 0.1, "tau_r": 0.4, "lambda_r": 0.3, "drop_path": 0.0}
    return PeVLConfig(**(defaults | changes))


def prompts() -> tuple[Tensor, Tensor]:
    """Token ids (C, N_t), begin, words, end and zeros, and the mask of words."""
    ids, mask = torch.zeros(CLASSES, 8, dtype=torch.long), torch.zeros(CLASSES, 8, dtype=torch.bool)
    for number, words in enumerate(NUM_WORDS):
        ids[number, : words + 2] = torch.tensor([62, *(7 * number + place + 1 for place in range(words)), 63])
        mask[number, 1 : words + 1] = True
    return ids, mask


def towers() -> ClipTowers:
    """A CLIP with nothing at zero or one."""
    both = ClipTowers(ImageTower(SHAPE), TextTower(SHAPE))
    torch.manual_seed(1)
    for tower in both:
        for name, parameter in tower.named_parameters():
            nn.init.normal_(parameter, mean=float("ln_" in name and name.endswith("weight")), std=0.3)
        tower.requires_grad_(False)
    return both


def frozen_sentences() -> Tensor:
    """(C, D), of other lengths."""
    return torch.arange(1, 1 + CLASSES)[:, None] * random(CLASSES, DIM, seed=2)


def build(*, stirred: bool = True, **changes: Any) -> PeVL:  # noqa: ANN401
    """The model, in testing mode; stirred, it has moved away from its zeros and from CLIP's projections."""
    ids, mask = prompts()
    torch.manual_seed(0)
    model = PeVL(
        config(**changes),
        towers=towers(),
        shape=SHAPE,
        prompts=ids,
        word_mask=mask,
        frozen_sentences=frozen_sentences(),
        num_frames=FRAMES,
        num_joints=JOINTS,
    ).eval()
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if stirred and parameter.requires_grad and not name.startswith("tau"):
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def pixels() -> Tensor:
    """(n, L, 3, S, S)."""
    return random(CLIPS, FRAMES, 3, IMAGE, IMAGE, seed=4)


def joints() -> Tensor:
    """(n, T, J, 3): joint 3 missing, and all of the frame that clip 1 shares with its first video frame."""
    places = IMAGE * torch.rand(CLIPS, POSE_FRAMES, JOINTS, 2, generator=torch.Generator().manual_seed(5))
    found = torch.cat([places, torch.ones(CLIPS, POSE_FRAMES, JOINTS, 1)], dim=-1)
    found[:, :, 3] = 0
    found[1, SHARED[0]] = 0
    return found


def some_features() -> VisualFeatures:
    """Features of other lengths, no two alike, as if all encoders and sub-blocks were on."""
    video, pose, before, earlier = (random(CLIPS, DIM, seed=seed) for seed in (6, 7, 8, 9))
    return VisualFeatures(
        video=3 * video,
        pose=pose,
        pose_frames=random(CLIPS, POSE_FRAMES, DIM, seed=10),
        unrefined_video=before,
        unrefined_pose=earlier,
    )
