"""What the pose encoder reads: a token per joint, or patches of joint heatmaps (PeVL, section 3.2 and Table 9).

The paper does not say how coordinates become tokens. Here a joint's place goes through one linear layer, its identity
is a learned embedding, and a joint that was not seen has a learned vector in place of its place, so that "not seen" is
not "in the middle of the frame". CLIP's own patch positions are not used: joints do not lie on the patch grid.

Axis letters: n batch, T pose frames, J joints, s tokens of a frame without the class token, d width.
"""

import torch
from torch import Tensor, nn

from cache.errors import ConfigError

HEATMAP_SHARE = 2
"""Heatmaps have half the pixels of the view on each side: 112 for 224, as in the paper."""
HEATMAP_SIGMA = 2.0
"""Standard deviation of a joint's Gaussian, in heatmap pixels. Chosen: that of HRNet's targets."""


class ClassAndTime(nn.Module):
    """Puts a class token before the tokens of each frame, and tells frames apart.

    The class token is CLIP's plus a learned offset. The time embedding is for all tokens of a frame, as on AIM's video
    side. Both start at zero.
    """

    def __init__(self, width: int, num_frames: int) -> None:
        super().__init__()
        self.class_offset = nn.Parameter(torch.zeros(width))
        self.time_embedding = nn.Parameter(torch.zeros(num_frames, width))

    def forward(self, tokens: Tensor, class_embedding: Tensor) -> Tensor:
        """tokens: (n, T, s, d), class_embedding: (d,) -> (n, T, 1 + s, d)."""
        cls = (class_embedding + self.class_offset).to(tokens.dtype).expand(*tokens.shape[:2], 1, -1)
        return torch.cat([cls, tokens], dim=2) + self.time_embedding.unsqueeze(1)


class JointTokens(nn.Module):
    """Coordinates of joints to tokens, before CLIP's ln_pre."""

    def __init__(self, width: int, *, num_frames: int, num_joints: int, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.place = nn.Linear(2, width)
        self.joint_embedding = nn.Parameter(torch.empty(num_joints, width))
        self.missing = nn.Parameter(torch.empty(width))
        self.frame = ClassAndTime(width, num_frames)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Everything at the scale of CLIP's own embeddings, so that place and identity weigh the same at first."""
        for parameter in (self.place.weight, self.joint_embedding, self.missing):
            nn.init.normal_(parameter, std=self.place.out_features**-0.5)
        nn.init.zeros_(self.place.bias)

    def forward(self, joints: Tensor, class_embedding: Tensor) -> Tensor:
        """Tokens of each frame.

        Args:
            joints: (n, T, J, 3): x and y in pixels of the view, score; a score of 0 means that the joint is missing.
            class_embedding: (d,), CLIP's.

        Returns:
            (n, T, 1 + J, d).
        """
        with torch.autocast(joints.device.type, enabled=False):  # bf16 would round places to half a pixel
            place = self.place(2.0 * joints[..., :2].float() / self.image_size - 1.0)
        seen = joints[..., 2:] > 0
        tokens = torch.where(seen, place, self.missing.to(place.dtype)) + self.joint_embedding
        return self.frame(tokens, class_embedding)


class HeatmapTokens(nn.Module):
    """Joints drawn as heatmaps, one channel each, in patches as large as CLIP's; before CLIP's ln_pre."""

    def __init__(self, width: int, *, num_frames: int, num_joints: int, image_size: int, patch_size: int) -> None:
        super().__init__()
        self.size, rest = divmod(image_size, HEATMAP_SHARE)
        if rest or self.size % patch_size:
            raise ConfigError(
                f'train.pevl.pose_input = "heatmaps" draws {image_size / HEATMAP_SHARE:g} pixels, half of the view; '
                f'the patch size {patch_size} of this CLIP does not divide them: use "coordinates" or another CLIP'
            )
        self.image_size = image_size
        self.num_tokens = (self.size // patch_size) ** 2
        self.patches = nn.Conv2d(num_joints, width, kernel_size=patch_size, stride=patch_size)
        self.positions = nn.Parameter(torch.empty(self.num_tokens, width))
        nn.init.normal_(self.positions, std=width**-0.5)
        self.frame = ClassAndTime(width, num_frames)

    def forward(self, joints: Tensor, class_embedding: Tensor) -> Tensor:
        """joints: (n, T, J, 3) as in `JointTokens`, class_embedding: (d,) -> (n, T, 1 + patches, d)."""
        maps = draw_heatmaps(joints.flatten(0, 1), image_size=self.image_size, size=self.size)
        tokens = self.patches(maps).flatten(2).transpose(1, 2).unflatten(0, joints.shape[:2])
        return self.frame(tokens + self.positions, class_embedding)


def draw_heatmaps(joints: Tensor, *, image_size: int, size: int) -> Tensor:
    """A Gaussian at each joint, as high as the joint's score; nothing where it is missing.

    Args:
        joints: (k, J, 3): x and y in pixels of a square view, score.
        image_size: side of the view.
        size: side of the heatmaps.

    Returns:
        (k, J, size, size), rows are y.
    """
    centres = torch.arange(size, device=joints.device, dtype=joints.dtype) + 0.5
    distance = joints[..., :2, None] * (size / image_size) - centres  # (k, J, 2, size)
    across, down = (-(distance**2) / (2 * HEATMAP_SIGMA**2)).exp().unbind(dim=2)
    return joints[..., 2, None, None] * down.unsqueeze(-1) * across.unsqueeze(-2)
