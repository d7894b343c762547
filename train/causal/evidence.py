"""Within-video evidence, ours and no paper's: what the frozen image-text model says for each class, without the scene.

TCI gives each class the whole vector that it gathers. That vector holds evidence, which differs from frame to frame,
and the scene, which all frames share; and being rich, it is a way for few training videos to be told apart without any
look at order. Here a class gets one number, which is added to its logit with a gain that all classes share:

    e_c = sum_l S_{c,l} cos(V_P[l], T_c) - mean_l cos(V_P[l], T_c),    S_c = softmax_l cos(V_P[l], T_c) / tau
    logit_c = decoder_c + boost * gain * e_c

T is CLIP's, before any training. Whatever adds the same to the cosines of all frames adds nothing to e_c. The gain is
not learned from the logit, where a decoder that reads a class off its company makes evidence look redundant, and where
evidence that says nothing is still something to remember training videos by. It is fitted to the labels alone, with a
bias for each class, so it falls to nothing for classes whose text matches scenes and not actions:

    loss = L(logit, y) + L(gain * e + bias, y)

The decision to question: the boost. The gain that explains labels by evidence is right where nothing else is known; a
decoder that is sure of itself for the wrong reasons is outvoted by a multiple of it alone. It was chosen in the
controlled world, with the price in mind that i.i.d. videos pay (of mAP, at 2, 3 and 5: 0, 0 and 2 points).

Axis letters: n batch, L frames used, C classes, D joint width.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.causal.joint_space import frame_cosines

_FIRST_GAIN = 10.0


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
    """Each class's evidence, its part in the logits, and the logits that its gain is fitted by."""

    text: Tensor
    """T as it was before training, (C, D)."""

    def __init__(self, text_embeddings: Tensor, *, temperature: float, boost: float) -> None:
        """Build the path.

        Args:
            text_embeddings: (C, D), T, in any scale.
            temperature: tau of S.
            boost: how many times its fitted gain evidence counts in the logits.
        """
        super().__init__()
        self.temperature, self.boost = temperature, boost
        self.register_buffer("text", F.normalize(text_embeddings.detach().float(), dim=-1))
        self.log_gain = nn.Parameter(torch.tensor(math.log(_FIRST_GAIN)))
        self.bias = nn.Parameter(torch.zeros(len(text_embeddings)))

    def forward(self, visual_prompts: Tensor) -> Tensor:
        """What is added to the logits; trains nothing. visual_prompts: (n, L, D), of length 1 -> (n, C)."""
        return self.boost * self.log_gain.detach().exp() * self._evidence(visual_prompts)

    def alone(self, visual_prompts: Tensor) -> Tensor:
        """Logits of evidence alone, for its own loss. visual_prompts: (n, L, D), of length 1 -> (n, C)."""
        return self.log_gain.exp() * self._evidence(visual_prompts) + self.bias

    def _evidence(self, visual_prompts: Tensor) -> Tensor:
        return within_evidence(self.text, visual_prompts, self.temperature)
