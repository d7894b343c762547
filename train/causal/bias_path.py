"""Which bias a text is corrected by: the video's own, or one of a bank of other videos.

    video      b_c, what class c gathers from this video's frames; both papers
    marginal   an expectation over a prior of biases, E_b h([t_c, b_c]) with b from the last K training videos: the sum
               of the back-door formula, sum_b P(y | T, b) P(b). Training takes one draw per video, testing the mean

`marginal` is ours. b_c of a video carries two things, evidence for class c and the scene, and a bank hides both from
the text; `train.causal.scene` and `train.causal.evidence` take them apart. A reader may ask why the bank is a buffer of
the model: checkpoints hold it, a continued run equals an uninterrupted one, and a trained model needs no training set.
It starts as zeros, which is no bias.

Axis letters: n batch, L frames used, C classes, D joint width, K entries.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

BiasSource = Literal["video", "marginal"]
Correct = Callable[[Tensor, Tensor], Tensor]


class BiasBank(nn.Module):
    """A ring of what the last K training videos gathered, one vector for each class."""

    entries: Tensor
    """(K, C, D)."""
    place: Tensor
    """Where the next video goes, ()."""

    def __init__(self, num_classes: int, dim: int, *, size: int) -> None:
        super().__init__()
        self.register_buffer("entries", torch.zeros(size, num_classes, dim))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def add(self, gathered: Tensor) -> None:
        """Puts a batch in the place of the oldest entries. gathered: (n, C, D); of more than K the last K stay."""
        size = len(self.entries)
        kept = gathered[-size:].detach().to(self.entries.dtype)
        places = (self.place + torch.arange(len(kept), device=self.place.device)) % size
        self.entries[places] = kept
        self.place.copy_((self.place + len(kept)) % size)

    def draw(self, count: int) -> Tensor:
        """The entries of `count` random videos, (count, C, D), by torch's generator of the CPU."""
        numbers = torch.randint(len(self.entries), (count,))
        return self.entries[numbers.to(self.entries.device)]


class BiasPath(nn.Module):
    """From what the classes gathered to the corrected text; the correction itself is the intervention's."""

    def __init__(self, source: BiasSource, *, num_classes: int, dim: int, bank_size: int) -> None:
        super().__init__()
        if source not in get_args(BiasSource):
            raise ValueError(f"bias source {source!r} is unknown: use one of {get_args(BiasSource)}")
        self.bank = BiasBank(num_classes, dim, size=bank_size) if source == "marginal" else None

    def forward(self, text: Tensor, gathered: Tensor, correct: Correct) -> Tensor:
        """Corrected text.

        Args:
            text: (C, D) or (n, C, D).
            gathered: (n, C, D), frames weighted by class.
            correct: from a text and a bias (n, C, D) or (C, D) to a corrected text.

        Returns:
            (n, C, D).
        """
        if self.bank is None:
            return correct(text, gathered)
        if self.training:
            self.bank.add(gathered)
            return correct(text, self.bank.draw(len(gathered)))
        total = torch.zeros_like(gathered)
        for entry in self.bank.entries:  # one at a time: all K at once would take K times the memory
            total = total + correct(text, entry)
        return total / len(self.bank.entries)
