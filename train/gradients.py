"""The gradient of one optimiser step: over shares of a batch, over processes, and where clips are contrasted.

Losses that are a mean over clips add up: each share's gradient is summed into the parameters, whoever holds it. A loss
that contrasts clips with each other (PeVL's) is one of all of them together, so it is cut at the features: those of
all shares and processes are gathered, the loss is taken once over all, and its gradient at the features is sent back
through each share. With several shares that takes a second forward pass (gradient caching; Gao et al., RepL4NLP 2021),
with the same dropout draws; with one share the first pass's graph is still there.

Axis letters: n clips of a batch, of which a process holds some, in one share or several.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from train.methods.method import Contrast, Method
from train.parallel import Processes
from train.random_state import random_states, restore_random_states
from train.step_clock import StepClock

Features = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Shares:
    """This process's part of one batch.

    Attributes:
        batches: its clips on the host, in as many batches as there are forward passes.
        counts: clips of the batch that each process holds, by rank.
        rank: of this process.
    """

    batches: Iterator[Any]
    counts: list[int]
    rank: int = 0

    @property
    def num_clips(self) -> int:
        """n, over all processes."""
        return sum(self.counts)

    @property
    def is_idle(self) -> bool:
        """Whether this process has no clip of the batch: it computes one for company, and it counts nothing."""
        return self.counts[self.rank] == 0


class Gradients:
    """Fills the gradients of a model, step by step."""

    def __init__(
        self,
        method: Method[Any],
        model: nn.Module,
        device: torch.device,
        *,
        processes: Processes,
        clock: StepClock,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """Args are what every step shares; `autocast` makes the context of forward passes."""
        self._method, self._model, self._device = method, model, device
        self._processes, self._clock, self._autocast = processes, clock, autocast

    def fill(self, shares: Shares) -> Tensor:
        """Sums the gradient of the mean loss over a batch into the parameters, in every process.

        Returns:
            The loss summed over this process's clips, a scalar without a gradient; summed over processes it is the
            batch's.
        """
        contrast = self._method.contrast
        loss = self._fill_separately(shares) if contrast is None else self._fill_together(contrast, shares)
        with self._clock.time("backward"):
            self._processes.sum_gradients(self._model.parameters())
        return loss

    def _batches(self, shares: Shares) -> Iterator[Any]:
        """The shares on the device; the time that they are waited for is `data`."""
        while True:
            with self._clock.time("data"):
                batch = next(shares.batches, None)
                if batch is None:
                    return
                batch = batch.to(self._device)
            yield batch

    def _fill_separately(self, shares: Shares) -> Tensor:
        """Every clip has a loss of its own: shares add up."""
        total = torch.zeros((), device=self._device)
        for batch in self._batches(shares):
            weight = 0 if shares.is_idle else len(batch.targets)
            with self._clock.time("forward"), self._autocast():
                loss = self._method.loss(self._model, batch) * weight
            with self._clock.time("backward"):
                (loss / shares.num_clips).backward()
            total = total + loss.detach()
        return total

    def _fill_together(self, contrast: Contrast[Any], shares: Shares) -> Tensor:
        """One loss of all clips, cut at their features."""
        batches = list(self._batches(shares))
        passes = self._first_passes(contrast, batches)
        leaves, targets = self._everybodys(passes, batches, shares)
        with self._clock.time("forward"), self._autocast():
            loss = contrast.joint_loss(self._model, leaves, targets)
        with self._clock.time("backward"):
            # Every process takes the same loss: a part of it each, for what all share (texts, temperatures).
            (loss / self._processes.count).backward()
        slopes = self._own_slopes(leaves, shares)
        after = random_states() if len(batches) > 1 else None
        start = 0
        for batch, done in zip(batches, passes, strict=True):
            stop = min(start + len(batch.targets), shares.counts[shares.rank])
            part = {name: slope[start:stop] for name, slope in slopes.items()}
            self._send_back(contrast, batch, done, part)
            start = stop
        if after is not None:
            restore_random_states(after)
        return loss.detach() * shares.counts[shares.rank]

    def _first_passes(self, contrast: Contrast[Any], batches: Sequence[Any]) -> "list[_Pass]":
        """Features of every share; with a graph if there is only one."""
        passes = []
        for batch in batches:
            states = random_states() if len(batches) > 1 else None
            with self._clock.time("forward"), torch.set_grad_enabled(states is None), self._autocast():
                passes.append(_Pass(features=contrast.features(self._model, batch), random=states))
        return passes

    def _everybodys(
        self, passes: "Sequence[_Pass]", batches: Sequence[Any], shares: Shares
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Features of all n clips as leaves of a new graph, and their targets (n,)."""
        own = shares.counts[shares.rank]
        gather = self._processes.gather_rows
        leaves = {
            name: gather(torch.cat([done.features[name] for done in passes])[:own], shares.counts).requires_grad_()
            for name in passes[0].features
        }
        targets = torch.cat([batch.targets for batch in batches])[:own]
        if self._processes.count > 1:
            targets = torch.cat(self._processes.gather(targets.cpu())).to(self._device)
        return leaves, targets

    def _own_slopes(self, leaves: Features, shares: Shares) -> dict[str, Tensor]:
        """The gradient at this process's features of the whole loss, of which every process took one part."""
        first = sum(shares.counts[: shares.rank])
        own = slice(first, first + shares.counts[shares.rank])
        return {name: leaf.grad[own] * self._processes.count for name, leaf in leaves.items() if leaf.grad is not None}

    def _send_back(self, contrast: Contrast[Any], batch: Any, done: "_Pass", slopes: Features) -> None:  # noqa: ANN401
        """The gradient at a share's features through the share; computes it again where no graph was kept."""
        features = done.features
        if done.random is not None:
            restore_random_states(done.random)
            with self._clock.time("forward"), self._autocast():
                features = contrast.features(self._model, batch)
        with self._clock.time("backward"):
            names = [name for name in slopes if features[name].requires_grad]
            ends = [features[name][: len(slopes[name])] for name in names]
            if names:
                torch.autograd.backward(ends, [slopes[name] for name in names])


@dataclass(frozen=True)
class _Pass:
    """Features of a share, and torch's generators before it where it must be repeated."""

    features: Features
    random: Mapping[str, Tensor] | None
