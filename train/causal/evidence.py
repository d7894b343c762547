"""Evidence, ours and no paper's: what the frozen image-text model says for each class, as far as it can be trusted.

TCI gives each class the whole vector that it gathers from the frames. Here a class gets one number, the match m of the
frames that it chooses, which is added to its logit with a gain that all classes share; e is what is within-video in it:

    m_c = sum_l S_{c,l} cos(V_P[l], T_c),    S_c = softmax_l cos(V_P[l], T_c) / tau
    e_c = m_c - mean_l cos(V_P[l], T_c)
    logit_c = decoder_c + boost * gain * m_c + b_c

T is CLIP's, before any training. How far a match is to be trusted cannot be learned from labels that follow the scene:
a text that reads scenes explains them well. So the gain is fitted to the labels by e, which a scene cannot help, as it
adds the same to the cosines of all frames: texts that read what happens get a large gain, texts that read where it
happens none, and then the whole match counts or nothing of it. Nor is the gain learned from the logit, where a decoder
that reads a class off its company makes all evidence look redundant:

    loss = L(logit, y) + L(gain * e + a, y) + L([boost * gain] * m + b, y)               no gradient through brackets

The decision to question: the boost. The gain that explains labels by e alone is right where nothing else is known; a
decoder that is sure of itself for the wrong reasons is outvoted by a multiple of it alone. It was chosen on the design
worlds of the controlled world, test labels and all (README, "Which causal claims hold").

Axis letters: n batch, L frames used, C classes, D joint width.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from train.causal.backdoor import bias_scores
from train.causal.joint_space import frame_cosines

_FIRST_GAIN = 10.0


def match_and_evidence(text: Tensor, visual_prompts: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """How well the frames that a class chooses match its text, and how much better than the average frame does.

    Args:
        text: (C, D) or (n, C, D), T.
        visual_prompts: (n, L, D), V_P, of length 1.
        temperature: tau of S.

    Returns:
        m in [-1, 1] and e, 0 or more; each (n, C), fp32 also under autocast.
    """
    cosines = frame_cosines(text, visual_prompts)  # (n, C, L)
    match = ((cosines / temperature).softmax(dim=-1) * cosines).sum(dim=-1)
    return match, match - cosines.mean(dim=-1)


class Evidence(nn.Module):
    """Each class's match, its part in the logits, and the logits by which gain and biases are fitted."""

    text: Tensor
    """T as it was before training, (C, D)."""

    def __init__(self, text_embeddings: Tensor, *, temperature: float, boost: float) -> None:
        """Build the path.

        Args:
            text_embeddings: (C, D), T, in any scale.
            temperature: tau of S.
            boost: how many times its fitted gain a match counts in the logits.
        """
        super().__init__()
        self.temperature, self.boost = temperature, boost
        self.register_buffer("text", F.normalize(text_embeddings.detach().float(), dim=-1))
        self.log_gain = nn.Parameter(torch.tensor(math.log(_FIRST_GAIN)))
        self.evidence_bias = nn.Parameter(torch.zeros(len(text_embeddings)))  # a
        self.match_bias = nn.Parameter(torch.zeros(len(text_embeddings)))  # b

    def forward(self, visual_prompts: Tensor) -> Tensor:
        """What is added to the logits; trains nothing. visual_prompts: (n, L, D), of length 1 -> (n, C)."""
        match, _ = match_and_evidence(self.text, visual_prompts, self.temperature)
        return self._by_match(match).detach()

    def fits(self, visual_prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Logits whose losses fit the gain and a, and b. visual_prompts: (n, L, D), of length 1 -> (n, C) each."""
        match, evidence = match_and_evidence(self.text, visual_prompts, self.temperature)
        return self.log_gain.exp() * evidence + self.evidence_bias, self._by_match(match)

    def frame_weights(self, visual_prompts: Tensor) -> Tensor:
        """S. visual_prompts: (n, L, D), of length 1 -> (n, C, L)."""
        return bias_scores(self.text, visual_prompts, self.temperature)

    def _by_match(self, match: Tensor) -> Tensor:
        return self.boost * self.log_gain.detach().exp() * match + self.match_bias
