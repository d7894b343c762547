"""A method as the training loop sees it: streams, model, loss, logits.

A reader may ask why the loss is not simply one of logits: PeVL's is one of the whole batch (every clip against every
text in it), and its class texts go through a tower that is being trained. The loop needs to know neither.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from cache.errors import ConfigError, FingerprintMismatch
from cache.fingerprint import Fingerprint
from cache.store import StreamReader
from cache.text import TextFeatures
from train.clip_set import ClipSet
from train.data import BatchSource
from train.tokens import TokenCache

BatchT = TypeVar("BatchT")
Read = TypeVar("Read", contravariant=True)


class Contrast(Protocol[Read]):
    """A loss of all clips of a step together, cut where clips first meet: at their features."""

    def features(self, model: nn.Module, batch: Read) -> dict[str, Tensor]:
        """What the loss sees of the clips of a batch: tensors (n, ...) by name, each row of its clip alone."""
        ...

    def joint_loss(self, model: nn.Module, features: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """The loss of n clips, a mean over them. features: as above; targets: (n,)."""
        ...


class Method(Protocol[BatchT]):
    """One method with one configuration and one cache, all of it checked."""

    text: TextFeatures
    """The task's text embeddings; their class names are the model's."""
    advice: str
    """What to do when the device runs out of memory."""
    token_cache: TokenCache | None
    """Where the tokens of a frozen encoder are; None where frames are read."""

    @property
    def contrast(self) -> Contrast[BatchT] | None:
        """How the loss is cut where clips are contrasted with each other; None where every clip has its own."""
        ...

    @property
    def readers(self) -> tuple[StreamReader, ...]:
        """Streams in which every clip must have rows."""
        ...

    @property
    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """Of everything that the weights of a run depend on."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """What everything made with it must repeat."""
        ...

    def check_clips(self, clip_sets: Mapping[str, ClipSet]) -> None:
        """Refuses clips whose rows do not fit the configuration."""
        ...

    def sources(
        self, clip_sets: Mapping[str, ClipSet], device: torch.device, *, progress: bool
    ) -> dict[str, BatchSource[BatchT]]:
        """A source of batches for every split; computes first what is missing of cached tokens."""
        ...

    def build_model(self) -> nn.Module:
        """The model as it starts."""
        ...

    def fast_parameters(self, model: nn.Module) -> tuple[Iterable[str], float]:
        """Names of the parameters with a higher learning rate, and how many times the others' it is."""
        ...

    def loss(self, model: nn.Module, batch: BatchT) -> Tensor:
        """The training loss of a batch, a mean over its clips; of a contrast, that of these clips alone."""
        ...

    def predictor(self, model: nn.Module) -> Callable[[BatchT], Tensor]:
        """A function from a batch to logits (n, C); what all batches share is computed here, once."""
        ...


def check_one_model(first: Fingerprint, second: Fingerprint, *, advice: str) -> None:
    """Refuses features of two image-text models: what is compared by cosine must come from one.

    Raises:
        FingerprintMismatch: names the first difference, and `advice`.
    """
    for key in ("name", "weights", "seed", "quick_gelu", "embed_dim", "architecture"):
        found = first.model.get(key), second.model.get(key)
        if found[0] != found[1]:
            raise FingerprintMismatch(
                f"{first.stream} and {second.stream} come from two image-text models (model.{key}: {found[0]!r} and "
                f"{found[1]!r}): {advice}"
            )


def check_widths(widths: Mapping[str, int], *, advice: str) -> None:
    """Refuses parts of different widths. widths: what -> its width."""
    if len(set(widths.values())) > 1:
        listing = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ConfigError(f"widths differ: {listing}. {advice}")


def random_notices(store_notices: Sequence[str], fingerprints: Iterable[Fingerprint]) -> list[str]:
    """Those of a cache's notices that speak of the streams in use."""
    used = {mark.stream for mark in fingerprints}
    return [notice for notice in store_notices if notice.partition(":")[0] in used]
