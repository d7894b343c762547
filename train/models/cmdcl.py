"""CMDCL: cross-modal dual-causal learning for long-term action recognition (MM 2025), as in its figure.

    text T ────────────┐
    visual prompts V_P ┴─ TCI (back-door) ─▶ T' ──┬──────────── queries ──┐
                                                  │ mediator              ├─ Q-Former ─ per-class linear ─▶ logits
    frames ─ TimeSformer ─ V ─ temporal ─ V^(H) ─ VCI (front-door) ─▶ V' ─┘ keys and values

The image and text encoders (CLIP) are not part of this module: their frozen features come from the cache. The video
encoder never sees them; that independence is the causal argument. Ablations of the paper's Table 3 are the two
switches `tci` and `vci`. Where the paper is silent, a field's docstring says what was chosen.

Axis letters: n batch, L frames used, C classes, D joint width, d_v width of the video encoder.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from train.causal.backdoor import TextualIntervention
from train.causal.bias_path import BiasSource
from train.causal.evidence import Evidence
from train.causal.frontdoor import ElementwiseTransformation, TemporalEncoder, TemporalLayer, VisualIntervention
from train.causal.joint_space import class_embeddings, unit_prompts
from train.causal.trace import CausalTrace
from train.encoders.timesformer import TimeSformer
from train.models.causal_config import CausalConfig


@dataclass(frozen=True, kw_only=True)
class CMDCLConfig(CausalConfig):
    """Every switch and size of CMDCL; the defaults are the full model."""

    tci: bool = True
    """Textual causal intervention (back-door). Off: T' = T."""
    tau_t: float = 0.01
    """Temperature of TCI's scores. Chosen: the inverse of CLIP's logit scale."""
    tci_b: BiasSource = "video"
    """Which bias TCI corrects by: the video's own (the paper), or, ours, a bank's; see train.causal.bias_path."""
    evidence: bool = False
    """Ours, not the paper's: how well frames match a class's text is added to its logit; see train.causal.evidence."""
    evidence_boost: float = 3.0
    """How many times its fitted gain a match counts."""
    evidence_learning_rate: float = 0.03
    """Of gain and biases of the evidence, whatever the others' is: a gain that has not settled lets scenes in."""
    vci: bool = True
    """Visual causal intervention (front-door). Off: the Q-Former reads V itself, without temporal layers."""
    tau_v: float = 1.0
    """Temperature of VCI's scores. Chosen: layer-normalised inputs have products of order 1."""
    class_chunk: int = 64
    """Classes whose VCI scores are in memory together; changes memory and time, not the result.

    VCI holds at most 12 bytes x D x (class_chunk x L + C + L) for each clip of a forward pass.
    """
    temporal_control: bool = False
    """Only without VCI: the Q-Former reads V^(H), to tell VCI's effect from its temporal layers'."""
    prompt_control: bool = False
    """Only without TCI: V gets CLIP's frame features added, V + W V_P, to tell TCI's effect from having them at all."""
    sta_layers: int = 6
    """Temporal layers H."""
    sta_heads: int = 8
    """Attention heads of a temporal layer."""
    sta_ffn: bool = False
    """A feed-forward layer in each temporal layer. Chosen: none, from the published parameter count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sizes("sta_heads", "class_chunk")
        self._check_heads("sta_heads")
        self._check_temperatures("tau_t", "tau_v")
        if self.sta_layers < 0:
            raise ValueError(f"sta_layers is {self.sta_layers}: it must be 0 or more")
        if self.vci and self.temporal_control:
            raise ValueError("temporal_control is a control for vci = false: switch one of the two off")
        for name in ("evidence_boost", "evidence_learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive")
        if self.tci and self.prompt_control:
            raise ValueError("prompt_control is a control for tci = false: switch one of the two off")


class CMDCL(nn.Module):
    """Visual prompts and frames (or frozen frame tokens) to class logits."""

    def __init__(
        self,
        config: CMDCLConfig,
        *,
        text_embeddings: Tensor,
        num_frames: int,
        video_width: int,
        video_encoder: TimeSformer | None,
    ) -> None:
        """Build the model around the class embeddings.

        Args:
            config: switches and sizes.
            text_embeddings: (C, D), T: where the learned class embeddings start.
            num_frames: L.
            video_width: d_v.
            video_encoder: trained with the rest; None when frame tokens of a frozen one will be given.

        Raises:
            ConfigError: D is not `config.dim`, or the video encoder has another width or frame count.
        """
        super().__init__()
        self.config = config
        self.num_frames = num_frames
        self.text = class_embeddings(text_embeddings, dim=config.dim, trained=config.train_text)
        self.frame_features = config.frame_features(
            num_frames=num_frames, video_width=video_width, video_encoder=video_encoder
        )
        self.tci = _tci(config, len(text_embeddings)) if config.tci else None
        self.prompt_projection = nn.Linear(config.dim, config.dim, bias=False) if config.prompt_control else None
        self.temporal = _temporal(config, num_frames) if config.vci or config.temporal_control else None
        self.vci = _vci(config) if config.vci else None
        self.decoder = config.decoder(len(text_embeddings))
        self.evidence = _evidence(config, text_embeddings) if config.evidence else None

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
        text = self.debias_text(visual_prompts)  # T' (n, C, D)
        visual = self._encode(visual_prompts, frames, frame_tokens)
        if self.vci is not None:
            visual = self.vci(visual, text)  # V' (n, C, D)
        return self._logits(text, visual, visual_prompts)

    def explain(
        self, visual_prompts: Tensor, *, frames: Tensor | None = None, frame_tokens: Tensor | None = None
    ) -> CausalTrace:
        """The logits of `forward` with what led to them; arguments are the same."""
        text = self.debias_text(visual_prompts)
        visual = self._encode(visual_prompts, frames, frame_tokens)
        vci = self.vci
        gathered = visual if vci is None else vci(visual, text)
        return CausalTrace(
            logits=self._logits(text, gathered, visual_prompts),
            text=text,
            back_door=self._text_weights(self._unit_prompts(visual_prompts)),
            is_plan=False,
            front_door=None if vci is None else vci.frame_weights(visual, text),
            relation_graphs=None,
        )

    def _text_weights(self, prompts: Tensor) -> Tensor | None:
        """S of TCI, or of the evidence where that is all that reads CLIP's frames. -> (n, C, L)."""
        if self.tci is not None:
            return self.tci.frame_weights(self.text, prompts)
        return None if self.evidence is None else self.evidence.frame_weights(prompts)

    def debias_text(self, visual_prompts: Tensor) -> Tensor:
        """T' for each video; T itself without TCI. visual_prompts: (n, L, D), in any scale -> (n, C, D)."""
        prompts = self._unit_prompts(visual_prompts)
        if self.tci is None:
            return self.text.expand(len(prompts), -1, -1)
        return self.tci(self.text, prompts)

    def _encode(self, visual_prompts: Tensor, frames: Tensor | None, frame_tokens: Tensor | None) -> Tensor:
        """V^(H), or V without temporal layers: (n, L, D)."""
        visual = self.frame_features(frames=frames, frame_tokens=frame_tokens)  # V (n, L, D)
        if self.prompt_projection is not None:
            visual = visual + self.prompt_projection(self._unit_prompts(visual_prompts))
        return visual if self.temporal is None else self.temporal(visual)

    def evidence_fits(self, visual_prompts: Tensor) -> tuple[Tensor, ...]:
        """Logits (n, C) whose losses fit the evidence; none where it is off. visual_prompts: (n, L, D), any scale."""
        return () if self.evidence is None else self.evidence.fits(self._unit_prompts(visual_prompts))

    def _logits(self, text: Tensor, visual: Tensor, visual_prompts: Tensor) -> Tensor:
        """The Q-Former asks with T' (n, C, D); evidence is added where it is on. -> (n, C)."""
        logits = self.decoder(text, visual)
        return logits if self.evidence is None else logits + self.evidence(self._unit_prompts(visual_prompts))

    def _unit_prompts(self, visual_prompts: Tensor) -> Tensor:
        return unit_prompts(visual_prompts, num_frames=self.num_frames, dim=self.config.dim)


def _tci(config: CMDCLConfig, num_classes: int) -> TextualIntervention:
    path = config.bias_path(config.tci_b, num_classes=num_classes)
    return TextualIntervention(config.dim, temperature=config.tau_t, approximator=config.approx, path=path)


def _evidence(config: CMDCLConfig, text_embeddings: Tensor) -> Evidence:
    return Evidence(text_embeddings, temperature=config.tau_t, boost=config.evidence_boost)


def _temporal(config: CMDCLConfig, num_frames: int) -> TemporalEncoder:
    layers = [
        TemporalLayer(config.dim, config.sta_heads, feed_forward=config.sta_ffn) for _ in range(config.sta_layers)
    ]
    return TemporalEncoder(config.dim, num_frames=num_frames, layers=layers)


def _vci(config: CMDCLConfig) -> VisualIntervention:
    transformation = ElementwiseTransformation(temperature=config.tau_v, class_chunk=config.class_chunk)
    return VisualIntervention(config.dim, transformation=transformation, approximator=config.approx)
