"""CMDCL as a whole: its four variants, its controls, its gradients and what it refuses."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from cache.errors import ConfigError
from tests.train.models.small_models import (
    CLASSES,
    FRAMES,
    VIDEO_WIDTH,
    WIDTH,
    scramble,
    some_prompts,
    some_tokens,
    video_encoder,
)
from train.causal.backdoor import bias_scores
from train.encoders.timesformer import TimeSformer, pool_frames
from train.losses import task_loss
from train.models.cmdcl import CMDCL, CMDCLConfig

SMALL = CMDCLConfig(
    dim=WIDTH, sta_layers=2, sta_heads=4, qformer_heads=4, qformer_ffn=32, dropout=0.0, class_chunk=2, tau_t=0.1
)
VARIANTS = [(False, False), (True, False), (False, True), (True, True)]


def config(**changes: Any) -> CMDCLConfig:  # noqa: ANN401
    return dataclasses.replace(SMALL, **changes)


def build(settings: CMDCLConfig, *, encoder: TimeSformer | None = None, scrambled: bool = True) -> CMDCL:
    torch.manual_seed(0)
    model = CMDCL(
        settings,
        text_embeddings=torch.randn(CLASSES, WIDTH),
        num_frames=FRAMES,
        video_width=VIDEO_WIDTH,
        video_encoder=encoder,
    )
    if scrambled:
        scramble(model)
    return model


@pytest.fixture
def prompts() -> Tensor:
    return some_prompts()


@pytest.fixture
def tokens() -> Tensor:
    return some_tokens()


@pytest.mark.parametrize(("tci", "vci"), VARIANTS)
def test_permuting_classes_permutes_logits(tci: bool, vci: bool, prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(tci=tci, vci=vci))
    before = model(prompts, frame_tokens=tokens)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        for parameter in (model.text, model.decoder.classifier.weight, model.decoder.classifier.bias):
            parameter.copy_(parameter[order].clone())
    assert before.shape == (3, CLASSES)
    assert before.std(dim=1).min() > 1e-3
    torch.testing.assert_close(model(prompts, frame_tokens=tokens), before[:, order], atol=1e-5, rtol=1e-5)


def test_without_both_interventions_it_is_a_decoder_over_frames(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(tci=False, vci=False)).eval()
    assert (model.tci, model.temporal, model.vci) == (None, None, None)
    visual = tokens @ model.frame_features.projection.weight.T + model.frame_features.projection.bias
    decoded = model.decoder.qformer(model.text.repeat(3, 1, 1), visual)
    expected = torch.stack(
        [decoded[:, c] @ model.decoder.classifier.weight[c] + model.decoder.classifier.bias[c] for c in range(CLASSES)],
        dim=1,
    )
    torch.testing.assert_close(model(prompts, frame_tokens=tokens), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("tci", "vci"), VARIANTS)
def test_each_intervention_alone_brings_in_its_own_input(tci: bool, vci: bool, prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(tci=tci, vci=vci))
    logits = model(prompts, frame_tokens=tokens)
    others = model(prompts.flip(2), frame_tokens=tokens)
    assert torch.allclose(logits, others, atol=1e-6) == (not tci)
    sees_order = not torch.allclose(logits, model(prompts, frame_tokens=tokens.flip(1)), atol=1e-5)
    assert sees_order == vci  # through the positions of the temporal layers


def test_the_temporal_control_has_the_temporal_layers_and_no_intervention(prompts: Tensor, tokens: Tensor) -> None:
    control = build(config(vci=False, temporal_control=True))
    full = build(config())
    assert control.vci is None
    assert control.temporal is not None
    assert full.temporal is not None
    assert control.temporal.state_dict().keys() == full.temporal.state_dict().keys()
    frames = control.temporal(control.frame_features(frame_tokens=tokens))
    expected = control.decoder(control.debias_text(prompts), frames)
    torch.testing.assert_close(control(prompts, frame_tokens=tokens), expected)


def test_the_prompt_control_adds_the_image_encoders_frames_and_no_intervention(prompts: Tensor, tokens: Tensor) -> None:
    control = build(config(tci=False, vci=False, prompt_control=True))
    assert control.prompt_projection is not None
    frames = control.frame_features(frame_tokens=tokens)
    frames = frames + F.normalize(prompts, dim=-1) @ control.prompt_projection.weight.T
    expected = control.decoder(control.text.expand(3, -1, -1), frames)
    torch.testing.assert_close(control(prompts, frame_tokens=tokens), expected)


def test_evidence_is_added_to_the_logits_and_changes_no_other_weight(prompts: Tensor, tokens: Tensor) -> None:
    plain, model = (build(config(tci=False, evidence=on), scrambled=False).eval() for on in (False, True))
    added = {f"evidence.{name}" for name in ("text", "log_gain", "evidence_bias", "match_bias")}
    assert set(model.state_dict()) - set(plain.state_dict()) == added
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
    assert model.evidence is not None
    unit = F.normalize(prompts, dim=-1)
    expected = plain(prompts, frame_tokens=tokens) + model.evidence(unit)
    torch.testing.assert_close(model(prompts, frame_tokens=tokens), expected)
    trace = model.explain(prompts, frame_tokens=tokens)
    torch.testing.assert_close(trace.logits, expected)
    assert trace.back_door is not None
    torch.testing.assert_close(trace.back_door, bias_scores(model.text, unit, model.config.tau_t))
    for found, fitted in zip(model.evidence_fits(prompts), model.evidence.fits(unit), strict=True):
        torch.testing.assert_close(found, fitted)
    assert plain.evidence_fits(prompts) == ()
    assert plain.explain(prompts, frame_tokens=tokens).back_door is None
    with pytest.raises(ValueError, match="evidence_boost"):
        config(evidence_boost=0.0)
    with pytest.raises(ValueError, match="evidence_learning_rate"):
        config(evidence_learning_rate=-1.0)


def test_a_removed_scene_is_not_seen(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(tci=False, vci=False, temporal_control=True, scene="removed"))
    scene = torch.randn(3, 1, VIDEO_WIDTH, generator=torch.Generator().manual_seed(4))
    before = model(prompts, frame_tokens=tokens)
    torch.testing.assert_close(model(prompts, frame_tokens=tokens + scene), before, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model(prompts, frame_tokens=tokens.flip(1)), before, atol=1e-4)


def test_scenes_are_exchanged_before_the_temporal_layers_and_in_training_alone(prompts: Tensor, tokens: Tensor) -> None:
    plain, model = (
        build(config(tci=False, vci=False, temporal_control=True, dropout=0.0, scene=scene))
        for scene in ("kept", "exchanged")
    )
    expected = plain.eval()(prompts, frame_tokens=tokens)
    torch.testing.assert_close(model.eval()(prompts, frame_tokens=tokens), expected)
    torch.manual_seed(2)
    found = model.train()(prompts, frame_tokens=tokens)
    torch.manual_seed(2)
    swapped = model.frame_features.scene(tokens)
    assert not torch.equal(swapped, tokens)  # of these three videos one at least got another's
    torch.testing.assert_close(found, plain(prompts, frame_tokens=swapped), atol=1e-5, rtol=1e-5)


def test_vci_hands_the_debiased_text_to_the_front_door_as_mediator(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config())
    assert model.temporal is not None
    assert model.vci is not None
    text = model.debias_text(prompts)
    values = model.vci(model.temporal(model.frame_features(frame_tokens=tokens)), text)
    expected = model.decoder(text, values)
    torch.testing.assert_close(model(prompts, frame_tokens=tokens), expected)


@pytest.mark.parametrize("layers", [0, 2, 10])
def test_any_number_of_temporal_layers_works(layers: int, prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(sta_layers=layers))
    assert torch.isfinite(model(prompts, frame_tokens=tokens)).all()


@pytest.mark.parametrize("tci", [True, False])
def test_at_the_start_tci_leaves_the_text_as_it_is(tci: bool, prompts: Tensor) -> None:
    model = build(config(tci=tci), scrambled=False)
    assert torch.equal(model.debias_text(prompts), model.text.expand(3, -1, -1))


def test_the_scale_of_visual_prompts_and_text_does_not_matter(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config())
    torch.testing.assert_close(
        model(10 * prompts, frame_tokens=tokens), model(prompts, frame_tokens=tokens), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(model.text.norm(dim=-1), torch.ones(CLASSES))


def test_frames_go_through_the_video_encoder_and_are_pooled_per_frame(prompts: Tensor) -> None:
    encoder = video_encoder()
    model = build(config(), encoder=encoder).eval()
    frames = torch.randn(3, FRAMES, 3, 16, 16)
    pooled = pool_frames(encoder(frames), FRAMES)
    torch.testing.assert_close(model(prompts, frames=frames), model(prompts, frame_tokens=pooled))


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_gradients_reach_the_text_the_video_encoder_and_every_head(kind: str, prompts: Tensor) -> None:
    model = build(config(), encoder=video_encoder())
    targets = torch.tensor([0, 1, 2]) if kind == "single" else torch.eye(3, CLASSES)
    logits = model(prompts, frames=torch.randn(3, FRAMES, 3, 16, 16))
    task_loss(kind, logits, targets).backward()  # type: ignore[arg-type]
    still = {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    assert still == set()


def test_the_first_step_moves_the_approximators_in_their_last_layer_only(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(), scrambled=False)
    model(prompts, frame_tokens=tokens).square().sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    approximators = {name for name in moved if "approximator" in name}
    assert approximators == {
        f"{part}.approximator.mapping.3.{end}" for part in ("tci", "vci") for end in ("weight", "bias")
    }
    assert {"text", "frame_features.projection.weight", "temporal.time_embed", "decoder.classifier.weight"} <= moved


def test_fixed_text_takes_no_gradient(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(train_text=False))
    model(prompts, frame_tokens=tokens).sum().backward()
    assert model.text.grad is None


def test_the_module_holds_no_image_or_text_encoder() -> None:
    model = build(config(), encoder=video_encoder())
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {
        "text", "frame_features", "tci", "temporal", "vci", "decoder",
    }  # fmt: skip


def test_the_heads_have_the_size_of_the_specification() -> None:
    with torch.device("meta"):
        model = CMDCL(
            CMDCLConfig(),
            text_embeddings=torch.empty(10, 512),
            num_frames=16,
            video_width=768,
            video_encoder=None,
        )
    expected = {
        "frame_features.projection": 0.39,
        "tci": 0.79,
        "temporal": 6.31,
        "vci": 0.79,
        "decoder.qformer": 4.20,
    }
    for name, size in expected.items():
        millions = sum(p.numel() for p in model.get_submodule(name).parameters()) / 1e6
        assert millions == pytest.approx(size, abs=0.011), name


def test_under_autocast_logits_stay_close_and_gradients_finite(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(tau_t=0.01))
    expected = model(prompts, frame_tokens=tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(prompts, frame_tokens=tokens)
    assert (logits.float() - expected).abs().max() < 0.1 * expected.abs().max()
    task_loss("multi", logits, torch.eye(3, CLASSES)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_inputs_of_another_shape_are_refused(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config())
    with pytest.raises(ValueError, match=r"visual_prompts have shape \(3, 3, 16\): expected \(n, 4, 16\)"):
        model(prompts[:, :3], frame_tokens=tokens)
    with pytest.raises(ValueError, match="frame_tokens have shape"):
        model(prompts, frame_tokens=tokens[:, :3])


def test_text_of_another_width_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match="set dim = 16"):
        build(config(dim=32))


def test_a_video_encoder_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="8 frames"):
        build(config(), encoder=video_encoder(8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporal_control": True}, "temporal_control is a control for vci = false"),
        ({"sta_heads": 3}, "sta_heads 3 does not divide dim 16"),
        ({"tau_t": 0.0}, "tau_t is 0.0: a temperature must be positive"),
        ({"sta_layers": -1}, "sta_layers is -1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"class_chunk": 0}, "class_chunk is 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_without_tci_the_visual_prompts_still_have_to_fit(tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="visual_prompts"):
        build(config(tci=False))(torch.zeros(3, FRAMES, 8), frame_tokens=tokens)


def test_one_class_text_scores_like_cosines_by_hand(prompts: Tensor) -> None:
    model = build(config(approx="linear"))
    assert model.tci is not None
    frames = F.normalize(prompts[0], dim=-1)
    weights = (model.text[1] @ frames.T / 0.1).softmax(dim=-1)
    layer = model.tci.approximator.mapping
    expected = layer(torch.cat([model.text[1], weights @ frames]))
    torch.testing.assert_close(model.debias_text(prompts)[0, 1], expected, atol=1e-5, rtol=1e-5)
