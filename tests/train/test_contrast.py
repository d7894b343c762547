"""PeVL's SGMC: similarities against hand loops, losses against torch's cross-entropy and divergence."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from train.contrast import (
    frame_word_matrix,
    frame_word_similarity,
    negative_weights,
    pair_similarity,
    semantic_guided_loss,
)

CLIPS, TEXTS, FRAMES, WORDS, DIM = 3, 5, 4, 6, 8
TAU = torch.tensor(0.1)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def frames() -> Tensor:
    return random(CLIPS, FRAMES, DIM, seed=0)


@pytest.fixture
def words() -> Tensor:
    return random(TEXTS, WORDS, DIM, seed=1)


@pytest.fixture
def word_mask() -> Tensor:
    return torch.arange(WORDS) < torch.tensor([[6], [1], [4], [2], [5]])


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([2, 0, 2, 1, 3, 0])


@pytest.fixture
def text_similarity(labels: Tensor) -> Tensor:
    return pair_similarity(random(4, DIM, seed=2), random(4, DIM, seed=2))[labels][:, labels]


def frame_word(frames: Tensor, words: Tensor, mask: Tensor, tau: float = 0.1, chunk: int = 64) -> Tensor:
    return frame_word_similarity(frames, words, mask, temperature=tau, chunk=chunk)


def softly(scores: Tensor, tau: float) -> Tensor:
    raised = (scores.double() / tau).exp()
    return (raised * scores).sum() / raised.sum()


# --- similarities


def test_the_matrix_is_the_one_that_the_similarity_attends_over(
    frames: Tensor, words: Tensor, word_mask: Tensor
) -> None:
    """At an endless temperature all soft maxima are means over frames and words."""
    matrix = frame_word_matrix(3 * frames, words / 2)  # (n, m, T, N_t)
    torch.testing.assert_close(matrix[1, 2, 3, 0], F.cosine_similarity(frames[1, 3], words[2, 0], dim=0))
    means = [matrix[:, number][..., word_mask[number]].mean(dim=(1, 2)) for number in range(TEXTS)]
    found = frame_word(frames, words, word_mask, tau=1e6)
    torch.testing.assert_close(found, torch.stack(means, dim=1), atol=1e-5, rtol=1e-4)


def test_pair_similarity_is_the_cosine_of_every_pair() -> None:
    left, text = random(CLIPS, DIM, seed=0), 5 * random(TEXTS, DIM, seed=1)
    expected = F.cosine_similarity(left[:, None], text[None], dim=-1)
    torch.testing.assert_close(pair_similarity(left, text), expected)


def test_frame_word_similarity_equals_loops_over_words_alone(frames: Tensor, words: Tensor, word_mask: Tensor) -> None:
    result = frame_word(frames, words, word_mask)
    for clip in range(CLIPS):
        for text in range(TEXTS):
            kept = words[text, word_mask[text]]
            matrix = F.cosine_similarity(frames[clip][:, None], kept[None], dim=-1)
            by_frames = softly(torch.stack([softly(row, 0.1) for row in matrix]), 0.1)
            by_words = softly(torch.stack([softly(column, 0.1) for column in matrix.T]), 0.1)
            torch.testing.assert_close(result[clip, text], ((by_frames + by_words) / 2).float())


def test_padding_has_no_effect_whatever_it_holds(frames: Tensor, words: Tensor, word_mask: Tensor) -> None:
    other = torch.where(word_mask.unsqueeze(-1), words, 100 * random(TEXTS, WORDS, DIM, seed=3))
    expected = frame_word(frames, words, word_mask)
    torch.testing.assert_close(frame_word(frames, other, word_mask), expected)
    longer, longer_mask = F.pad(other, (0, 0, 2, 3), value=1.0), F.pad(word_mask, (2, 3))
    torch.testing.assert_close(frame_word(frames, longer, longer_mask), expected)


def test_padding_gets_no_gradient(frames: Tensor, words: Tensor, word_mask: Tensor) -> None:
    words.requires_grad_()
    frame_word(frames, words, word_mask).sum().backward()
    assert words.grad is not None
    assert (words.grad[~word_mask] == 0).all()
    assert words.grad[word_mask].abs().sum(dim=-1).min() > 0


def test_the_order_of_frames_and_of_words_does_not_matter(frames: Tensor, words: Tensor, word_mask: Tensor) -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = frame_word(frames.flip(1), words[:, order], word_mask[:, order])
    torch.testing.assert_close(shuffled, frame_word(frames, words, word_mask))


def test_one_similarity_throughout_is_the_result(words: Tensor, word_mask: Tensor) -> None:
    same_words = words[:, :1].expand(-1, WORDS, -1)
    same_frames = random(CLIPS, 1, DIM, seed=0).expand(-1, FRAMES, -1)
    expected = pair_similarity(same_frames[:, 0], same_words[:, 0])
    torch.testing.assert_close(frame_word(same_frames, same_words, word_mask), expected)


@pytest.mark.parametrize("tau", [0.01, 0.1, 10.0])
def test_the_result_lies_between_the_extremes_of_the_matrix(
    tau: float, frames: Tensor, words: Tensor, word_mask: Tensor
) -> None:
    matrix = torch.einsum("ntd,mwd->nmtw", F.normalize(frames, dim=-1), F.normalize(words, dim=-1))
    dropped = ~word_mask[:, None]
    result = frame_word(frames, words, word_mask, tau)
    assert (result <= matrix.masked_fill(dropped, -2).amax(dim=(-2, -1)) + 1e-5).all()
    assert (result >= matrix.masked_fill(dropped, 2).amin(dim=(-2, -1)) - 1e-5).all()


def test_a_low_temperature_takes_the_largest_entry_and_a_high_one_the_mean(
    frames: Tensor, words: Tensor, word_mask: Tensor
) -> None:
    matrix = torch.einsum("ntd,mwd->nmtw", F.normalize(frames, dim=-1), F.normalize(words, dim=-1))
    kept = word_mask[:, None]
    largest = matrix.masked_fill(~kept, -2).amax(dim=(-2, -1))
    torch.testing.assert_close(frame_word(frames, words, word_mask, 1e-5), largest)
    mean = (matrix * kept).sum(dim=(-2, -1)) / (FRAMES * word_mask.sum(dim=-1))
    torch.testing.assert_close(frame_word(frames, words, word_mask, 1e5), mean)


def test_one_frame_and_one_word_give_their_cosine(frames: Tensor, words: Tensor) -> None:
    result = frame_word(frames[:, :1], words[:, :1], torch.ones(TEXTS, 1, dtype=torch.bool))
    torch.testing.assert_close(result, pair_similarity(frames[:, 0], words[:, 0]))


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_change_neither_values_nor_gradients(
    chunk: int, frames: Tensor, words: Tensor, word_mask: Tensor
) -> None:
    outcomes = []
    for size in (chunk, 64):
        leaves = frames.clone().requires_grad_(), words.clone().requires_grad_()
        result = frame_word(*leaves, word_mask, chunk=size)
        gradients = torch.autograd.grad((result * random(CLIPS, TEXTS, seed=4)).sum(), leaves)
        with torch.no_grad():
            outcomes.append((result, frame_word(*leaves, word_mask, chunk=size), *gradients))
    for chunked, whole in zip(*outcomes, strict=True):
        torch.testing.assert_close(chunked, whole)


def test_a_text_without_words_is_refused(frames: Tensor, words: Tensor, word_mask: Tensor) -> None:
    word_mask[1] = False
    with pytest.raises(ValueError, match=r"texts \[1\] have no word"):
        frame_word(frames, words, word_mask)


def test_similarities_and_losses_stay_in_full_precision_under_autocast(
    frames: Tensor, words: Tensor, word_mask: Tensor, labels: Tensor, text_similarity: Tensor
) -> None:
    def everything() -> tuple[Tensor, ...]:
        weights = negative_weights(text_similarity, labels)
        pairs = pair_similarity(frames[:, 0], words[:, 0])
        return pairs, frame_word(frames, words, word_mask), semantic_guided_loss(weights, labels, weights, TAU)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = everything()
    assert all(torch.equal(one, other) for one, other in zip(mixed, everything(), strict=True))


# --- strengths of negatives


def test_negatives_share_as_many_units_as_there_are_by_unlikeness(labels: Tensor, text_similarity: Tensor) -> None:
    weights = negative_weights(text_similarity, labels)
    for row in range(6):
        negatives = [j for j in range(6) if labels[j] != labels[row]]
        total = sum(1 - text_similarity[row, j].item() for j in negatives)
        for j in range(6):
            share = len(negatives) * (1 - text_similarity[row, j].item()) / total
            assert weights[row, j].item() == pytest.approx(share if j in negatives else 1.0, rel=1e-5)


def test_a_likelier_text_is_a_weaker_negative(labels: Tensor, text_similarity: Tensor) -> None:
    closer = text_similarity.clone()
    closer[0, 3] += 0.2
    before, after = negative_weights(text_similarity, labels), negative_weights(closer, labels)
    assert after[0, 3] < before[0, 3] - 1e-3
    assert (after[0, [1, 4, 5]] > before[0, [1, 4, 5]]).all()
    assert torch.equal(after[1:], before[1:])


def test_weights_do_not_depend_on_positives(labels: Tensor, text_similarity: Tensor) -> None:
    changed = torch.where(labels[:, None] == labels, 0.3, text_similarity)
    assert torch.equal(negative_weights(changed, labels), negative_weights(text_similarity, labels))


@pytest.mark.parametrize("similarity", [1.0, 1 - 1e-7, 1 + 1e-6])
def test_negatives_of_one_text_under_several_labels_count_evenly(similarity: float, labels: Tensor) -> None:
    weights = negative_weights(torch.full((6, 6), similarity) - torch.eye(6) * 1e-7, labels)
    assert torch.equal(weights, torch.ones(6, 6))


def test_a_batch_of_one_label_has_weights_of_one() -> None:
    labels = torch.zeros(4, dtype=torch.int64)
    assert torch.equal(negative_weights(torch.ones(4, 4), labels), torch.ones(4, 4))


def test_texts_get_no_gradient_through_the_weights(labels: Tensor, text_similarity: Tensor) -> None:
    assert not negative_weights(text_similarity.requires_grad_(), labels).requires_grad


# --- the loss


def test_even_strengths_are_the_vanilla_divergence(labels: Tensor) -> None:
    similarity = random(6, 6, seed=5)
    targets = (labels[:, None] == labels).float()
    targets /= targets.sum(dim=-1, keepdim=True)
    rows = F.kl_div((similarity / TAU).log_softmax(dim=-1), targets, reduction="batchmean")
    columns = F.kl_div((similarity.T / TAU).log_softmax(dim=-1), targets, reduction="batchmean")
    even = negative_weights(torch.zeros(6, 6), labels)
    torch.testing.assert_close(even, torch.ones(6, 6))
    torch.testing.assert_close(semantic_guided_loss(similarity, labels, even, TAU), (rows + columns) / 2)


def test_one_clip_per_label_is_infonce() -> None:
    similarity, target = random(5, 5, seed=5), torch.arange(5)
    expected = (F.cross_entropy(similarity / TAU, target) + F.cross_entropy(similarity.T / TAU, target)) / 2
    torch.testing.assert_close(semantic_guided_loss(similarity, target, torch.ones(5, 5), TAU), expected)


def test_the_loss_equals_the_equation_summed_by_hand(labels: Tensor, text_similarity: Tensor) -> None:
    similarity, weights = random(6, 6, seed=5).double(), negative_weights(text_similarity, labels).double()
    total = torch.zeros((), dtype=torch.float64)
    for scores in (similarity, similarity.T):
        for i in range(6):
            raised = weights[i] * (scores[i] / 0.1).exp()
            positives = (labels == labels[i]).nonzero().flatten()
            share = torch.tensor(1 / len(positives), dtype=torch.float64)
            for j in positives:
                total += share * (share / (raised[j] / raised.sum())).log() / 12
    loss = semantic_guided_loss(similarity.float(), labels, weights.float(), TAU)
    torch.testing.assert_close(loss, total.float())


def test_both_directions_anchor_their_weights_in_the_rows_text(labels: Tensor, text_similarity: Tensor) -> None:
    similarity, weights = random(6, 6, seed=5), negative_weights(text_similarity, labels)
    assert not torch.allclose(weights, weights.T, atol=0.05)
    loss = semantic_guided_loss(similarity, labels, weights, TAU)
    torch.testing.assert_close(semantic_guided_loss(similarity.T, labels, weights, TAU), loss)
    assert not torch.allclose(semantic_guided_loss(similarity, labels, weights.T, TAU), loss, atol=1e-3)


@pytest.mark.parametrize("labels", [torch.zeros(1), torch.zeros(4)])
def test_one_clip_or_one_label_is_finite_and_right_when_scores_are_even(labels: Tensor) -> None:
    n = len(labels)
    similarity = torch.zeros(n, n, requires_grad=True)
    loss = semantic_guided_loss(similarity, labels, negative_weights(torch.ones(n, n), labels), TAU)
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(0.0))
    assert similarity.grad is not None
    torch.testing.assert_close(similarity.grad, torch.zeros(n, n))
    other = semantic_guided_loss(random(n, n, seed=6), labels, torch.ones(n, n), TAU)
    assert torch.isfinite(other)
    assert (other > 0.1) == (n > 1)


def test_a_negative_of_weight_zero_counts_as_a_millionth(labels: Tensor) -> None:
    similarity = 10 * F.one_hot(torch.tensor(3), 6).float() * (torch.arange(6) == 0).float()[:, None]
    losses = []
    for weight in (0.0, 1e-6, 1e-5):
        weights = torch.ones(6, 6)
        weights[0, 3] = weight
        losses.append(semantic_guided_loss(similarity, labels, weights, torch.tensor(1.0)).item())
    assert losses[0] == losses[1]
    assert losses[2] > losses[1] + 1e-3


def test_strengths_move_the_gradient_from_like_to_unlike_negatives(labels: Tensor, text_similarity: Tensor) -> None:
    gradients = []
    weights = negative_weights(text_similarity, labels)
    for strengths in (weights, torch.ones(6, 6)):
        similarity = torch.zeros(6, 6, requires_grad=True)
        semantic_guided_loss(similarity, labels, strengths, TAU).backward()
        assert similarity.grad is not None
        gradients.append(similarity.grad[0] + similarity.grad[:, 0])
    stronger = weights[0] > 1.05
    weaker = weights[0] < 0.95
    assert stronger.any()
    assert weaker.any()
    assert (gradients[0] > gradients[1])[stronger].all()
    assert (gradients[0] < gradients[1])[weaker].all()
