"""What CMDCL and PCMCI have in common: joint width, class embeddings, pooling of frames, approximators, decoder.

Both papers print the same classifier around different interventions, so these keys have one meaning and one check.
"""

from dataclasses import dataclass

from train.causal.approximator import ApproximatorKind
from train.encoders.timesformer import FramePool


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

    def __post_init__(self) -> None:
        for name in ("dim", "qformer_layers", "qformer_heads", "qformer_ffn"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.dim % self.qformer_heads:
            raise ValueError(f"qformer_heads {self.qformer_heads} does not divide dim {self.dim}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}: it must lie in [0, 1)")
