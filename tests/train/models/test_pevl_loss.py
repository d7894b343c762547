"""PeVL from features to similarities, losses and logits, against the specification by hand; and its temperatures."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tests.train.models.small_pevl import (
    CLASSES,
    CLIPS,
    DIM,
    LABELS,
    NO_UCMR,
    NUM_WORDS,
    build,
    frozen_sentences,
    joints,
    pixels,
    prompts,
    some_features,
)
from train.encoders.adapted_clip import TextEncoder
from train.models import pevl
from train.models.pevl import PeVL, Temperature, VisualFeatures

TAU, TAU_A, TAU_R, LAMBDA_R = 0.2, 0.1, 0.4, 0.3
ALL = torch.arange(CLASSES)
EVEN = torch.ones(CLIPS, CLIPS)
NO_TEXT: dict[str, Any] = {"encoders": ("video", "pose"), "adapters": ("video", "pose")}


def given(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """(n, D) and (m, D) -> (n, m)."""
    return F.cosine_similarity(left[:, None], right[None], dim=-1)


def words_by_hand(model: PeVL) -> list[Tensor]:
    """What the text tower gives for begin, words and end of each prompt, projected: (N + 2, D) of each."""
    ids, _ = prompts()
    assert model.text is not None
    assert model.text_tower is not None
    assert model.text_projection is not None
    hidden = model.text(model.text_tower, ids) @ model.text_projection.weight.T
    return [text[: words + 2] for text, words in zip(hidden, NUM_WORDS, strict=True)]


def sentences_by_hand(model: PeVL) -> Tensor:
    return torch.stack([text[-1] for text in words_by_hand(model)])


def softly(scores: Tensor) -> Tensor:
    raised = (scores / TAU_A).exp()
    return (raised * scores).sum() / raised.sum()


def frame_word(frames: Tensor, words: Tensor) -> Tensor:
    """S_FW of one clip and one text: frames (T, D), words (N, D)."""
    matrix = cosines(frames, words)
    by_frames = softly(torch.stack([softly(row) for row in matrix]))
    return (by_frames + softly(torch.stack([softly(column) for column in matrix.T]))) / 2


def parts_by_hand(model: PeVL, visual: VisualFeatures) -> dict[str, Tensor]:
    """S_VS, S_PS and S_FW, each (n, C)."""
    sentences, words = sentences_by_hand(model), [text[1:-1] for text in words_by_hand(model)]
    frames = given(visual.pose_frames)
    return {
        "vs": cosines(given(visual.video), sentences),
        "ps": cosines(given(visual.pose), sentences),
        "fw": torch.stack([torch.stack([frame_word(clip, text) for text in words]) for clip in frames]),
    }


def similarity_by_hand(model: PeVL, visual: VisualFeatures) -> Tensor:
    parts = parts_by_hand(model, visual)
    return (parts["vs"] + parts["ps"] + parts["fw"]) / 3


def weights_by_hand(resemblance: Tensor) -> Tensor:
    """w (n, n): 1 for positives; negatives share as many units as there are by 1 - cosine of the texts."""
    rows = []
    for own in LABELS:
        strengths = (1 - resemblance[LABELS, own]) * (own != LABELS)
        rows.append((own == LABELS) + (own != LABELS).sum() * strengths / strengths.sum())
    return torch.stack(rows)


def contrast_by_hand(similarity: Tensor, weights: Tensor) -> Tensor:
    """L_t of section 3.7: similarity (n, C), weights (n, n)."""
    terms = []
    for i, own in enumerate(LABELS):
        target = (own == LABELS) / (own == LABELS).sum()
        for scores in (similarity[i, LABELS], similarity[:, own]):
            raised = weights[i] * (scores / TAU).exp()
            terms.append(F.kl_div((raised / raised.sum()).log(), target, reduction="sum"))
    return torch.stack(terms).mean()


def nt_xent_by_hand(before: Tensor, after: Tensor) -> Tensor:
    scores = (cosines(before, after) / TAU_R).exp()
    return -torch.stack([(scores[i, i] / scores[i].sum()).log() for i in range(CLIPS)]).mean()


def refinement_by_hand(visual: VisualFeatures) -> Tensor:
    video = nt_xent_by_hand(given(visual.unrefined_video), given(visual.video))
    return video + nt_xent_by_hand(given(visual.unrefined_pose), given(visual.pose))


def joined_by_hand(model: PeVL, visual: VisualFeatures) -> Tensor:
    assert model.fusion is not None
    units = [F.normalize(given(feature), dim=-1) for feature in (visual.video, visual.pose)]
    weights = model.fusion.weight
    return units[0] @ weights[:, :DIM].T + units[1] @ weights[:, DIM:].T + model.fusion.bias


def loss(model: PeVL, visual: VisualFeatures) -> Tensor:
    return model.loss(visual, LABELS)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# --- texts


@pytest.mark.parametrize("adapters", [("text",), ()], ids=["adapted", "frozen"])
def test_sentences_are_at_the_end_of_text_and_words_between_begin_and_end(adapters: tuple[str, ...]) -> None:
    model = build(adapters=adapters)
    found = model.encode_texts(torch.tensor([4, 0, 2]))
    for place, label in enumerate((4, 0, 2)):
        text = words_by_hand(model)[label]
        close(found.sentence[place], text[-1])
        close(found.words[place][found.mask[place]], text[1:-1])


@pytest.mark.parametrize("adapters", [("text",), ()], ids=["adapted", "frozen"])
def test_classes_in_pieces_are_those_at_once(adapters: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(adapters=adapters).encode_texts(ALL)
    monkeypatch.setattr(pevl, "_TEXTS_AT_ONCE", 2)
    torch.testing.assert_close(vars(build(adapters=adapters).encode_classes()), vars(whole))


def test_frozen_texts_are_computed_once_in_full_precision_and_serve_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(adapters=("video", "pose"))
    expected = model.encode_texts(ALL).sentence
    model = build(adapters=("video", "pose"))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        model.encode_classes()
    assert not given(model.frozen_text).is_inference()
    monkeypatch.setattr(TextEncoder, "forward", None)
    again = model.encode_classes()
    close(again.sentence, expected)
    assert model.text_projection is not None
    again.sentence.sum().backward()
    assert given(model.text_projection.weight.grad).any()


# --- similarities and logits


@pytest.mark.parametrize("names", [("vs",), ("ps",), ("fw",), ("fw", "vs"), ("vs", "ps", "fw")], ids="-".join)
def test_similarity_is_the_mean_of_those_that_are_on(names: tuple[str, ...]) -> None:
    model, visual = build(similarities=names), some_features()
    parts = parts_by_hand(model, visual)
    expected = torch.stack([parts[name] for name in names]).sum(dim=0) / len(names)
    close(model.similarity(visual, model.encode_classes()), expected)
    close(model.logits(visual, model.encode_classes()), expected / TAU)


def test_before_sgmc_a_linear_layer_joins_unit_features_and_meets_sentences() -> None:
    model, visual = build(fusion="concat"), some_features()
    expected = cosines(joined_by_hand(model, visual), sentences_by_hand(model))
    close(model.similarity(visual, model.encode_classes()), expected)
    close(model.logits(visual, model.encode_classes()), expected / TAU)


def test_without_text_a_linear_classifier_reads_joined_features() -> None:
    model, visual = build(**NO_TEXT, **NO_UCMR), some_features()
    assert model.classifier is not None
    expected = joined_by_hand(model, visual) @ model.classifier.weight.T + model.classifier.bias
    close(model.logits(visual, None), expected)
    close(loss(model, visual), -expected.log_softmax(dim=-1)[torch.arange(CLIPS), LABELS].mean())


@pytest.mark.parametrize("encoder", ["video", "pose"])
def test_one_encoder_without_text_is_classified_by_its_unit_feature(encoder: str) -> None:
    model = build(encoders=(encoder,), adapters=(encoder,), **NO_UCMR)
    feature = given(getattr(some_features(), encoder))
    none = {"video": None, "pose": None, "pose_frames": None}
    assert model.classifier is not None
    found = model.logits(VisualFeatures(**(none | {encoder: feature})), None)
    close(found, F.normalize(feature, dim=-1) @ model.classifier.weight.T + model.classifier.bias)


# --- loss


@pytest.mark.parametrize(
    "changes",
    [{}, {"strength_text": "live"}, {"strengths": "uniform"}, {"strengths": "uniform", "strength_text": "live"}],
    ids=str,
)
def test_loss_is_contrast_and_refinement_as_specified(changes: dict[str, Any]) -> None:
    model, visual = build(**changes), some_features()
    texts = sentences_by_hand(model) if changes.get("strength_text") == "live" else frozen_sentences()
    weights = EVEN if "strengths" in changes else weights_by_hand(cosines(texts, texts))
    contrast = contrast_by_hand(similarity_by_hand(model, visual), weights)
    close(loss(model, visual), contrast + LAMBDA_R * refinement_by_hand(visual))


def test_loss_before_sgmc_contrasts_joined_features_and_still_refines() -> None:
    model, visual = build(fusion="concat", strengths="uniform"), some_features()
    similarity = cosines(joined_by_hand(model, visual), sentences_by_hand(model))
    close(loss(model, visual), contrast_by_hand(similarity, EVEN) + LAMBDA_R * refinement_by_hand(visual))


def test_a_classifier_with_refinement_is_trained_with_both_losses() -> None:
    model, visual = build(**NO_TEXT), some_features()
    matching = F.cross_entropy(model.logits(visual, None), LABELS)
    close(loss(model, visual), matching + LAMBDA_R * refinement_by_hand(visual))


@pytest.mark.parametrize(
    ("changes", "names"),
    [({"p2v": "off"}, ["pose"]), ({"v2p": False}, ["video"]), (NO_UCMR, []), ({}, ["video", "pose"])],
    ids=str,
)
def test_the_refinement_loss_has_a_term_for_each_sub_block_that_is_on(
    changes: dict[str, Any], names: list[str]
) -> None:
    model = build(**changes)
    with torch.no_grad():
        visual = model(pixels=pixels(), tokens=None, joints=joints())
        whole, matching = loss(model, visual), loss(build(**changes, lambda_r=0.0), visual)
    terms = [nt_xent_by_hand(getattr(visual, f"unrefined_{name}"), getattr(visual, name)) for name in names]
    close(whole, matching + LAMBDA_R * sum(terms, torch.zeros(())))


def test_strengths_carry_no_gradient_to_the_texts() -> None:
    """The gradient is that of constant weights, also where the adapted texts give the strengths."""
    model, visual = build(strength_text="live", lambda_r=0.0), some_features()
    assert model.text_projection is not None
    loss(model, visual).backward()
    found = given(model.text_projection.weight.grad).clone()
    model.zero_grad()
    sentences = sentences_by_hand(model).detach()
    weights = weights_by_hand(cosines(sentences, sentences))
    contrast_by_hand(similarity_by_hand(model, visual), weights).backward()
    close(found, given(model.text_projection.weight.grad))


# --- temperatures


@pytest.mark.parametrize(("value", "expected"), [(1e-4, 0.01), (0.05, 0.05), (7.0, 1.0)])
@pytest.mark.parametrize("name", ["tau", "tau_r"])
def test_temperatures_stay_between_a_hundredth_and_one_and_can_come_back(
    name: str, value: float, expected: float
) -> None:
    temperature = getattr(build(), name)
    assert isinstance(temperature, Temperature)
    temperature.log.data.fill_(math.log(value))
    found = temperature()
    assert found.item() == pytest.approx(expected)
    found.backward()
    assert given(temperature.log.grad).item() == pytest.approx(expected)


def test_logits_are_divided_by_a_bounded_temperature() -> None:
    model, visual = build(), some_features()
    classes = model.encode_classes()
    model.tau.log.data.fill_(math.log(1e-4))
    close(model.logits(visual, classes), 100 * model.similarity(visual, classes))


def test_both_temperatures_start_where_the_configuration_says() -> None:
    model = build()
    assert model.tau_r is not None
    assert (model.tau().item(), model.tau_r().item()) == pytest.approx((TAU, TAU_R))
