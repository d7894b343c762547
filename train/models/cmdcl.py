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

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from cache.errors import ConfigError
from train.causal.approximator import ApproximatorKind
from train.causal.backdoor import TextualIntervention
from train.causal.frontdoor import TemporalEncoder, VisualIntervention
from train.classifier import GroupWiseLinear, LightQFormer
from train.encoders.timesformer import FramePool, TimeSformer, pool_frames


@dataclass(frozen=True, kw_only=True)
class CMDCLConfig:
    """Every switch and size of CMDCL; the defaults are the full model."""

    dim: int = 512
    """Joint width D; must be the width of the text embeddings and visual prompts."""
    tci: bool = True
    """Textual causal intervention (back-door). Off: T' = T."""
    tau_t: float = 0.01
    """Temperature of TCI's scores. Chosen: the inverse of CLIP's logit scale."""
    vci: bool = True
    """Visual causal intervention (front-door). Off: the Q-Former reads V itself, without temporal layers."""
    tau_v: float = 1.0
    """Temperature of VCI's scores. Chosen: layer-normalised inputs have products of order 1."""
    class_chunk: int = 64
    """Classes whose VCI scores are in memory together; changes memory and time, not the result."""
    temporal_control: bool = False
    """Only without VCI: the Q-Former reads V^(H), to tell VCI's effect from its temporal layers'."""
    sta_layers: int = 6
    """Temporal layers H."""
    sta_heads: int = 8
    """Attention heads of a temporal layer."""
    sta_ffn: bool = False
    """A feed-forward layer in each temporal layer. Chosen: none, from the published parameter count."""
    approx: ApproximatorKind = "residual_mlp"
    """Form of the approximators h and g. Chosen: starts at T' = T and V' = v̂."""
    frame_pool: FramePool = "patch_mean"
    """How patch tokens become one vector per frame."""
    qformer_layers: int = 1
    """Layers of the Q-Former. Chosen, with its other sizes, from the published parameter count."""
    qformer_heads: int = 8
    """Attention heads of the Q-Former."""
    qformer_ffn: int = 2048
    """Hidden width of the Q-Former's feed-forward layers."""
    dropout: float = 0.1
    """Dropout in the Q-Former."""
    train_text: bool = True
    """Fine-tune the class embeddings T, which start as the cached text embeddings."""

    def __post_init__(self) -> None:
        for name in ("dim", "sta_heads", "qformer_layers", "qformer_heads", "qformer_ffn", "class_chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("tau_t", "tau_v"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: a temperature must be positive")
        for name in ("sta_heads", "qformer_heads"):
            if self.dim % getattr(self, name):
                raise ValueError(f"{name} {getattr(self, name)} does not divide dim {self.dim}")
        self._check_combination()

    def _check_combination(self) -> None:
        if self.sta_layers < 0:
            raise ValueError(f"sta_layers is {self.sta_layers}: it must be 0 or more")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}: it must lie in [0, 1)")
        if self.vci and self.temporal_control:
            raise ValueError("temporal_control is a control for vci = false: switch one of the two off")


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
        num_classes, dim = text_embeddings.shape
        _check_parts(config, dim, num_frames, video_width, video_encoder)
        self.config = config
        self.num_frames = num_frames
        self.text = nn.Parameter(F.normalize(text_embeddings.detach().float(), dim=-1), requires_grad=config.train_text)
        self.video_encoder = video_encoder
        self.frame_projection = nn.Linear(video_width, dim)
        self.tci = (
            TextualIntervention(dim, temperature=config.tau_t, approximator=config.approx) if config.tci else None
        )
        self.temporal = (
            TemporalEncoder(
                dim,
                num_frames=num_frames,
                layers=config.sta_layers,
                heads=config.sta_heads,
                feed_forward=config.sta_ffn,
            )
            if config.vci or config.temporal_control
            else None
        )
        self.vci = (
            VisualIntervention(
                dim,
                temperature=config.tau_v,
                approximator=config.approx,
                class_chunk=config.class_chunk,
            )
            if config.vci
            else None
        )
        self.qformer = LightQFormer(
            dim,
            layers=config.qformer_layers,
            heads=config.qformer_heads,
            hidden=config.qformer_ffn,
            dropout=config.dropout,
        )
        self.classifier = GroupWiseLinear(num_classes, dim)

    def forward(
        self, visual_prompts: Tensor, *, frames: Tensor | None = None, frame_tokens: Tensor | None = None
    ) -> Tensor:
        """Class logits.

        Args:
            visual_prompts: (n, L, D), V_P, in any scale: normalised here and nowhere else.
            frames: (n, L, 3, H, W), for the video encoder, normalised.
            frame_tokens: (n, L, d_v), pooled tokens of a frozen video encoder, in place of `frames`.

        Returns:
            (n, C).
        """
        self._check_visual_prompts(visual_prompts)
        visual = self.frame_projection(self._frame_tokens(frames, frame_tokens))  # V (n, L, D)
        text = self.debias_text(visual_prompts)  # T' (n, C, D)
        if self.temporal is not None:
            visual = self.temporal(visual)  # V^(H) (n, L, D)
        if self.vci is not None:
            visual = self.vci(visual, text)  # V' (n, C, D)
        return self.classifier(self.qformer(text, visual))

    def debias_text(self, visual_prompts: Tensor) -> Tensor:
        """T' for each video; T itself without TCI. visual_prompts: (n, L, D) -> (n, C, D)."""
        if self.tci is None:
            return self.text.expand(len(visual_prompts), -1, -1)
        return self.tci(self.text, F.normalize(visual_prompts.float(), dim=-1))

    def _frame_tokens(self, frames: Tensor | None, frame_tokens: Tensor | None) -> Tensor:
        """One video-encoder vector per frame, computed or given: (n, L, d_v)."""
        if (frames is None) == (frame_tokens is None):
            raise ValueError("give either frames or frame_tokens, and not both")
        if frame_tokens is not None:
            if frame_tokens.shape[1:] != (self.num_frames, self.frame_projection.in_features):
                raise ValueError(
                    f"frame_tokens have shape {tuple(frame_tokens.shape)}: expected "
                    f"(n, {self.num_frames}, {self.frame_projection.in_features})"
                )
            return frame_tokens
        if self.video_encoder is None:
            raise ValueError("frames were given to a model without a video encoder: give frame_tokens")
        return pool_frames(self.video_encoder(frames), self.num_frames, self.config.frame_pool)

    def _check_visual_prompts(self, visual_prompts: Tensor) -> None:
        if visual_prompts.ndim != 3 or visual_prompts.shape[1:] != (self.num_frames, self.config.dim):
            raise ValueError(
                f"visual_prompts have shape {tuple(visual_prompts.shape)}: expected "
                f"(n, {self.num_frames}, {self.config.dim})"
            )


def _check_parts(
    config: CMDCLConfig, dim: int, num_frames: int, video_width: int, video_encoder: TimeSformer | None
) -> None:
    """Refuse parts that do not fit each other, before any weight is made."""
    if dim != config.dim:
        raise ConfigError(
            f"the text embeddings have width {dim} and the model's dim is {config.dim}: "
            f"set dim = {dim}, or use the cache of another image encoder"
        )
    if video_encoder is None:
        return
    found = (video_encoder.config.width, video_encoder.config.num_frames)
    if found != (video_width, num_frames):
        raise ConfigError(
            f"the video encoder has width {found[0]} for {found[1]} frames; "
            f"the model asks for width {video_width} and {num_frames} frames"
        )
