"""Back-door adjustment on the text side: CMDCL's textual causal intervention (TCI, Eq. 2-3).

A vision-language model's text embeddings carry biases from its training captions. TCI stratifies over what the
frozen image encoder sees in this video: each class gathers the frames that its text favours, and the text is
corrected by what was gathered. Scores are cosines: raw dot products of CLIP vectors saturate the softmax.

Axis letters: n batch, L frames used, C classes, D joint width.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.causal.approximator import Approximator, ApproximatorKind


def bias_scores(text: Tensor, visual_prompts: Tensor, temperature: float) -> Tensor:
    """How strongly each class's text favours each frame, S of Eq. 2; rows over frames sum to 1.

    Args:
        text: (C, D) or (n, C, D), T.
        visual_prompts: (n, L, D), V_P, the frozen image encoder's embeddings, of length 1.
        temperature: tau; 0.01 is CLIP's own logit scale of 100.

    Returns:
        (n, C, L), fp32 also under autocast.
    """
    with torch.autocast(visual_prompts.device.type, enabled=False):
        text = F.normalize(text.float(), dim=-1)
        return (text @ visual_prompts.float().transpose(1, 2) / temperature).softmax(dim=-1)


def gather_bias(scores: Tensor, visual_prompts: Tensor) -> Tensor:
    """Bias embeddings B of Eq. 3: per class, the frames weighted by its scores.

    Args:
        scores: (n, C, L).
        visual_prompts: (n, L, D).

    Returns:
        (n, C, D), fp32 also under autocast.
    """
    with torch.autocast(visual_prompts.device.type, enabled=False):
        return scores.float() @ visual_prompts.float()


class TextualIntervention(nn.Module):
    """TCI: text T and visual prompts V_P to debiased text T' (CMDCL, Eq. 2-3)."""

    def __init__(self, dim: int, *, temperature: float, approximator: ApproximatorKind) -> None:
        super().__init__()
        self.temperature = temperature
        self.approximator = Approximator(dim, approximator)

    def forward(self, text: Tensor, visual_prompts: Tensor) -> Tensor:
        """text: (C, D) or (n, C, D), visual_prompts: (n, L, D) of length 1 -> (n, C, D)."""
        bias = gather_bias(bias_scores(text, visual_prompts, self.temperature), visual_prompts)
        return self.approximator(text, bias, residual=text)
