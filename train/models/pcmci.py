"""PCMCI: progressive cross-modal causal intervention (CVPR 2026).

STUB OF THE CONTRACT: the configuration stands, the model is being written.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from train.models.causal_config import CausalConfig

Stage = Literal["ich", "ici", "ivc"]
Aggregation = Literal["concat", "sum", "hadamard"]
Mediator = Literal["text", "memory", "multiscale"]


@dataclass(frozen=True, kw_only=True)
class TransportConfig:
    """Entropic optimal transport between classes and frames (ICH)."""

    eps: float = 0.01
    """Entropic regularisation. Chosen: at 0.1 plans of one video's CLIP features are nearly uniform."""
    iters: int = 50
    """Most Sinkhorn iterations."""
    tolerance: float = 1e-5
    """Iterations stop when the largest error of a marginal is below this."""
    grad: bool = False
    """Differentiate through the plan. Chosen: no; T still learns through the additive path."""

    def __post_init__(self) -> None:
        if not self.eps > 0 or not self.tolerance > 0:
            raise ValueError(f"eps = {self.eps} and tolerance = {self.tolerance} must be positive")
        if self.iters < 1:
            raise ValueError(f"iters = {self.iters}: it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class PCMCIConfig(CausalConfig):
    """Every switch and size of PCMCI; the defaults are the full model. Only a summary of the paper was available."""

    stages: tuple[Stage, ...] = ("ich", "ici", "ivc")
    """Interventions in the order in which they run; leave one out to switch it off."""
    transport: TransportConfig = field(default_factory=TransportConfig)
    """The transport plan of ICH."""
    ich: Literal["add", "concat_mlp"] = "add"
    """How H corrects T: T + LN(H) W_H with W_H = 0 at first, or CMDCL's approximator h([T, H])."""
    ich_weights: Literal["plan", "softmax"] = "plan"
    """What weights the frames: the transport plan, or CMDCL's softmax over frames (with tau_t)."""
    tau_t: float = 0.01
    """Temperature of ich_weights = "softmax"."""
    bases: int = 8
    """Relation bases K, of ICI and of IVC; must divide dim."""
    ici_agg: Aggregation = "concat"
    """How the K relations are joined. Chosen: concatenated, as in multi-head attention."""
    ici_layers: int = 1
    """Relation layers over classes."""
    ici_ffn: bool = False
    """A feed-forward layer in each relation layer over classes."""
    ici_prior: bool = False
    """A learnable prior over the K bases, uniform at first."""
    mediator: Mediator = "text"
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
    """Classes whose elementwise scores are in memory together; changes memory and time, not the result."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [stage for stage in self.stages if stage not in get_args(Stage)]
        if unknown or len(set(self.stages)) != len(self.stages):
            raise ValueError(
                f"stages = {list(self.stages)}: give each of {', '.join(get_args(Stage))} at most once, in any order"
            )
        for name in ("bases", "ici_layers", "ivc_layers", "memory_size", "class_chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.dim % self.bases:
            raise ValueError(f"bases = {self.bases} does not divide dim {self.dim}: choose a divisor, such as 1 or 8")
        self._check_weights()

    def _check_weights(self) -> None:
        for name in ("tau_t", "tau_v"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: a temperature must be positive")
        if self.ivc_align < 0:
            raise ValueError(f"ivc_align is {self.ivc_align}: it must be 0 or more")
        if self.ivc_align and ("ici" not in self.stages or "ivc" not in self.stages):
            raise ValueError("ivc_align compares the graphs of ici and ivc: both stages must be on")
