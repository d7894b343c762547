"""Back-door adjustment on the text side: CMDCL's TCI (Eq. 2-3), and PCMCI's ICH and ICI.

A vision-language model's text embeddings carry biases from its training captions. The adjustment stratifies over what
the frozen image encoder sees in this video: each class gathers frames, and the text is corrected by what was gathered.
TCI lets each class choose its frames alone; ICH makes classes and frames share by optimal transport. Scores are
cosines: raw dot products of CLIP vectors saturate the softmax. ICI needs no code here: it is `Relations` over classes.

Axis letters: n batch, L frames used, C classes, D joint width.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from train.causal.approximator import Approximator, ApproximatorKind
from train.causal.bias_path import BiasPath
from train.causal.joint_space import frame_cosines
from train.causal.transport import TransportConfig, transport_plan

Correction = Literal["add", "concat_mlp"]
FrameWeights = Literal["plan", "softmax"]


def bias_scores(text: Tensor, visual_prompts: Tensor, temperature: float) -> Tensor:
    """How strongly each class's text favours each frame, S of Eq. 2; rows over frames sum to 1.

    Args:
        text: (C, D) or (n, C, D), T.
        visual_prompts: (n, L, D), V_P, the frozen image encoder's embeddings, of length 1.
        temperature: tau; 0.01 is CLIP's own logit scale of 100.

    Returns:
        (n, C, L), fp32 also under autocast.
    """
    return (frame_cosines(text, visual_prompts) / temperature).softmax(dim=-1)


def gather_bias(scores: Tensor, visual_prompts: Tensor) -> Tensor:
    """Bias embeddings B of Eq. 3: per class, the frames weighted by its scores.

    Args:
        scores: (n, C, L).
        visual_prompts: (n, L, D).

    Returns:
        (n, C, D), fp32 also under autocast.
    """
    with torch.autocast(visual_prompts.device.type, enabled=False):
        return scores.float() @ visual_prompts.float()


class TextualIntervention(nn.Module):
    """TCI: text T and visual prompts V_P to debiased text T' (CMDCL, Eq. 2-3)."""

    def __init__(
        self, dim: int, *, temperature: float, approximator: ApproximatorKind, path: BiasPath | None = None
    ) -> None:
        """Build the intervention.

        Args:
            dim: D.
            temperature: tau of the scores.
            approximator: form of h.
            path: which bias corrects the text; None: the video's own.
        """
        super().__init__()
        self.temperature = temperature
        self.path = path
        self.approximator = Approximator(dim, approximator)

    def forward(self, text: Tensor, visual_prompts: Tensor) -> Tensor:
        """text: (C, D) or (n, C, D), visual_prompts: (n, L, D) of length 1 -> (n, C, D)."""
        bias = gather_bias(self.frame_weights(text, visual_prompts), visual_prompts)
        if self.path is None:
            return self._corrected(text, bias)
        return self.path(text, bias, self._corrected)

    def _corrected(self, text: Tensor, bias: Tensor) -> Tensor:
        """h([T, B])."""
        return self.approximator(text, bias, residual=text)

    def frame_weights(self, text: Tensor, visual_prompts: Tensor) -> Tensor:
        """S of Eq. 2. text: (C, D) or (n, C, D), visual_prompts: (n, L, D) of length 1 -> (n, C, L)."""
        return bias_scores(text, visual_prompts, self.temperature)


class TransportIntervention(nn.Module):
    """ICH: text and visual prompts to corrected text T' (PCMCI; equations are ours, from a summary of the paper)."""

    def __init__(
        self,
        dim: int,
        *,
        correction: Correction,
        weights: FrameWeights,
        transport: TransportConfig,
        temperature: float,
        approximator: ApproximatorKind,
        path: BiasPath | None = None,
    ) -> None:
        """Build the stage.

        Args:
            dim: D.
            correction: `add` is T + LN(H) W_H with W_H = 0 at first, `concat_mlp` is TCI's h([T, H]).
            weights: `plan` weights frames by optimal transport, `softmax` as TCI does.
            transport: settings of the plan.
            temperature: tau of the softmax.
            approximator: form of h.
            path: which H corrects the text; None: the video's own.
        """
        super().__init__()
        if correction not in get_args(Correction) or weights not in get_args(FrameWeights):
            raise ValueError(f"correction {correction!r} or weights {weights!r} is unknown")
        self.weights: FrameWeights = weights
        self.path = path
        self.transport = transport
        self.temperature = temperature
        is_added = correction == "add"
        self.approximator = None if is_added else Approximator(dim, approximator)
        self.norm = nn.LayerNorm(dim) if is_added else None
        self.projection = nn.Linear(dim, dim, bias=False) if is_added else None  # W_H
        if self.projection is not None:
            nn.init.zeros_(self.projection.weight)

    def forward(self, text: Tensor, visual_prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Correct the text by what each class gathers.

        Args:
            text: (C, D) or (n, C, D).
            visual_prompts: (n, L, D), of length 1.

        Returns:
            T' (n, C, D), and the weights of frames (n, C, L), whose rows sum to 1: C times the plan, or the softmax.
        """
        weights = self._frame_weights(text, visual_prompts)
        gathered = gather_bias(weights, visual_prompts)  # H (n, C, D)
        if self.path is None:
            return self._corrected(text, gathered), weights
        return self.path(text, gathered, self._corrected), weights

    def _corrected(self, text: Tensor, gathered: Tensor) -> Tensor:
        """T + LN(H) W_H, or h([T, H])."""
        if self.approximator is not None:
            return self.approximator(text, gathered, residual=text)
        assert self.norm is not None
        assert self.projection is not None
        return text + self.projection(self.norm(gathered))

    def _frame_weights(self, text: Tensor, visual_prompts: Tensor) -> Tensor:
        if self.weights == "softmax":
            return bias_scores(text, visual_prompts, self.temperature)
        settings = self.transport
        with torch.set_grad_enabled(settings.grad and torch.is_grad_enabled()):
            plan = transport_plan(
                frame_cosines(text, visual_prompts),
                eps=settings.eps,
                iters=settings.iters,
                tolerance=settings.tolerance,
            )
        return plan * plan.shape[1]
