"""PCMCI as a whole: its stages and their order, its mediators, its trace and what it refuses."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

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
from train.causal.transport import TransportConfig
from train.encoders.timesformer import TimeSformer
from train.losses import task_loss
from train.models.cmdcl import CMDCL, CMDCLConfig
from train.models.pcmci import PCMCI, PCMCIConfig, Stage

SMALL = PCMCIConfig(
    dim=WIDTH,
    bases=4,
    qformer_heads=4,
    qformer_ffn=32,
    dropout=0.0,
    class_chunk=2,
    memory_size=6,
    transport=TransportConfig(eps=0.1),
    tau_t=0.1,
)
STAGES: tuple[Stage, ...] = ("ich", "ici", "ivc")
ORDERS = [order for size in range(4) for order in itertools.permutations(STAGES, size)]


def config(**changes: Any) -> PCMCIConfig:  # noqa: ANN401
    return dataclasses.replace(SMALL, **changes)


def build(settings: PCMCIConfig, *, encoder: TimeSformer | None = None, scrambled: bool = True) -> PCMCI:
    torch.manual_seed(0)
    model = PCMCI(
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


def moved(model: PCMCI) -> set[str]:
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


def test_without_stages_it_is_cmdcl_without_its_interventions(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(stages=()))
    shared = {"dim": WIDTH, "qformer_heads": 4, "qformer_ffn": 32, "dropout": 0.0, "tci": False, "vci": False}
    cmdcl = CMDCL(
        CMDCLConfig(**shared),  # type: ignore[arg-type]
        text_embeddings=torch.randn(CLASSES, WIDTH),
        num_frames=FRAMES,
        video_width=VIDEO_WIDTH,
        video_encoder=None,
    )
    cmdcl.load_state_dict(model.state_dict())
    assert torch.equal(model(prompts, frame_tokens=tokens), cmdcl(prompts, frame_tokens=tokens))


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_every_order_of_every_set_of_stages_is_run_left_to_right(
    order: tuple[Stage, ...], prompts: Tensor, tokens: Tensor
) -> None:
    model = build(config(stages=order))
    assert {name for name in STAGES if getattr(model, name) is not None} == set(order)
    text = model.text.expand(len(prompts), -1, -1)
    frames = model.frame_features(frame_tokens=tokens)
    video = frames
    unit = torch.nn.functional.normalize(prompts, dim=-1)
    for stage in order:
        if stage == "ich":
            text = model.ich(text, unit)[0]  # type: ignore[misc]
        elif stage == "ici":
            text = model.ici(text)  # type: ignore[misc]
        else:
            video = model.ivc(model.temporal(frames), text)  # type: ignore[misc]
    state = model.intervene(prompts, frame_tokens=tokens)
    torch.testing.assert_close((state.text, state.video), (text, video))
    torch.testing.assert_close(model(prompts, frame_tokens=tokens), model.decoder(text, video))


def test_the_order_of_the_text_stages_matters(prompts: Tensor, tokens: Tensor) -> None:
    first, second = build(config(stages=("ich", "ici"))), build(config(stages=("ici", "ich")))
    second.load_state_dict(first.state_dict())
    logits = first(prompts, frame_tokens=tokens)
    assert not torch.allclose(second(prompts, frame_tokens=tokens), logits, atol=1e-3)


def test_with_ich_at_its_start_the_order_of_the_text_stages_does_not_matter(prompts: Tensor, tokens: Tensor) -> None:
    """W_H = 0 makes ICH the identity: both orders are then the model without it."""
    first = build(config(stages=("ich", "ici", "ivc")))
    assert first.ich is not None
    torch.nn.init.zeros_(first.ich.projection.weight)  # type: ignore[union-attr]
    second, without = build(config(stages=("ici", "ich", "ivc"))), build(config(stages=("ici", "ivc")))
    second.load_state_dict(first.state_dict())
    without.load_state_dict({name: value for name, value in first.state_dict().items() if not name.startswith("ich.")})
    expected = without(prompts, frame_tokens=tokens)
    torch.testing.assert_close(first(prompts, frame_tokens=tokens), expected)
    torch.testing.assert_close(second(prompts, frame_tokens=tokens), expected)


def test_the_text_stages_before_ivc_shape_its_mediator_and_those_after_do_not(prompts: Tensor, tokens: Tensor) -> None:
    for order, expected in ((("ivc", "ich", "ici"), set()), (("ich", "ici", "ivc"), {"ich", "ici"})):
        model = build(config(stages=order, transport=TransportConfig(eps=0.1, grad=True)))
        model.intervene(prompts, frame_tokens=tokens).video.square().sum().backward()
        assert {name.split(".")[0] for name in moved(model)} & {"ich", "ici"} == expected
        assert "text" in moved(model)  # the mediator itself in both


def test_text_stages_after_ivc_change_the_queries(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(stages=("ivc", "ich", "ici")))
    model(prompts, frame_tokens=tokens).square().sum().backward()
    assert {"ich.projection.weight", "ici.layers.0.query_key.weight"} <= moved(model)


def test_without_ich_the_prompts_do_not_matter_but_have_to_fit(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(stages=("ici", "ivc")))
    assert torch.equal(model(prompts.flip(2), frame_tokens=tokens), model(prompts, frame_tokens=tokens))
    with pytest.raises(ValueError, match="visual_prompts have shape"):
        model(prompts[:, :3], frame_tokens=tokens)
    full = build(config())
    assert not torch.allclose(full(prompts.flip(2), frame_tokens=tokens), full(prompts, frame_tokens=tokens), atol=1e-4)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_permuting_classes_permutes_logits(order: tuple[Stage, ...], prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(stages=order))
    before = model(prompts, frame_tokens=tokens)
    permutation = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        for parameter in (model.text, model.decoder.classifier.weight, model.decoder.classifier.bias):
            parameter.copy_(parameter[permutation].clone())
    torch.testing.assert_close(model(prompts, frame_tokens=tokens), before[:, permutation], atol=1e-4, rtol=1e-4)
    assert before.std(dim=1).min() > 1e-3


def test_only_ivc_sees_the_order_of_frames_through_its_positions(prompts: Tensor, tokens: Tensor) -> None:
    for order in ((), ("ich", "ici"), ("ich", "ici", "ivc")):
        model = build(config(stages=order))
        logits = model(prompts, frame_tokens=tokens)
        same = torch.allclose(model(prompts.flip(1), frame_tokens=tokens.flip(1)), logits, atol=1e-4)
        assert same == ("ivc" not in order)


def test_at_the_start_the_text_stages_change_nothing(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(), scrambled=False)
    state = model.intervene(prompts, frame_tokens=tokens)
    assert torch.equal(state.text, model.text.expand(len(prompts), -1, -1))
    assert state.gathered is not None
    assert torch.equal(state.video, state.gathered)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_gradients_reach_the_text_the_video_encoder_and_every_part(kind: str, prompts: Tensor) -> None:
    settings = config(mediator="memory", ici_layers=2, ici_ffn=True, ici_prior=True, ivc_layers=2)
    model = build(settings, encoder=video_encoder())
    targets = torch.tensor([0, 1, 2]) if kind == "single" else torch.eye(3, CLASSES)
    logits = model(prompts, frames=torch.randn(3, FRAMES, 3, 16, 16))
    task_loss(kind, logits, targets).backward()  # type: ignore[arg-type]
    assert {name for name, _ in model.named_parameters()} - moved(model) == set()


SWITCHES: list[dict[str, Any]] = [
    {"ich": "concat_mlp"},
    {"ich_weights": "softmax"},
    {"ici_agg": "sum"},
    {"ici_agg": "hadamard"},
    {"mediator": "memory"},
    {"mediator": "multiscale"},
    {"ivc": "elementwise"},
    {"bases": 1},
    {"approx": "linear"},
    {"transport": TransportConfig(eps=0.1, grad=True)},
]


@pytest.mark.parametrize("changes", SWITCHES, ids=str)
def test_every_switch_changes_the_result_and_backpropagates(
    changes: dict[str, Any], prompts: Tensor, tokens: Tensor
) -> None:
    default, model = build(config()), build(config(**changes))
    logits = model(prompts, frame_tokens=tokens)
    same_forward = "transport" in changes  # that switch is about gradients
    assert torch.allclose(logits, default(prompts, frame_tokens=tokens), atol=1e-4) == same_forward
    logits.square().sum().backward()
    assert {name for name, _ in model.named_parameters()} == moved(model)


@pytest.mark.parametrize("mediator", ["memory", "multiscale"])
def test_other_mediators_still_hang_on_the_text_state(mediator: str, prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(mediator=mediator))
    model.intervene(prompts, frame_tokens=tokens).video.square().sum().backward()
    assert {"text", "ich.projection.weight", "mediator.read.query.weight"} <= moved(model)


def test_the_elementwise_front_door_is_cmdcls(prompts: Tensor, tokens: Tensor) -> None:
    """With no text stage, and relation layers that change nothing, only the temporal layers of CMDCL are missing."""
    model = build(config(stages=("ivc",), ivc="elementwise"))
    assert model.temporal is not None
    torch.nn.init.zeros_(model.temporal.layers[0].proj.weight)  # type: ignore[union-attr, arg-type]
    torch.nn.init.zeros_(model.temporal.layers[0].proj.bias)  # type: ignore[union-attr, arg-type]
    cmdcl = CMDCL(
        CMDCLConfig(
            dim=WIDTH, qformer_heads=4, qformer_ffn=32, dropout=0.0, tci=False, sta_layers=0, sta_heads=4, class_chunk=2
        ),
        text_embeddings=torch.randn(CLASSES, WIDTH),
        num_frames=FRAMES,
        video_width=VIDEO_WIDTH,
        video_encoder=None,
    )
    weights = {name.replace("ivc.", "vci."): value for name, value in model.state_dict().items()}
    cmdcl.load_state_dict({name: value for name, value in weights.items() if "temporal.layers" not in name})
    torch.testing.assert_close(model(prompts, frame_tokens=tokens), cmdcl(prompts, frame_tokens=tokens))


def test_the_trace_shows_what_led_to_the_logits(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config())
    trace = model.trace(prompts, frame_tokens=tokens)
    assert torch.equal(trace.logits, model(prompts, frame_tokens=tokens))
    assert trace.plan is not None
    torch.testing.assert_close(trace.plan.sum(dim=2), torch.full((3, CLASSES), 1 / CLASSES))
    torch.testing.assert_close(trace.plan.sum(dim=1), torch.full((3, FRAMES), 1 / FRAMES), atol=1e-4, rtol=0)
    assert trace.text_graphs is not None
    assert trace.text_graphs.shape == (3, 4, CLASSES, CLASSES)
    assert not trace.text_graphs.requires_grad
    assert model.ici is not None
    assert model.ich is not None
    related, _ = model.ich(model.text, torch.nn.functional.normalize(prompts, dim=-1))
    torch.testing.assert_close(trace.text_graphs, model.ici.graphs(related).detach())
    assert trace.alignment is None


def test_the_trace_leaves_out_what_does_not_exist(prompts: Tensor, tokens: Tensor) -> None:
    trace = build(config(stages=("ivc",))).trace(prompts, frame_tokens=tokens)
    assert (trace.plan, trace.text_graphs, trace.alignment) == (None, None, None)
    assert build(config(ich_weights="softmax")).trace(prompts, frame_tokens=tokens).plan is None


def test_forward_computes_no_graphs(prompts: Tensor, tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(config(ivc_align=1.0))
    assert model.ici is not None
    monkeypatch.setattr(model.ici, "graphs", None)  # calling it would fail
    model(prompts, frame_tokens=tokens)
    with pytest.raises(TypeError):
        model.trace(prompts, frame_tokens=tokens)


def test_the_alignment_is_the_distance_of_two_sets_of_graphs(prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(ivc_align=0.5))
    trace = model.trace(prompts, frame_tokens=tokens)
    state = model.intervene(prompts, frame_tokens=tokens)
    assert model.ici is not None
    assert state.gathered is not None
    assert state.related is not None
    pairs = model.ici.graphs(state.gathered), model.ici.graphs(state.related)
    per_graph = [torch.linalg.norm(a - b) ** 2 for x, y in zip(*pairs, strict=True) for a, b in zip(x, y, strict=True)]
    assert trace.alignment is not None
    torch.testing.assert_close(trace.alignment, torch.stack(per_graph).mean())


def test_the_alignment_moves_the_visual_side_and_not_the_text_side(prompts: Tensor, tokens: Tensor) -> None:
    """With IVC first, the text stages reach the alignment through the text graphs alone, which take no gradient."""
    model = build(config(stages=("ivc", "ich", "ici"), ivc_align=1.0))
    model.trace(prompts, frame_tokens=tokens).alignment.backward()  # type: ignore[union-attr]
    parts = {name.split(".")[0] for name in moved(model)}
    assert parts == {"text", "frame_features", "temporal", "ivc", "ici"}  # ici: its graphs over V'


@pytest.mark.parametrize("ich", ["add", "concat_mlp"])
def test_under_autocast_logits_stay_close_and_gradients_finite(ich: str, prompts: Tensor, tokens: Tensor) -> None:
    model = build(config(ich=ich, ivc_align=1.0))
    expected = model(prompts, frame_tokens=tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = model.trace(prompts, frame_tokens=tokens)
    assert (trace.logits.float() - expected).abs().max() < 0.1 * expected.abs().max()
    assert trace.alignment is not None
    assert trace.alignment.dtype == torch.float32
    (task_loss("multi", trace.logits, torch.eye(3, CLASSES)) + trace.alignment).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_heads_have_the_size_of_the_specification() -> None:
    with torch.device("meta"):
        model = PCMCI(
            PCMCIConfig(), text_embeddings=torch.empty(10, 512), num_frames=16, video_width=768, video_encoder=None
        )
    expected = {
        "ich": 0.26,
        "ici": 1.05,
        "temporal": 1.06,
        "ivc.transformation": 1.05,
        "ivc.approximator": 0.79,
        "decoder": 4.21,
    }
    for name, size in expected.items():
        millions = sum(p.numel() for p in model.get_submodule(name).parameters()) / 1e6
        assert millions == pytest.approx(size, abs=0.011), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ("ich", "ich")}, r"stages = \['ich', 'ich'\]: give each of ich, ici, ivc at most once"),
        ({"stages": ("tci",)}, r"stages = \['tci'\]"),
        ({"bases": 3}, "bases = 3 does not divide dim 16: choose a divisor"),
        ({"bases": 0}, "bases is 0"),
        ({"memory_size": 0}, "memory_size is 0"),
        ({"tau_v": 0.0}, "tau_v is 0.0: a temperature must be positive"),
        ({"ivc_align": -1.0}, "ivc_align is -1.0"),
        ({"ivc_align": 1.0, "stages": ("ivc",)}, "both stages must be on"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"qformer_heads": 3}, "qformer_heads 3 does not divide dim 16"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_pcmci_does_not_see_a_removed_scene_and_exchanges_scenes_in_training_alone(
    prompts: Tensor, tokens: Tensor
) -> None:
    removed = build(config(scene="removed"))
    scene = torch.randn(len(tokens), 1, VIDEO_WIDTH, generator=torch.Generator().manual_seed(4))
    before = removed(prompts, frame_tokens=tokens)
    torch.testing.assert_close(removed(prompts, frame_tokens=tokens + scene), before, atol=1e-5, rtol=1e-5)
    kept, exchanged = (build(config(scene=scene, dropout=0.0)) for scene in ("kept", "exchanged"))
    expected = kept.eval()(prompts, frame_tokens=tokens)
    torch.testing.assert_close(exchanged.eval()(prompts, frame_tokens=tokens), expected)
    torch.manual_seed(2)
    assert not torch.allclose(exchanged.train()(prompts, frame_tokens=tokens), expected, atol=1e-4)
