"""All that one run needs, checked before the first epoch: task, text, clips of every split, streams, weights, model.

A training run that dies after a night because a test clip has no label, or that trains on embeddings of another CLIP
than its texts, is the failure this file exists for. Nothing here computes; `sources` is where tokens may be made.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cache.errors import ConfigError, FingerprintMismatch
from cache.fingerprint import RANDOM_WEIGHTS, Fingerprint
from cache.manifest import Dataset, Task
from cache.store import FeatureStore, StreamReader
from cache.text import TextFeatures
from cache.weights_file import WeightsFile, find_weights
from train.config import TrainConfig
from train.data import ClipSet, FrameSource, Source, TokenSource, check_instants, select_clips
from train.models.cmdcl import CMDCL
from train.tokens import (
    STREAM,
    TokenCache,
    build_encoder,
    encoder_fingerprint,
    ensure_tokens,
    find_token_cache,
    missing_tokens,
    sources_of,
)
from train.weights import TIMESFORMER_SOURCES


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A dataset, a cache and a configuration that fit each other."""

    config: TrainConfig
    dataset: Dataset
    store: FeatureStore
    task: Task
    text: TextFeatures
    encoder: Fingerprint
    weights: WeightsFile | None
    token_cache: TokenCache | None
    clip_sets: Mapping[str, ClipSet]
    fingerprints: Mapping[str, Fingerprint]
    notices: tuple[str, ...]

    @classmethod
    def open(
        cls,
        dataset: Dataset,
        cache: Path,
        config: TrainConfig,
        *,
        splits: Iterable[str],
        token_root: Path | None = None,
        encoder: Fingerprint | None = None,
    ) -> "Experiment":
        """Opens and checks everything.

        Args:
            dataset: the manifest.
            cache: the feature cache.
            config: the configuration.
            splits: the splits that will be read.
            token_root: folder of frozen tokens; by default CACHE/video_tokens.
            encoder: the video encoder of a trained run, whose weights are in the checkpoint or behind cached tokens;
                without it, train.video_encoder.pretrained is looked up.

        Raises:
            DeconfoundError: whatever does not fit, and what to do about it.
        """
        task, store = dataset.task(config.task), FeatureStore.open(cache)
        text = store.text(task)
        weights = None
        if encoder is None:
            weights = _find_weights(config)
            encoder = encoder_fingerprint(config, weights)
        token_cache = _token_cache(store, config, encoder, token_root or cache / STREAM)
        prompts, pictures = store.visual_prompts, _picture_reader(store, token_cache)
        clip_sets = {
            split: select_clips(dataset, task, config.protocol, split, (prompts, pictures))
            for split in dict.fromkeys(splits)
        }
        for clip_set in clip_sets.values():
            check_instants(clip_set, config.num_frames, prompts, pictures)
        _check_validation(config, clip_sets)
        _check_widths(config, text, prompts, next(iter(clip_sets.values())))
        _check_same_clip_model(text.fingerprint, prompts.fingerprint)
        marks = [prompts.fingerprint, text.fingerprint, encoder]
        marks += [pictures.fingerprint] if token_cache is None else [token_cache.fingerprint]
        return cls(
            config=config,
            dataset=dataset,
            store=store,
            task=task,
            text=text,
            encoder=encoder,
            weights=weights,
            token_cache=token_cache,
            clip_sets=clip_sets,
            fingerprints={mark.stream: mark for mark in marks},
            notices=_notices(config, store, marks, encoder),
        )

    def sources(self, device: torch.device, *, progress: bool) -> dict[str, Source]:
        """A source of batches for every split; computes missing tokens of a frozen video encoder first."""
        prompts = self.store.visual_prompts
        if self.token_cache is None:
            return {
                split: FrameSource(clips, self.config, visual_prompts=prompts, frames=self.store.frames)
                for split, clips in self.clip_sets.items()
            }
        tokens = self._tokens(self.token_cache, device, progress)
        return {
            split: TokenSource(
                clips, self.config.num_frames, visual_prompts=prompts, video_tokens=tokens, device=device
            )
            for split, clips in self.clip_sets.items()
        }

    def _tokens(self, cache: TokenCache, device: torch.device, progress: bool) -> StreamReader:
        ids = [clip.id for clips in self.clip_sets.values() for clip in clips.clips]
        frames = self.store.frames if "frames" in self.store.streams else None
        sources = sources_of(ids, frames, self.store.visual_prompts)
        reader = cache.reader()
        if reader is not None and not missing_tokens(reader, sources):
            return reader
        weights = self.weights or _find_weights(self.config)
        lines = self.encoder.difference(encoder_fingerprint(self.config, weights))
        if lines:
            raise FingerprintMismatch(
                f"tokens of {self.encoder.model['name']} are missing for some clips, and "
                f"train.video_encoder.pretrained = {self.config.video_encoder.pretrained!r} is no longer the encoder "
                f"of the run: {'; '.join(lines)}"
            )
        return ensure_tokens(
            cache,
            self.store.frames,
            sources,
            config=self.config,
            weights=weights,
            device=device,
            progress=progress,
        )

    def of_splits(self, splits: Iterable[str]) -> "Experiment":
        """The same experiment with other splits opened."""
        root = None if self.token_cache is None else self.token_cache.root
        return Experiment.open(
            self.dataset, self.store.folder, self.config, splits=splits, token_root=root, encoder=self.encoder
        )

    @property
    def run_notices(self) -> tuple[str, ...]:
        """What the run directory says on top of everything: `notices`, what was skipped, how the best was chosen."""
        skipped = [clip_set.notice for clip_set in self.clip_sets.values() if clip_set.skipped]
        chosen = [chosen_on(split) for split in self.config.predict_splits if split == self.config.validation_split]
        return (*self.notices, *skipped, *chosen)

    def build_model(self) -> CMDCL:
        """The model as it starts: seeded heads, and the video encoder unless it is frozen."""
        config = self.config
        weights = self.weights or WeightsFile(name=RANDOM_WEIGHTS, path=None, sha256=RANDOM_WEIGHTS, licence="")
        encoder = None if config.video_encoder.frozen else build_encoder(config, weights)
        torch.manual_seed(config.seed)
        return CMDCL(
            config.cmdcl,
            text_embeddings=torch.from_numpy(self.text.sentence.copy()),
            num_frames=config.num_frames,
            video_width=config.video_encoder.width,
            video_encoder=encoder,
        )


