"""Front-door adjustment on the visual side: CMDCL's visual causal intervention (VCI, Eq. 4-8) and PCMCI's IVC.

Both encode frames over time, gather them for each class under a mediator (the debiased text), and approximate the
adjustment; they differ in how a class gathers. VCI weights each coordinate of each frame: n * C * L * D numbers
(100 MB per video at COIN's 778 classes and 64 frames, and a backward pass holds three such tensors), so they are never
held at once: classes go in chunks, recomputed in the backward pass. The result does not depend on the chunk size.

Axis letters: n batch, L frames used, C classes, D joint width.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from train.causal.approximator import Approximator, ApproximatorKind
from train.layers import CrossAttention, FeedForward, SelfAttention


class TemporalLayer(nn.Module):
    """Self-attention over frames, then layer normalisation of the sum (Eq. 4); optionally a feed-forward layer."""

    def __init__(self, dim: int, heads: int, *, feed_forward: bool) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, heads)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, 4 * dim) if feed_forward else None
        self.feed_forward_norm = nn.LayerNorm(dim) if feed_forward else None

    def forward(self, visual: Tensor) -> Tensor:
        """visual: (n, L, D) -> (n, L, D)."""
        visual = self.norm(visual + self.attention(visual))
        if self.feed_forward is not None and self.feed_forward_norm is not None:
            visual = self.feed_forward_norm(visual + self.feed_forward(visual))
        return visual


class TemporalEncoder(nn.Module):
    """Frame features V with positions through the given layers: V^(H). With no layer, positions alone."""

    def __init__(self, dim: int, *, num_frames: int, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.time_embed = nn.Parameter(torch.zeros(num_frames, dim))
        self.layers = nn.ModuleList(layers)

    def forward(self, visual: Tensor) -> Tensor:
        """visual: (n, L, D) -> (n, L, D)."""
        visual = visual + self.time_embed
        for layer in self.layers:
            visual = layer(visual)
        return visual


def fine_scores(visual: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Weight of every coordinate of every frame for every class, S^F of Eq. 6; sums to 1 over frames.

    Both sides are layer-normalised without learned scale first, so that one temperature fits any feature scale.

    Args:
        visual: (n, L, D), V^(H).
        text: (n, C, D), the mediator T'.
        temperature: tau.

    Returns:
        (n, C, L, D), fp32.
    """
    width = visual.shape[-1:]
    frames = F.layer_norm(visual.float(), width).unsqueeze(1)  # (n, 1, L, D)
    mediator = (F.layer_norm(text.float(), width) / temperature).unsqueeze(2)  # (n, C, 1, D)
    return (frames * mediator).softmax(dim=2)


def _emphasise_chunk(visual: Tensor, text: Tensor, temperature: float) -> Tensor:
    return (fine_scores(visual, text, temperature) * visual.float().unsqueeze(1)).sum(dim=2)


def _recomputed(visual: Tensor, text: Tensor, temperature: float) -> Tensor:
    """A chunk that keeps nothing for the backward pass but its inputs; nothing in it is random."""
    return checkpoint(_emphasise_chunk, visual, text, temperature, use_reentrant=False, preserve_rng_state=False)


def emphasise(visual: Tensor, text: Tensor, *, temperature: float, class_chunk: int) -> Tensor:
    """Per class, the frames averaged coordinate by coordinate under its fine-grained scores: v̂ of Eq. 7.

    Memory: beside its inputs, forward and backward together hold at most three times the scores of one chunk, the
    vectors of all classes and the frames, 3 * 4 bytes * n * D * (class_chunk * L + C + L). For COIN's steps (C = 778,
    L = 64, D = 512) that is 30 MB a clip with chunks of 64, where all classes at once take 310 MB.

    Args:
        visual: (n, L, D), V^(H).
        text: (n, C, D), the mediator.
        temperature: tau.
        class_chunk: classes whose scores exist in memory together; changes rounding alone.

    Returns:
        (n, C, D), fp32 also under autocast.
    """
    with torch.autocast(visual.device.type, enabled=False):
        chunks = text.split(class_chunk, dim=1)
        one_chunk = _recomputed if torch.is_grad_enabled() else _emphasise_chunk
        return torch.cat([one_chunk(visual, chunk, temperature) for chunk in chunks], dim=1)


class ElementwiseTransformation(nn.Module):
    """VCI's own way from frames to classes: every coordinate of every frame has a weight (CMDCL, Eq. 6-7)."""

    def __init__(self, *, temperature: float, class_chunk: int) -> None:
        super().__init__()
        self.temperature = temperature
        self.class_chunk = class_chunk

    def forward(self, visual: Tensor, mediator: Tensor) -> Tensor:
        """visual: (n, L, D), mediator: (n, C, D) -> (n, C, D)."""
        return emphasise(visual, mediator, temperature=self.temperature, class_chunk=self.class_chunk)

    def frame_weights(self, visual: Tensor, mediator: Tensor) -> Tensor:
        """S^F averaged over coordinates, to be looked at: (n, C, L), rows sum to 1."""
        chunks = mediator.split(self.class_chunk, dim=1)
        return torch.cat([fine_scores(visual, chunk, self.temperature).mean(dim=-1) for chunk in chunks], dim=1)


class RelationTransformation(nn.Module):
    """IVC's way from frames to classes: T(V, M) attends to frames in each of K bases, then joins them by W (PCMCI).

    The mediator is layer-normalised for its queries: class embeddings have length 1, and products of their coordinates
    with a default projection are so small that every class would start with the plain mean of the frames.
    """

    def __init__(self, dim: int, bases: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, bases)

    def forward(self, visual: Tensor, mediator: Tensor) -> Tensor:
        """visual: (n, L, D), mediator: (n, C, D) -> (n, C, D)."""
        return self.attention(self.norm(mediator), visual)

    def frame_weights(self, visual: Tensor, mediator: Tensor) -> Tensor:
        """Attention averaged over the K bases, to be looked at: (n, C, L), rows sum to 1."""
        return self.attention.weights(self.norm(mediator), visual).mean(dim=1)


Transformation = ElementwiseTransformation | RelationTransformation


class VisualIntervention(nn.Module):
    """VCI (CMDCL, Eq. 6-8) or IVC (PCMCI): frames and a mediator to one deconfounded visual vector per class.

    Two steps: `transform` gathers frames under the mediator, `deconfound` is the approximator g([mediator, gathered]).
    """

    def __init__(self, dim: int, *, transformation: Transformation, approximator: ApproximatorKind) -> None:
        super().__init__()
        self.transformation: Transformation = transformation
        self.approximator = Approximator(dim, approximator)

    def forward(self, visual: Tensor, mediator: Tensor) -> Tensor:
        """visual: (n, L, D), mediator: (n, C, D) -> (n, C, D)."""
        return self.deconfound(mediator, self.transform(visual, mediator))

    def transform(self, visual: Tensor, mediator: Tensor) -> Tensor:
        """CMDCL's v̂, PCMCI's V'. visual: (n, L, D), mediator: (n, C, D) -> (n, C, D)."""
        return self.transformation(visual, mediator)

    def deconfound(self, mediator: Tensor, gathered: Tensor) -> Tensor:
        """CMDCL's V', PCMCI's V*. mediator and gathered: (n, C, D) -> (n, C, D)."""
        return self.approximator(mediator, gathered, residual=gathered)

    def frame_weights(self, visual: Tensor, mediator: Tensor) -> Tensor:
        """How much each class gathers from each frame, over all coordinates or bases: (n, C, L), rows sum to 1."""
        return self.transformation.frame_weights(visual, mediator)
