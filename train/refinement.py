"""PeVL's unified cross-modal refinement (UCMR): pose tells video where to look, video tells joints what is there.

Pose-to-video attention (P2V, Eq. 1) reads only the patches under joints; video-to-pose attention (V2P, Eq. 2) lets
each joint read the patches of its frame. Both read the unrefined tokens (Fig. 2) and share the patches' keys and
values, as both equations print K_v and V_v. No projection has a bias: video tokens of frames without joints stay.
The paper's background token is left out: it would be one more query, each query attends on its own, and the answer
to this one is dropped, so that it could neither change a result nor learn.

Axis letters: n batch, L video frames, T pose frames, P patches, J joints, d width, h heads, s keys; f is n * L.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.layers import attention_map, check_heads, merge_heads, split_heads

MaskReading = Literal["key", "inside", "outer", "off"]
Grouping = Literal["none", "nearest"]


def pose_frame_of(num_video_frames: int, num_pose_frames: int) -> Tensor:
    """The pose frame nearest in time to each video frame; both lie at the centres of equal segments of the clip.

    Between two equally near ones the later is taken.

    Args:
        num_video_frames: L.
        num_pose_frames: T, at least L.

    Returns:
        (L,) int64, strictly increasing: 3i + 1 for 16 of 48, the identity where L = T.

    Raises:
        ValueError: L is below 1 or above T.
    """
    if not 1 <= num_video_frames <= num_pose_frames:
        raise ValueError(f"{num_video_frames} video frames of {num_pose_frames} pose frames: need 1 <= video <= pose")
    # The centre of video segment i falls into this one of the pose segments; integers, so that nothing is rounded.
    return (2 * torch.arange(num_video_frames) + 1) * num_pose_frames // (2 * num_video_frames)


def _sum_to_one(weights: Tensor) -> Tensor:
    """Divide by the sum over the last axis; rows of zeros stay zeros."""
    total = weights.sum(dim=-1, keepdim=True)
    return weights / torch.where(total > 0, total, 1.0)


def pose_mask(weights: Tensor, joints: Tensor, *, image_size: int, patch_size: int, dilate: int) -> Tensor:
    """Joint weights summed over the patches that the joints fall into, M of Eq. 1; gradient reaches the weights.

    A joint lies in the pixel that contains it; missing joints and those outside the image are skipped.

    Args:
        weights: (n, L, J), 0 or more; their sum does not matter.
        joints: (n, L, J, 3): x, y in pixels, score; a score of 0 says missing.
        image_size: side of the square image in pixels.
        patch_size: side of a patch in pixels.
        dilate: patches by which each weight spreads, evenly over a square of (2 dilate + 1)^2 cut at the border.

    Returns:
        (n, L, P), fp32, patches row by row; sums to 1 per frame, 0 throughout where no joint is in the image.

    Raises:
        ValueError: patches do not tile the image.
    """
    if image_size % patch_size:
        raise ValueError(f"patches of {patch_size} pixels do not tile an image of {image_size}")
    positions = joints[..., :2]
    inside = ((positions >= 0) & (positions < image_size)).all(dim=-1) & (joints[..., 2] > 0)
    cells = positions.where(inside.unsqueeze(-1), 0.0).floor().long() // patch_size  # (n, L, J, 2)
    lines = torch.arange(image_size // patch_size, device=joints.device)
    # The square is a product of a row and a column share: no scattered additions, whose order a GPU does not fix.
    shares = _sum_to_one(((cells.unsqueeze(-1) - lines).abs() <= dilate).float())
    columns, rows = shares.unbind(dim=-2)  # (n, L, J, grid) each
    with torch.autocast(joints.device.type, enabled=False):
        weighted = rows * (weights.float() * inside).unsqueeze(-1)
        return _sum_to_one((weighted.transpose(-1, -2) @ columns).flatten(-2))


def masked_attention_map(queries: Tensor, keys: Tensor, weights: Tensor, empty: Tensor) -> Tensor:
    """Attention whose keys count as often as `weights` says: w_j exp(q.k_j) / (sum_j w_j exp(q.k_j) + 1[empty]).

    Args:
        queries: (f, h, q, d / h).
        keys: (f, h, s, d / h).
        weights: 0 or more, broadcast to (f, h, q, s).
        empty: bool, broadcast to (f, h, q, 1): rows that have the indicator; all rows whose weights are 0 must.

    Returns:
        (f, h, q, s), fp32 also under autocast; rows of empty weights are 0.
    """
    with torch.autocast(queries.device.type, enabled=False):
        weights = weights.float()
        # Clamped, since the gradient of the logarithm overflows at the smallest floats.
        logarithm = weights.clamp_min(torch.finfo(torch.float32).tiny).log().masked_fill(weights == 0, -torch.inf)
        indicator = torch.zeros_like(empty, dtype=torch.float32).masked_fill(~empty, -torch.inf)
        # The indicator is one more key, a zero vector: no row is -inf throughout, so softmax is safe both ways.
        padded = F.pad(keys.float(), (0, 0, 0, 1))
        logits = queries.float() * queries.shape[-1] ** -0.5 @ padded.transpose(-1, -2)
        return (logits + torch.cat([logarithm, indicator], dim=-1)).softmax(dim=-1)[..., :-1]


def nearest_patches(joints: Tensor, *, num_patches: int, patch_size: int, radius: float) -> Tensor:
    """Which patches belong to which joint: those to whose centres it is the nearest visible joint within a radius.

    Args:
        joints: (f, J, 3): x, y in pixels, score; a score of 0 says missing.
        num_patches: P, a square number.
        patch_size: side of a patch in pixels.
        radius: largest distance, in patches; of two equally near joints the first one has the patch.

    Returns:
        (f, J, P) bool; a patch has at most one joint.

    Raises:
        ValueError: P is no square number.
    """
    grid = round(num_patches**0.5)
    if grid * grid != num_patches:
        raise ValueError(f"{num_patches} patches do not form a square grid")
    lines = torch.arange(grid, device=joints.device) + 0.5
    centres = torch.cartesian_prod(lines, lines).flip(-1)  # x, y of patches, row by row
    offsets = joints[..., None, :2].float() / patch_size - centres  # (f, J, P, 2)
    distances = offsets.norm(dim=-1).masked_fill((joints[..., 2] <= 0).unsqueeze(-1), torch.inf)
    nearest = F.one_hot(distances.argmin(dim=-2), joints.shape[-2]).transpose(-1, -2).bool()
    return nearest & (distances <= radius)


def _read(attention: Tensor, values: Tensor) -> Tensor:
    """attention: (f, h, q, s), values: (f, h, s, d / h) -> (f, q, d), in the type of the values."""
    return merge_heads(attention.to(values.dtype) @ values)


def _output_projection(width: int) -> nn.Linear:
    """W_O, zero: refined tokens start as the encoders', and the losses' gradient moves W_O first, then the rest."""
    projection = nn.Linear(width, width, bias=False)
    nn.init.zeros_(projection.weight)
    return projection


class PoseToVideo(nn.Module):
    """P2V (Eq. 1): all tokens of a video frame read the patches that the pose mask weights.

    `key` puts the mask outside the exponential, where the equation's indicator has a purpose; `inside` is the
    equation as printed, in which patches off the joints keep exp(0); with `outer` only tokens on joints read.
    """

    def __init__(self, width: int, heads: int, *, reading: MaskReading) -> None:
        super().__init__()
        self.heads = heads
        self.reading = reading
        self.query = nn.Linear(width, width, bias=False)
        self.proj = _output_projection(width)

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """tokens: (f, 1 + P, d), keys and values: (f, h, P, d / h), mask: (f, P) -> updates (f, 1 + P, d)."""
        queries = split_heads(self.query(tokens), self.heads)
        weights, empty = mask[:, None, None], (mask == 0).all(dim=-1)[:, None, None, None]
        if self.reading == "inside":
            keys, weights = keys.float() * mask.float()[:, None, :, None], torch.ones_like(weights)
        update = self.proj(_read(masked_attention_map(queries, keys, weights, empty), values))
        if self.reading == "outer":
            # M_i cancels where it is positive; the class token lies on no joint.
            update = update * F.pad(mask > 0, (1, 0)).unsqueeze(-1)
        return update


class VideoToPose(nn.Module):
    """V2P (Eq. 2): every joint reads the patches of its frame, or only those nearest to it."""

    def __init__(self, width: int, heads: int, *, group: Grouping, radius: float, patch_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.group = group
        self.radius = radius
        self.patch_size = patch_size
        self.query = nn.Linear(width, width, bias=False)
        self.proj = _output_projection(width)

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, joints: Tensor) -> Tensor:
        """tokens: (f, J, d), keys and values: (f, h, P, d / h), joints: (f, J, 3) -> updates (f, J, d)."""
        queries = split_heads(self.query(tokens), self.heads)
        if self.group == "none":
            return self.proj(_read(attention_map(queries, keys), values))
        members = nearest_patches(
            joints, num_patches=keys.shape[-2], patch_size=self.patch_size, radius=self.radius
        ).unsqueeze(1)  # (f, 1, J, P)
        empty = ~members.any(dim=-1, keepdim=True)
        return self.proj(_read(masked_attention_map(queries, keys, members, empty), values))


class CrossModalRefinement(nn.Module):
    """UCMR: video tokens and the pose tokens of the same instants, each refined by the other (PeVL, Eq. 1-2).

    Six projections of d * d; a sub-block that is off has none, and hands its tokens through.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        p2v: MaskReading,
        v2p: bool,
        v2p_group: Grouping,
        v2p_radius: float,
        patch_size: int,
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        if p2v not in get_args(MaskReading) or v2p_group not in get_args(Grouping):
            raise ValueError(
                f"p2v {p2v!r}, v2p_group {v2p_group!r}: give one of {get_args(MaskReading)} and {get_args(Grouping)}"
            )
        self.heads = heads
        refines = p2v != "off" or v2p
        self.patch_key = nn.Linear(width, width, bias=False) if refines else None
        self.patch_value = nn.Linear(width, width, bias=False) if refines else None
        self.pose_to_video = PoseToVideo(width, heads, reading=p2v) if p2v != "off" else None
        self.video_to_pose = (
            VideoToPose(width, heads, group=v2p_group, radius=v2p_radius, patch_size=patch_size) if v2p else None
        )

    def forward(self, video: Tensor, pose: Tensor, mask: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Refine both; the class token of a pose frame moves by the mean of its joints' updates.

        Args:
            video: (n, L, 1 + P, d), class token first.
            pose: (n, L, 1 + J, d), class token first; the pose frames of `pose_frame_of`.
            mask: (n, L, P), from `pose_mask`.
            joints: (n, L, J, 3): x, y in pixels of the image, score.

        Returns:
            video: (n, L, 1 + P, d).
            pose: (n, L, 1 + J, d).
        """
        if self.patch_key is None or self.patch_value is None:
            return video, pose
        patches = video[:, :, 1:].flatten(0, 1)  # (f, P, d)
        keys = split_heads(self.patch_key(patches), self.heads)
        values = split_heads(self.patch_value(patches), self.heads)
        refined_video, refined_pose = video, pose
        if self.pose_to_video is not None:
            update = self.pose_to_video(video.flatten(0, 1), keys, values, mask.flatten(0, 1))
            refined_video = video + update.unflatten(0, video.shape[:2])
        if self.video_to_pose is not None:
            update = self.video_to_pose(pose[:, :, 1:].flatten(0, 1), keys, values, joints.flatten(0, 1))
            update = torch.cat([update.mean(dim=1, keepdim=True), update], dim=1)
            refined_pose = pose + update.unflatten(0, pose.shape[:2])
        return refined_video, refined_pose


def nt_xent(features: Tensor, refined: Tensor, temperature: Tensor) -> Tensor:
    """Refinement loss (Eq. 3): each clip's features must be nearest to its own refined ones, by cosine.

    One direction, as printed; the mean over the batch, not the printed sum, so that its weight fits any batch.

    Args:
        features: (n, D), z.
        refined: (n, D), z^R.
        temperature: tau, a scalar.

    Returns:
        A scalar, fp32 also under autocast.
    """
    with torch.autocast(features.device.type, enabled=False):
        cosines = F.normalize(features.float(), dim=-1) @ F.normalize(refined.float(), dim=-1).T
        return -(cosines / temperature).log_softmax(dim=-1).diagonal().mean()
