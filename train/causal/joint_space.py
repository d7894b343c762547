"""What comes from the frozen image-text model: class embeddings T and visual prompts V_P, vectors of one joint space.

Both are brought to length 1 here and nowhere else, because only directions are comparable in that space; caches keep
the raw vectors. T may drift from length 1 in training, so whoever compares takes cosines.

Axis letters: n batch, L frames used, C classes, D joint width.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from cache.errors import ConfigError


def class_embeddings(text_embeddings: Tensor, *, dim: int, trained: bool) -> nn.Parameter:
    """T as a parameter that starts as the cached text embeddings.

    Args:
        text_embeddings: (C, D), in any scale.
        dim: the width that the model was configured for.
        trained: whether T takes gradients.

    Returns:
        (C, D), rows of length 1.

    Raises:
        ConfigError: D is not `dim`.
    """
    width = text_embeddings.shape[1]
    if width != dim:
        raise ConfigError(
            f"the text embeddings have width {width} and the model's dim is {dim}: "
            f"set dim = {width}, or use the cache of another image encoder"
        )
    return nn.Parameter(F.normalize(text_embeddings.detach().float(), dim=-1), requires_grad=trained)


def unit_prompts(visual_prompts: Tensor, *, num_frames: int, dim: int) -> Tensor:
    """V_P with every frame's embedding at length 1.

    Args:
        visual_prompts: (n, L, D), in any scale.
        num_frames: L.
        dim: D.

    Returns:
        (n, L, D), fp32.

    Raises:
        ValueError: another shape.
    """
    if visual_prompts.ndim != 3 or visual_prompts.shape[1:] != (num_frames, dim):
        raise ValueError(f"visual_prompts have shape {tuple(visual_prompts.shape)}: expected (n, {num_frames}, {dim})")
    return F.normalize(visual_prompts.float(), dim=-1)


def frame_cosines(text: Tensor, visual_prompts: Tensor) -> Tensor:
    """Cosine of every class's text with every frame.

    Args:
        text: (C, D) or (n, C, D), in any scale.
        visual_prompts: (n, L, D), of length 1.

    Returns:
        (n, C, L), fp32 also under autocast.
    """
    with torch.autocast(visual_prompts.device.type, enabled=False):
        return F.normalize(text.float(), dim=-1) @ visual_prompts.float().transpose(1, 2)
