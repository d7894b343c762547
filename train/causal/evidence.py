"""Within-video evidence, ours and no paper's: what the image encoder says for each class, without the scene.

TCI gives each class the whole vector that it gathers. That vector holds evidence, which differs from frame to frame,
and the scene, which all frames share; and being rich, it is a way for few training videos to be told apart without any
look at order. Here a class gets one number, which is added to its logit with a gain that all classes share:

    e_c = sum_l S_{c,l} cos(V_P[l], T_c) - mean_l cos(V_P[l], T_c),    S_c = softmax_l cos(V_P[l], T_c) / tau
    logit_c = decoder_c + gain * e_c

Whatever adds the same to the cosines of all frames adds nothing to e_c. The decision to question: the gain is learned
as its logarithm, as CLIP's logit scale is, so it stays positive: evidence can be trusted less, never held against a
class.

Axis letters: n batch, L frames used, C classes, D joint width.
"""

import math

import torch
from torch import Tensor, nn

from train.causal.joint_space import frame_cosines


def within_evidence(text: Tensor, visual_prompts: Tensor, temperature: float) -> Tensor:
    """How much more the frames that a class chooses look like its text than the video's average frame does.

    Args:
        text: (C, D) or (n, C, D), T.
        visual_prompts: (n, L, D), V_P, of length 1.
        temperature: tau of S.

    Returns:
        e, (n, C), 0 or more, fp32 also under autocast.
    """
    cosines = frame_cosines(text, visual_prompts)  # (n, C, L)
    chosen = (cosines / temperature).softmax(dim=-1)
    return (chosen * cosines).sum(dim=-1) - cosines.mean(dim=-1)


class Evidence(nn.Module):
    """Each class's evidence as a part of its logit."""

    def __init__(self, *, temperature: float, gain: float) -> None:
        """Build the path.

        Args:
            temperature: tau of S.
            gain: where the learned gain starts; positive.
        """
        super().__init__()
        self.temperature = temperature
        self.log_gain = nn.Parameter(torch.tensor(math.log(gain)))

    def forward(self, text: Tensor, visual_prompts: Tensor) -> Tensor:
        """text: (C, D), visual_prompts: (n, L, D) of length 1 -> (n, C), to be added to logits."""
        return self.log_gain.exp() * within_evidence(text, visual_prompts, self.temperature)
