"""Within-video evidence, ours and no paper's: what the image encoder says for each class, without the scene.

TCI gives each class the whole vector that it gathers. That vector holds evidence, which differs from frame to frame,
and the scene, which all frames share; and being rich, it is a way for few training videos to be told apart without any
look at order. Here a class gets one number along one learned direction u, the same for all classes:

    e_c = sum_l S_{c,l} cos(V_P[l], T_c) - mean_l cos(V_P[l], T_c),    S_c = softmax_l cos(V_P[l], T_c) / tau
    q_c = t_c + gain * e_c * u

Whatever adds the same to the cosines of all frames adds nothing to e_c. In training, videos lose their evidence at
random, all classes at once: the model must then explain them by their frames and the order of these. The decision to
question: testing keeps the evidence at full strength, without the rescaling of dropout, because "no evidence" is one
of the values that the model has been taught and not noise.

Axis letters: n batch, L frames used, C classes, D joint width.
"""

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


class EvidenceQueries(nn.Module):
    """Moves each class's query along one direction by its evidence."""

    def __init__(self, dim: int, *, temperature: float, gain: float, drop: float) -> None:
        """Build the path.

        Args:
            dim: D.
            temperature: tau of S.
            gain: what the evidence is multiplied by.
            drop: probability that a training video loses its evidence.
        """
        super().__init__()
        self.temperature, self.gain, self.drop = temperature, gain, drop
        self.direction = nn.Parameter(0.1 * torch.randn(dim))  # u

    def forward(self, queries: Tensor, text: Tensor, visual_prompts: Tensor) -> Tensor:
        """queries: (n, C, D), text: (C, D), visual_prompts: (n, L, D) of length 1 -> (n, C, D)."""
        evidence = self.gain * within_evidence(text, visual_prompts, self.temperature)
        if self.training and self.drop:
            evidence = evidence * (torch.rand(len(evidence), 1, device=evidence.device) >= self.drop)
        return queries + evidence.unsqueeze(-1) * self.direction
