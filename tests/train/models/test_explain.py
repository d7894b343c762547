"""What CMDCL and PCMCI say of themselves: the logits of `forward`, and the very weights that made them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tests.train.models.small_models import (
    CLASSES,
    FRAMES,
    VIDEO_WIDTH,
    VIDEOS,
    WIDTH,
    scramble,
    some_prompts,
    some_tokens,
    video_encoder,
)
from train.causal import backdoor, frontdoor
from train.causal.frontdoor import fine_scores
from train.causal.transport import TransportConfig
from train.models.cmdcl import CMDCL, CMDCLConfig
from train.models.pcmci import PCMCI, PCMCIConfig

TEXT = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(3))
SIZES: dict[str, Any] = {"dim": WIDTH, "qformer_heads": 2, "qformer_ffn": 8}


def cmdcl(**changes: Any) -> CMDCL:  # noqa: ANN401 (fields of CMDCLConfig)
    config = CMDCLConfig(**SIZES, sta_heads=2, sta_layers=2, class_chunk=2, **changes)
    return _ready(CMDCL(config, text_embeddings=TEXT, num_frames=FRAMES, video_width=VIDEO_WIDTH, video_encoder=None))


def pcmci(**changes: Any) -> PCMCI:  # noqa: ANN401 (fields of PCMCIConfig)
    config = PCMCIConfig(**SIZES, bases=4, **changes)
    return _ready(PCMCI(config, text_embeddings=TEXT, num_frames=FRAMES, video_width=VIDEO_WIDTH, video_encoder=None))


def _ready(model: Any) -> Any:  # noqa: ANN401 (either model)
    torch.manual_seed(0)
    scramble(model)
    return model.eval()


def recorded(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Tensor]:  # noqa: ANN401 (a module)
    """The first arguments that a function of a module is called with from now on."""
    plain: Callable[..., Tensor] = getattr(module, name)
    seen: list[Tensor] = []

    def spy(first: Tensor, *others: Any, **options: Any) -> Tensor:  # noqa: ANN401
        seen.append(first)
        return plain(first, *others, **options)

    monkeypatch.setattr(module, name, spy)
    return seen


@pytest.mark.parametrize(
    "build",
    [
        cmdcl,
        lambda: cmdcl(tci=False),
        lambda: cmdcl(vci=False),
        lambda: cmdcl(vci=False, temporal_control=True),
        pcmci,
        lambda: pcmci(stages=("ivc", "ici", "ich")),
        lambda: pcmci(stages=()),
        lambda: pcmci(ivc="elementwise", ich_weights="softmax", ich="concat_mlp"),
    ],
)
def test_explaining_gives_the_logits_of_forward_and_weights_that_sum_to_one(build: Callable[[], Any]) -> None:
    model = build()
    trace = model.explain(some_prompts(), frame_tokens=some_tokens())
    assert torch.equal(trace.logits, model(some_prompts(), frame_tokens=some_tokens()))
    assert torch.equal(trace.text, model.debias_text(some_prompts()))
    stages = getattr(model.config, "stages", None)
    has_back = model.config.tci if stages is None else "ich" in stages
    has_front = model.config.vci if stages is None else "ivc" in stages
    assert (trace.back_door is not None) == has_back
    assert (trace.front_door is not None) == has_front
    assert (trace.relation_graphs is not None) == ("ici" in (stages or ()))
    for weights in (trace.back_door, trace.front_door):
        if weights is not None:
            assert weights.shape == (VIDEOS, CLASSES, FRAMES)
            assert torch.all(weights >= 0)
            torch.testing.assert_close(weights.sum(dim=-1), torch.ones(VIDEOS, CLASSES))


def test_the_back_door_is_what_the_model_gathered_frames_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for model in (cmdcl(), pcmci()):
        seen = recorded(monkeypatch, backdoor, "gather_bias")
        model(some_prompts(), frame_tokens=some_tokens())
        (used,) = seen
        trace = model.explain(some_prompts(), frame_tokens=some_tokens())
        assert trace.back_door is not None
        assert torch.equal(trace.back_door, used)


def test_a_plan_gives_every_frame_the_same_and_scores_do_not() -> None:
    model = pcmci(transport=TransportConfig(eps=0.1, iters=500))
    trace = model.explain(some_prompts(), frame_tokens=some_tokens())
    assert trace.is_plan
    assert trace.back_door is not None
    plan = trace.back_door / CLASSES
    torch.testing.assert_close(plan.sum(dim=1), torch.full((VIDEOS, FRAMES), 1 / FRAMES), atol=1e-4, rtol=0)
    stated = model.trace(some_prompts(), frame_tokens=some_tokens()).plan
    assert stated is not None
    assert torch.equal(plan, stated)
    scores = cmdcl().explain(some_prompts(), frame_tokens=some_tokens())
    assert not scores.is_plan
    assert scores.back_door is not None
    assert (scores.back_door.sum(dim=1) / CLASSES - 1 / FRAMES).abs().max() > 0.01


def test_the_front_door_is_the_mean_of_the_scores_that_average_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cmdcl()
    seen = recorded(monkeypatch, frontdoor, "_emphasise_chunk")
    with torch.no_grad():
        trace = model.explain(some_prompts(), frame_tokens=some_tokens())
    visual = seen[0]  # V^(H)
    expected = fine_scores(visual, trace.text, model.config.tau_v).mean(dim=-1)
    assert trace.front_door is not None
    torch.testing.assert_close(trace.front_door, expected)


def test_the_front_door_of_relations_is_the_attention_that_reads_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the values themselves: one-hot values let the attention come out as what is read."""
    model = pcmci()
    read: list[Tensor] = []
    plain = F.scaled_dot_product_attention

    def spy(queries: Tensor, keys: Tensor, values: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
        if queries.shape[-2:] == (CLASSES, WIDTH // 4) and keys.shape[-2] == FRAMES:
            one_hot = torch.eye(FRAMES).expand(*keys.shape[:2], -1, -1)
            read.append(plain(queries, keys, one_hot, **options).mean(dim=1))
        return plain(queries, keys, values, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    trace = model.explain(some_prompts(), frame_tokens=some_tokens())
    assert trace.front_door is not None
    torch.testing.assert_close(trace.front_door, read[0])


def test_relation_graphs_have_rows_of_one_and_are_those_of_the_trace() -> None:
    model = pcmci(ici_layers=2)
    graphs = model.explain(some_prompts(), frame_tokens=some_tokens()).relation_graphs
    stated = model.trace(some_prompts(), frame_tokens=some_tokens()).text_graphs
    assert graphs is not None
    assert stated is not None
    assert torch.equal(graphs, stated)
    torch.testing.assert_close(graphs.sum(dim=-1), torch.ones(VIDEOS, 4, CLASSES))


def test_looking_changes_no_token_and_gives_the_attention_of_the_last_block() -> None:
    encoder = video_encoder()
    torch.manual_seed(4)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    frames = torch.randn(VIDEOS, FRAMES, 3, 16, 16)
    inputs: list[Tensor] = []
    last: Any = encoder.blocks[-1]
    last.attn.register_forward_hook(lambda _module, given, _result: inputs.append(given[0]))
    encoder.eval()
    tokens, attention = encoder.look(frames)
    assert torch.equal(tokens, encoder(frames))
    sequences = inputs[0]  # (n * L, 1 + P, d)
    queries, keys, _ = (part.unflatten(-1, (4, -1)) for part in last.attn.qkv(sequences).chunk(3, dim=-1))
    scores = torch.einsum("nhd,nshd->nhs", queries[:, 0], keys) * (VIDEO_WIDTH // 4) ** -0.5
    expected = scores.softmax(dim=-1)[..., 1:].mean(dim=1).unflatten(0, (VIDEOS, FRAMES))
    assert attention.shape == (VIDEOS, FRAMES, 4)
    torch.testing.assert_close(attention, expected)
    assert torch.all(attention.sum(dim=-1) < 1)
