"""PCMCI: progressive cross-modal causal intervention (CVPR 2026). Only a summary of the paper was available.

    text T ──────────────┐
    visual prompts V_P ──┴─ ICH (transport) ─▶ T' ─ ICI (relations) ─▶ T* ──┬───── queries ──────┐
                                  back-door            back-door            │ mediator M         ├─ decoder ─▶ logits
    frames ─ TimeSformer ─ V ─ relations over frames F ─ V_F ─ IVC (front-door) ─▶ V* ───────────┘ keys and values

The summary gives the stages, their order, entropic optimal transport, K = 8 relation bases, T* as mediator and query
and V* as keys and values; every equation beyond that is our reading. Stages run in the order of `stages` over a state
of text and video: with IVC first, the mediator is T itself and later text stages change the queries alone. Without any
stage this is CMDCL without its interventions; what both share (frame features, class embeddings, decoder) is written
once. As in CMDCL, CLIP's frozen features come from the cache and the video encoder never sees them.

Axis letters: n batch, L frames used, C classes, D joint width, d_v width of the video encoder, K bases.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from train.causal.backdoor import Correction, FrameWeights, TransportIntervention
from train.causal.bias_path import BiasSource
from train.causal.frontdoor import (
    ElementwiseTransformation,
    RelationTransformation,
    TemporalEncoder,
    VisualIntervention,
)
from train.causal.joint_space import class_embeddings, unit_prompts
from train.causal.mediator import Mediator, MediatorKind
from train.causal.relations import Aggregation, RelationLayer, Relations
from train.causal.trace import CausalTrace
from train.causal.transport import TransportConfig
from train.encoders.timesformer import TimeSformer
from train.models.causal_config import CausalConfig

Stage = Literal["ich", "ici", "ivc"]


@dataclass(frozen=True, kw_only=True)
class PCMCIConfig(CausalConfig):
    """Every switch and size of PCMCI; the defaults are the full model. Only a summary of the paper was available."""

    stages: tuple[Stage, ...] = ("ich", "ici", "ivc")
    """Interventions in the order in which they run; leave one out to switch it off."""
    transport: TransportConfig = field(default_factory=TransportConfig)
    """The transport plan of ICH."""
    ich: Correction = "add"
    """How H corrects T: T + LN(H) W_H with W_H = 0 at first, or CMDCL's approximator h([T, H])."""
    ich_weights: FrameWeights = "plan"
    """What weights the frames: the transport plan, or CMDCL's softmax over frames (with tau_t)."""
    tau_t: float = 0.01
    """Temperature of ich_weights = "softmax"."""
    ich_b: BiasSource = "video"
    """Which H corrects T: the video's own, or, ours, a bank's; see train.causal.bias_path."""
    bases: int = 8
    """Relation bases K, of ICI and of IVC; must divide dim."""
    ici_agg: Aggregation = "concat"
    """How the K relations are joined, in ICI and in IVC's layers. Chosen: concatenated, as in multi-head attention."""
    ici_layers: int = 1
    """Relation layers over classes."""
    ici_ffn: bool = False
    """A feed-forward layer in each relation layer over classes."""
    ici_prior: bool = False
    """A learnable prior over the K bases of ICI, uniform at first."""
    mediator: MediatorKind = "text"
    """M of IVC: the text T*, a learnable visual memory bank that T* reads, or T* reading frames at several scales."""
    memory_size: int = 64
    """Entries of the bank of mediator = "memory". Chosen."""
    ivc: Literal["relation", "elementwise"] = "relation"
    """Conditional transformation of IVC: attention of each basis, or CMDCL's elementwise VCI (with tau_v)."""
    ivc_layers: int = 1
    """Relation layers over frames (F, of the same form as R)."""
    ivc_align: float = 0.0
    """Weight of the loss that aligns the visual relation graphs with the textual ones. Chosen: off."""
    tau_v: float = 1.0
    """Temperature of ivc = "elementwise"."""
    class_chunk: int = 64
    """Classes whose elementwise scores are in memory together, as CMDCL's; changes memory and time, not the result."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [stage for stage in self.stages if stage not in get_args(Stage)]
        if unknown or len(set(self.stages)) != len(self.stages):
            raise ValueError(
                f"stages = {list(self.stages)}: give each of {', '.join(get_args(Stage))} at most once, in any order"
            )
        self._check_sizes("bases", "ici_layers", "ivc_layers", "memory_size", "class_chunk")
        if self.dim % self.bases:
            raise ValueError(f"bases = {self.bases} does not divide dim {self.dim}: choose a divisor, such as 1 or 8")
        self._check_temperatures("tau_t", "tau_v")
        if self.ivc_align < 0:
            raise ValueError(f"ivc_align is {self.ivc_align}: it must be 0 or more")
        if self.ivc_align and ("ici" not in self.stages or "ivc" not in self.stages):
            raise ValueError("ivc_align compares the graphs of ici and ivc: both stages must be on")


@dataclass(frozen=True, kw_only=True)
class State:
    """What the stages hand on, and what a report may look at afterwards."""

    text: Tensor
    """T, T' or T*: (n, C, D)."""
    video: Tensor
    """V (n, L, D) before IVC, V* (n, C, D) after it."""
    frame_weights: Tensor | None = None
    """ICH's weights, (n, C, L), rows sum to 1."""
    related: Tensor | None = None
    """What ICI read, (n, C, D)."""
    gathered: Tensor | None = None
    """V' of IVC, before the approximator, (n, C, D)."""
    mediator: Tensor | None = None
    """M of IVC, (n, C, D)."""
    encoded: Tensor | None = None
    """V_F, the frames that IVC reads, (n, L, D)."""


