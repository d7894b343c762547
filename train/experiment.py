"""All that one run needs, checked before the first epoch: task, text, clips of every split, streams, weights, model.

A training run that dies after a night because a test clip has no label, or that trains on embeddings of another CLIP
than its texts, is the failure this file exists for. Nothing here computes; `sources` is where tokens may be made.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cache.errors import ConfigError
from cache.fingerprint import Fingerprint
from cache.manifest import Dataset, Task
from cache.store import FeatureStore
from train.clip_set import ClipSet, select_clips
from train.config import TrainConfig
from train.data import BatchSource
from train.methods.causal import CausalMethod, find_video_encoder
from train.methods.method import Method
from train.residency import settle


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A dataset, a cache and a configuration that fit each other."""

    config: TrainConfig
    dataset: Dataset
    store: FeatureStore
    task: Task
    method: Method[Any]
    clip_sets: Mapping[str, ClipSet]
    token_root: Path | None

    @classmethod
    def open(
        cls,
        dataset: Dataset,
        cache: Path,
        config: TrainConfig,
        *,
        splits: Iterable[str],
        token_root: Path | None = None,
        stored: Mapping[str, Fingerprint] | None = None,
        labelled: bool = True,
    ) -> "Experiment":
        """Opens and checks everything.

        Args:
            dataset: the manifest.
            cache: the feature cache.
            config: the configuration.
            splits: the splits that will be read.
            token_root: folder of a frozen encoder's tokens; by default CACHE/video_tokens or CACHE/image_tokens.
            stored: fingerprints of a trained run, by stream: what they know is not looked up again.
            labelled: use only clips with a label for the task; else all, with targets that mean nothing.

        Raises:
            DeconfoundError: whatever does not fit, and what to do about it.
        """
        task, store = dataset.task(config.task), FeatureStore.open(cache)
        if task.kind == "single" and task.num_classes < 2:
            raise ConfigError(
                f"task {task.name!r} has one class, {task.class_names[0]!r}: there is nothing to tell apart; give it "
                "two classes or more"
            )
        method = _open_method(store, task, config, token_root, stored or {})
        clip_sets = {
            split: select_clips(dataset, task, config.protocol, split, method.readers, labelled=labelled)
            for split in dict.fromkeys(splits)
        }
        method.check_clips(clip_sets)
        _check_validation(config, clip_sets)
        return cls(
            config=config,
            dataset=dataset,
            store=store,
            task=task,
            method=method,
            clip_sets=clip_sets,
            token_root=token_root,
        )

    @property
    def fingerprints(self) -> Mapping[str, Fingerprint]:
        """Of everything that the weights of the run depend on, by stream."""
        return {mark.stream: mark for mark in self.method.fingerprints}

    @property
    def notices(self) -> tuple[str, ...]:
        """What everything made from this must repeat."""
        return self.method.notices

    def sources(
        self, device: torch.device, *, progress: bool, for_training: bool = True
    ) -> dict[str, BatchSource[Any]]:
        """A source of batches for every split; computes missing tokens of a frozen encoder first.

        Args:
            device: where batches are needed.
            progress: show a progress bar while tokens are computed.
            for_training: move what is read in every epoch to where train.features wants it.
        """
        sources = self.method.sources(self.clip_sets, device, progress=progress)
        for source in sources.values():
            source.device = device
        if for_training:
            repeated = {self.config.train_split: True, self.config.validation_split: False}
            found = (sources[name].tables(training=training) for name, training in repeated.items() if name in sources)
            settle(itertools.chain(*found), self.config.features, device)
        return sources

    def of_splits(self, splits: Iterable[str]) -> "Experiment":
        """The same experiment with other splits opened."""
        return Experiment.open(
            self.dataset,
            self.store.folder,
            self.config,
            splits=splits,
            token_root=self.token_root,
            stored=self.fingerprints,
        )

    @property
    def run_notices(self) -> tuple[str, ...]:
        """What the run directory says on top of everything: `notices`, what training skipped, how the best was chosen.

        What prediction skips is with the predictions: it may change until they are made.
        """
        trained = [clip_set for split, clip_set in self.clip_sets.items() if split not in self.config.predict_splits]
        skipped = [clip_set.notice for clip_set in trained if clip_set.skipped]
        chosen = [chosen_on(split) for split in self.config.predict_splits if split == self.config.validation_split]
        return (*self.notices, *skipped, *chosen)

    def build_model(self) -> nn.Module:
        """The model as it starts."""
        return self.method.build_model()


def require_weights(config: TrainConfig) -> None:
    """Looks for the weights that a trained run needs beside its checkpoint: those of frozen encoders.

    Raises:
        WeightsError: they are absent; says where to get them.
    """
    if config.method == "pevl":
        from train.clip_weights import find_clip_weights

        find_clip_weights(config.pevl.clip, config.pevl.pretrained)
    elif config.video_encoder.frozen:
        find_video_encoder(config)


def chosen_on(split: str) -> str:
    """The notice of logits whose split also chose the checkpoint."""
    return f"best checkpoint chosen on {split!r}, a split that is also reported"


def _open_method(
    store: FeatureStore, task: Task, config: TrainConfig, token_root: Path | None, stored: Mapping[str, Fingerprint]
) -> Method[Any]:
    if config.method == "pevl":
        from train.methods.pevl import PeVLMethod  # open_clip takes seconds to import

        return PeVLMethod(store, task, config, token_root=token_root, stored=stored)
    return CausalMethod(store, task, config, token_root=token_root, stored=stored)


def _check_validation(config: TrainConfig, clip_sets: Mapping[str, ClipSet]) -> None:
    clip_set = clip_sets.get(config.validation_split)
    if clip_set is not None and clip_set.targets.ndim == 2 and not clip_set.targets.any():
        raise ConfigError(
            f"validation split {config.validation_split!r} has no positive label of task {config.task!r}: no "
            "checkpoint can be chosen on it; set train.validation_split to another split, or to ''"
        )
