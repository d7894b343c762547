"""PeVL's semantic-guided multi-modal contrast (SGMC): similarities of clips and texts, and the loss over them.

Videos and poses meet sentences, pose frames meet words. The paper attends "on the matrix twice" and cites the wrong
X-CLIP for it; the operation is that of Ma et al. (2022), taken here without its learnable matrices, which would fix
the number of frames and words. In the loss, Eq. 5 has slips: strengths belong to the other text, and clips of one
label count as positives with weight 1, else the divergence would be infinite.

Axis letters: n clips (batch), m texts, T frames, N_t text positions, D joint width.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils.checkpoint import checkpoint

SMALLEST_WEIGHT = 1e-6
"""Below this a negative's weight counts as this in the loss, and a row's mean strength as none at all."""


def pair_similarity(left: Tensor, text: Tensor) -> Tensor:
    """Cosine of every left feature with every text feature.

    Args:
        left: (n, D), of clips by video or pose.
        text: (m, D), of sentences.

    Returns:
        (n, m), fp32 also under autocast.
    """
    with torch.autocast(left.device.type, enabled=False):
        return F.normalize(left.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T


def _soft_maximum(scores: Tensor, temperature: float, dim: int, kept: Tensor | None = None) -> Tensor:
    """Mean over an axis, weighted by the softmax of the scores themselves; entries not kept have no part."""
    logits = scores / temperature
    if kept is not None:
        logits = logits.masked_fill(~kept, -torch.inf)
    return (logits.softmax(dim=dim) * scores).sum(dim=dim)


def _frame_word_chunk(frames: Tensor, words: Tensor, word_mask: Tensor, temperature: float) -> Tensor:
    """frames: (n, T, D), words: (m, N_t, D), word_mask: (m, N_t) -> (n, m)."""
    matrix = torch.einsum("ntd,mwd->nmtw", frames, words)
    frame_scores = _soft_maximum(matrix, temperature, -1, word_mask[:, None])  # (n, m, T)
    word_scores = _soft_maximum(matrix, temperature, -2)  # (n, m, N_t)
    by_frames = _soft_maximum(frame_scores, temperature, -1)
    return (by_frames + _soft_maximum(word_scores, temperature, -1, word_mask)) / 2


def _recomputed(frames: Tensor, words: Tensor, word_mask: Tensor, temperature: float) -> Tensor:
    """A chunk that keeps nothing for the backward pass but its inputs; nothing in it is random."""
    return checkpoint(
        _frame_word_chunk, frames, words, word_mask, temperature, use_reentrant=False, preserve_rng_state=False
    )


def frame_word_matrix(frames: Tensor, words: Tensor) -> Tensor:
    """A itself, the cosine of every frame with every text position, for whoever looks at it.

    Args:
        frames: (n, T, D).
        words: (m, N_t, D).

    Returns:
        (n, m, T, N_t), fp32 also under autocast.
    """
    with torch.autocast(frames.device.type, enabled=False):
        frames, words = F.normalize(frames.float(), dim=-1), F.normalize(words.float(), dim=-1)
        return torch.einsum("ntd,mwd->nmtw", frames, words)


def frame_word_similarity(
    frames: Tensor, words: Tensor, word_mask: Tensor, *, temperature: float, chunk: int
) -> Tensor:
    """Frame-word similarity S_FW: the cosine matrix A, attended over by frames, by words, and by each again.

    The result does not depend on the chunk size and lies between the smallest and the largest entry of A.

    Args:
        frames: (n, T, D).
        words: (m, N_t, D).
        word_mask: (m, N_t) bool, True at words; other positions have no part.
        temperature: tau_a; towards 0 the largest entry alone counts.
        chunk: texts whose n * T * N_t scores exist in memory together.

    Returns:
        (n, m), fp32 also under autocast.

    Raises:
        ValueError: a text has no word.
    """
    if not word_mask.any(dim=-1).all():
        missing = (~word_mask.any(dim=-1)).nonzero().flatten().tolist()
        raise ValueError(f"texts {missing} have no word: a text needs at least one to be compared with frames")
    with torch.autocast(frames.device.type, enabled=False):
        frames, words = F.normalize(frames.float(), dim=-1), F.normalize(words.float(), dim=-1)
        one_chunk = _recomputed if torch.is_grad_enabled() else _frame_word_chunk
        chunks = zip(words.split(chunk), word_mask.split(chunk), strict=True)
        return torch.cat([one_chunk(frames, part, mask, temperature) for part, mask in chunks], dim=1)


def negative_weights(similarity: Tensor, labels: Tensor) -> Tensor:
    """How much each clip of the batch counts against each other one: w of Eq. 5.

    Positives (the same label) count 1. Negatives share as many units as there are by 1 - similarity of the texts;
    where all of a row's negatives have the row's own text, evenly. The weights are constants: a gradient through
    them would move the texts of hard negatives together, for that makes them count less.

    Args:
        similarity: (n, n), cosines of the texts of the clips' labels.
        labels: (n,).

    Returns:
        (n, n), fp32, rows of 1 where nothing is negative.
    """
    negatives = labels.unsqueeze(1) != labels
    strengths = (1 - similarity.detach().float()).clamp_min(0) * negatives
    count = negatives.sum(dim=-1, keepdim=True)
    mean = strengths.sum(dim=-1, keepdim=True) / count.clamp_min(1)
    # Rounding leaves some 1e-7 between equal texts; shares of that would be noise.
    graded = negatives & (mean > SMALLEST_WEIGHT)
    return torch.where(graded, strengths / mean.clamp_min(SMALLEST_WEIGHT), 1.0)


def _divergence(logits: Tensor, positives: Tensor) -> Tensor:
    """Mean over rows of KL(q || softmax(logits)), q even over the positives; both (n, n)."""
    count = positives.sum(dim=-1)
    cross_entropy = -(logits.log_softmax(dim=-1) * positives).sum(dim=-1) / count
    return (cross_entropy - count.log()).mean()


def semantic_guided_loss(similarity: Tensor, labels: Tensor, weights: Tensor, temperature: Tensor) -> Tensor:
    """Semantic-guided contrastive loss L_t (Eq. 4-6): KL from even targets, mean of both directions.

    Args:
        similarity: (n, n), of clip i and the text of clip j.
        labels: (n,).
        weights: (n, n), from `negative_weights`; ones make it the vanilla loss.
        temperature: tau, a scalar.

    Returns:
        A scalar, fp32 also under autocast.
    """
    with torch.autocast(similarity.device.type, enabled=False):
        positives = (labels.unsqueeze(1) == labels).float()
        logits = similarity.float() / temperature
        strengths = weights.float().clamp_min(SMALLEST_WEIGHT).log()
        # Not transposed for the texts' rows: row i is anchored in text i both times, once as the label of clip i and
        # once as itself, and w_ij compares it with the label of j, whether j stands for a text or for a clip.
        by_clips = _divergence(logits + strengths, positives)
        by_texts = _divergence(logits.T + strengths, positives)
        return (by_clips + by_texts) / 2