@dataclass(frozen=True, kw_only=True)
class PCMCITrace:
    """Logits and what led to them."""

    logits: Tensor
    """(n, C)."""
    plan: Tensor | None
    """Transport plan, (n, C, L), rows sum to 1 / C; None without ICH or with ich_weights = "softmax"."""
    text_graphs: Tensor | None
    """Relation graphs G_k of ICI's last layer, (n, K, C, C), without gradient; None without ICI."""
    alignment: Tensor | None
    """mean_k ||G^V_k - G_k||_F^2, averaged over the batch, not yet times ivc_align; None where ivc_align = 0."""


class PCMCI(nn.Module):
    """Visual prompts and frames (or frozen frame tokens) to class logits."""

    def __init__(
        self,
        config: PCMCIConfig,
        *,
        text_embeddings: Tensor,
        num_frames: int,
        video_width: int,
        video_encoder: TimeSformer | None,
    ) -> None:
        """Build the model around the class embeddings; arguments and errors are CMDCL's."""
        super().__init__()
        self.config = config
        self.num_frames = num_frames
        self.text = class_embeddings(text_embeddings, dim=config.dim, trained=config.train_text)
        self.frame_features = config.frame_features(
            num_frames=num_frames, video_width=video_width, video_encoder=video_encoder
        )
        self.ich = _ich(config, len(text_embeddings)) if "ich" in config.stages else None
        self.ici = _ici(config) if "ici" in config.stages else None
        self.mediator, self.temporal, self.ivc = None, None, None
        if "ivc" in config.stages:
            self.mediator = Mediator(config.dim, config.mediator, heads=config.bases, memory_size=config.memory_size)
            self.temporal = _temporal(config, num_frames)
            self.ivc = _ivc(config)
        self.decoder = config.decoder(len(text_embeddings))

    def forward(
        self, visual_prompts: Tensor, *, frames: Tensor | None = None, frame_tokens: Tensor | None = None
    ) -> Tensor:
        """Class logits.

        Args:
            visual_prompts: (n, L, D), V_P, in any scale.
            frames: (n, L, 3, H, W), for the video encoder, normalised.
            frame_tokens: (n, L, d_v), pooled tokens of a frozen video encoder, in place of `frames`.

        Returns:
            (n, C).
        """
        state = self.intervene(visual_prompts, frames=frames, frame_tokens=frame_tokens)
        return self.decoder(state.text, state.video)

    def trace(
        self, visual_prompts: Tensor, *, frames: Tensor | None = None, frame_tokens: Tensor | None = None
    ) -> PCMCITrace:
        """Logits with the plan, the graphs and the alignment; arguments are those of `forward`."""
        state = self.intervene(visual_prompts, frames=frames, frame_tokens=frame_tokens)
        graphs = self._text_graphs(state)
        return PCMCITrace(
            logits=self.decoder(state.text, state.video),
            plan=self._plan(state),
            text_graphs=graphs,
            alignment=self._alignment(state, graphs),
        )

    def explain(
        self, visual_prompts: Tensor, *, frames: Tensor | None = None, frame_tokens: Tensor | None = None
    ) -> CausalTrace:
        """The logits of `forward` with what led to them; arguments are the same."""
        state = self.intervene(visual_prompts, frames=frames, frame_tokens=frame_tokens)
        front_door = None
        if self.ivc is not None and state.encoded is not None and state.mediator is not None:
            front_door = self.ivc.frame_weights(state.encoded, state.mediator)
        return CausalTrace(
            logits=self.decoder(state.text, state.video),
            text=state.text,
            back_door=state.frame_weights,
            is_plan=self.config.ich_weights == "plan",
            front_door=front_door,
            relation_graphs=self._text_graphs(state),
        )

    def debias_text(self, visual_prompts: Tensor) -> Tensor:
        """T* for each video, which no frame of the video encoder touches. (n, L, D), in any scale -> (n, C, D)."""
        prompts = unit_prompts(visual_prompts, num_frames=self.num_frames, dim=self.config.dim)
        state = State(text=self.text.expand(len(prompts), -1, -1), video=prompts)
        for stage in self.config.stages:
            if stage != "ivc":
                state = self._adjust_text(state, prompts) if stage == "ich" else self._relate_text(state)
        return state.text

    def intervene(
        self, visual_prompts: Tensor, *, frames: Tensor | None = None, frame_tokens: Tensor | None = None
    ) -> State:
        """The state after all stages; arguments are those of `forward`."""
        prompts = unit_prompts(visual_prompts, num_frames=self.num_frames, dim=self.config.dim)
        visual = self.frame_features(frames=frames, frame_tokens=frame_tokens)  # V (n, L, D)
        state = State(text=self.text.expand(len(prompts), -1, -1), video=visual)
        for stage in self.config.stages:
            if stage == "ich":
                state = self._adjust_text(state, prompts)
            elif stage == "ici":
                state = self._relate_text(state)
            else:
                state = self._adjust_video(state)
        return state

    def _adjust_text(self, state: State, prompts: Tensor) -> State:
        assert self.ich is not None
        text, weights = self.ich(state.text, prompts)
        return replace(state, text=text, frame_weights=weights)

    def _relate_text(self, state: State) -> State:
        assert self.ici is not None
        return replace(state, text=self.ici(state.text), related=state.text)

    def _adjust_video(self, state: State) -> State:
        """IVC; `state.video` is still V, for it runs once."""
        assert self.mediator is not None
        assert self.temporal is not None
        assert self.ivc is not None
        mediator = self.mediator(state.text, state.video)  # M (n, C, D)
        encoded = self.temporal(state.video)  # V_F (n, L, D)
        gathered = self.ivc.transform(encoded, mediator)  # V' (n, C, D)
        video = self.ivc.deconfound(mediator, gathered)
        return replace(state, video=video, gathered=gathered, mediator=mediator, encoded=encoded)

    def _plan(self, state: State) -> Tensor | None:
        if state.frame_weights is None or self.config.ich_weights != "plan":
            return None
        return state.frame_weights / len(self.text)

    def _text_graphs(self, state: State) -> Tensor | None:
        if self.ici is None or state.related is None:
            return None
        with torch.no_grad():
            return self.ici.graphs(state.related)

    def _alignment(self, state: State, text_graphs: Tensor | None) -> Tensor | None:
        if not self.config.ivc_align:
            return None
        assert self.ici is not None
        assert state.gathered is not None
        assert text_graphs is not None
        difference = self.ici.graphs(state.gathered) - text_graphs
        return difference.square().sum(dim=(2, 3)).mean()


