"""What the interventions of CMDCL and PCMCI did with a batch, in one form for both: for whoever looks at it.

`forward` of the models never makes one: it costs memory that training has better uses for.

Axis letters: n batch, L frames used, C classes, D joint width, K bases.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CausalTrace:
    """Logits and what led to them; None where a stage is off."""

    logits: Tensor
    """(n, C), those of `forward`."""
    text: Tensor
    """The text that asks the frames: T, T' or T*, (n, C, D)."""
    back_door: Tensor | None
    """How each class's text weighs frames, (n, C, L), rows sum to 1: TCI's or evidence's S, or ICH's plan times C."""
    is_plan: bool
    """Whether `back_door` comes from a transport plan: then every frame has the same sum too, C / L."""
    front_door: Tensor | None
    """How each class weighs frames, (n, C, L), rows sum to 1: VCI's S^F or IVC's attention, averaged."""
    relation_graphs: Tensor | None
    """G_k of ICI's last layer, (n, K, C, C), rows sum to 1."""
