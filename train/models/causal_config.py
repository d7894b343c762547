"""What CMDCL and PCMCI have in common: joint width, class embeddings, pooling of frames, approximators, decoder.

Both papers print the same classifier around different interventions, so these keys have one meaning and one check, and
the parts that they describe are built here.
"""

from dataclasses import dataclass

from train.causal.approximator import ApproximatorKind
from train.causal.bias_path import BiasPath, BiasSource
from train.causal.scene import SceneMode
from train.classifier import ClassDecoder
from train.encoders.frame_features import FrameFeatures
from train.encoders.timesformer import FramePool, TimeSformer


@dataclass(frozen=True, kw_only=True)
class CausalConfig:
    """The keys that `[train.cmdcl]` and `[train.pcmci]` share."""

    dim: int = 512
    """Joint width D; must be the width of the text embeddings and visual prompts."""
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
    bias_bank: int = 64
    """Training videos in the bank of a `marginal` bias path: C x D numbers each, in memory and in checkpoints."""
    scene: SceneMode = "kept"
    """What becomes of what all frames of V share: kept (the papers), or ours: `removed`, or in training `exchanged` for
    another video's. See train.causal.scene."""

    def __post_init__(self) -> None:
        self._check_sizes("dim", "qformer_layers", "qformer_heads", "qformer_ffn", "bias_bank")
        self._check_heads("qformer_heads")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}: it must lie in [0, 1)")

    def frame_features(self, *, num_frames: int, video_width: int, video_encoder: TimeSformer | None) -> FrameFeatures:
        """The part that turns L frames, or tokens of width d_v, into V; ConfigError if the encoder does not fit."""
        return FrameFeatures(
            self.dim,
            num_frames=num_frames,
            video_width=video_width,
            video_encoder=video_encoder,
            pool=self.frame_pool,
            scene=self.scene,
        )

    def bias_path(self, source: BiasSource, *, num_classes: int) -> BiasPath | None:
        """The part that says which bias corrects a text; None where it is the video's own, as in the papers."""
        return (
            None
            if source == "video"
            else BiasPath(source, num_classes=num_classes, dim=self.dim, bank_size=self.bias_bank)
        )

    def decoder(self, num_classes: int) -> ClassDecoder:
        """The part that turns class queries and visual keys into logits."""
        return ClassDecoder(
            num_classes,
            self.dim,
            layers=self.qformer_layers,
            heads=self.qformer_heads,
            hidden=self.qformer_ffn,
            dropout=self.dropout,
        )

    def _check_sizes(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")

    def _check_heads(self, *names: str) -> None:
        for name in names:
            if self.dim % getattr(self, name):
                raise ValueError(f"{name} {getattr(self, name)} does not divide dim {self.dim}")

    def _check_temperatures(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: a temperature must be positive")