def _ich(config: PCMCIConfig, num_classes: int) -> TransportIntervention:
    return TransportIntervention(
        config.dim,
        correction=config.ich,
        weights=config.ich_weights,
        transport=config.transport,
        temperature=config.tau_t,
        approximator=config.approx,
        path=config.bias_path(config.ich_b, num_classes=num_classes),
    )


def _ici(config: PCMCIConfig) -> Relations:
    return Relations(
        RelationLayer(
            config.dim,
            config.bases,
            aggregation=config.ici_agg,
            prior=config.ici_prior,
            feed_forward=config.ici_ffn,
        )
        for _ in range(config.ici_layers)
    )


def _temporal(config: PCMCIConfig, num_frames: int) -> TemporalEncoder:
    layers = [
        RelationLayer(config.dim, config.bases, aggregation=config.ici_agg, prior=False, feed_forward=False)
        for _ in range(config.ivc_layers)
    ]
    return TemporalEncoder(config.dim, num_frames=num_frames, layers=layers)


def _ivc(config: PCMCIConfig) -> VisualIntervention:
    transformation = (
        RelationTransformation(config.dim, config.bases)
        if config.ivc == "relation"
        else ElementwiseTransformation(temperature=config.tau_v, class_chunk=config.class_chunk)
    )
    return VisualIntervention(config.dim, transformation=transformation, approximator=config.approx)