def chosen_on(split: str) -> str:
    """The notice of logits whose split also chose the checkpoint."""
    return f"best checkpoint chosen on {split!r}, a split that is also reported"


def _find_weights(config: TrainConfig) -> WeightsFile:
    return find_weights(
        config.video_encoder.pretrained,
        sources=TIMESFORMER_SOURCES,
        what="TimeSformer",
        key="train.video_encoder.pretrained",
    )


def _token_cache(store: FeatureStore, config: TrainConfig, encoder: Fingerprint, root: Path) -> TokenCache | None:
    if not config.video_encoder.frozen:
        return None
    frames_sha256 = store.fingerprint("frames").sha256 if "frames" in store.streams else None
    return find_token_cache(root, config, encoder, frames_sha256)


def _picture_reader(store: FeatureStore, token_cache: TokenCache | None) -> StreamReader:
    """JPEG frames, or frozen tokens where the frames were dropped; CacheError if there is neither."""
    tokens = token_cache.reader() if token_cache is not None and "frames" not in store.streams else None
    return store.frames if tokens is None else tokens


def _check_validation(config: TrainConfig, clip_sets: Mapping[str, ClipSet]) -> None:
    clip_set = clip_sets.get(config.validation_split)
    if clip_set is not None and clip_set.targets.ndim == 2 and not clip_set.targets.any():
        raise ConfigError(
            f"validation split {config.validation_split!r} has no positive label of task {config.task!r}: no "
            "checkpoint can be chosen on it; set train.validation_split to another split, or to ''"
        )


def _check_widths(config: TrainConfig, text: TextFeatures, visual_prompts: StreamReader, clip_set: ClipSet) -> None:
    widths = {
        "the text embeddings": text.sentence.shape[1],
        "the visual prompts": visual_prompts[clip_set.clips[0].id].shape[1],
        "train.cmdcl.dim": config.cmdcl.dim,
    }
    if len(set(widths.values())) > 1:
        listing = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ConfigError(
            f"widths differ: {listing}. Set train.cmdcl.dim = {widths['the visual prompts']} for this cache"
        )


def _check_same_clip_model(text: Fingerprint, visual_prompts: Fingerprint) -> None:
    """Text and visual prompts are compared by cosine: they must come from one CLIP."""
    for key in ("name", "weights", "seed", "quick_gelu", "embed_dim", "architecture"):
        found = text.model.get(key), visual_prompts.model.get(key)
        if found[0] != found[1]:
            raise FingerprintMismatch(
                f"the text embeddings and the visual prompts come from two image-text models (model.{key}: {found[0]!r}"
                f" and {found[1]!r}): run `deconfound extract` for both streams with one extract.image_encoder"
            )


def _notices(
    config: TrainConfig, store: FeatureStore, marks: Sequence[Fingerprint], encoder: Fingerprint
) -> tuple[str, ...]:
    used = {mark.stream for mark in marks}
    notices = [notice for notice in store.notices if notice.partition(":")[0] in used]
    if encoder.random_weights:
        what = "stays random" if config.video_encoder.frozen else "is trained from random weights"
        notices.append(f'video_encoder: the TimeSformer {what} (pretrained = "none")')
    if config.video_encoder.frozen:
        notices.append(
            "video_encoder.frozen: only the heads are trained, on tokens of segment centres, without augmentation"
        )
    return tuple(notices)
