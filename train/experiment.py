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
from train.tokens import STREAM, TokenCache, build_encoder, encoder_fingerprint, ensure_tokens, find_token_cache
from train.weights import TIMESFORMER_SOURCES


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A dataset, a cache and a configuration that fit each other."""

    config: TrainConfig
    dataset: Dataset
    store: FeatureStore
    task: Task
    text: TextFeatures
    weights: WeightsFile
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
        weights: WeightsFile | None = None,
    ) -> "Experiment":
        """Opens and checks everything.

        Args:
            dataset: the manifest.
            cache: the feature cache.
            config: the configuration.
            splits: the splits that will be read.
            token_root: folder of frozen tokens; by default CACHE/video_tokens.
            weights: the video encoder's, if they are known already; else train.video_encoder.pretrained is looked up.

        Raises:
            DeconfoundError: whatever does not fit, and what to do about it.
        """
        task, store = dataset.task(config.task), FeatureStore.open(cache)
        text = store.text(task)
        weights = weights or _find_weights(config)
        token_cache = _token_cache(store, config, weights, token_root or cache / STREAM)
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
        marks = [prompts.fingerprint, text.fingerprint, encoder_fingerprint(config, weights)]
        marks += [pictures.fingerprint] if token_cache is None else [token_cache.fingerprint]
        return cls(
            config=config,
            dataset=dataset,
            store=store,
            task=task,
            text=text,
            weights=weights,
            token_cache=token_cache,
            clip_sets=clip_sets,
            fingerprints={mark.stream: mark for mark in marks},
            notices=_notices(config, store, marks, weights),
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
        reader = cache.reader()
        if reader is not None and all(clip_id in reader for clip_id in ids):
            return reader
        weights = _find_weights(self.config)
        if weights.sha256 != self.weights.sha256:
            raise FingerprintMismatch(
                f"train.video_encoder.pretrained = {self.config.video_encoder.pretrained!r} is now another file than the "
                f"one the run used (sha256 {weights.sha256}, not {self.weights.sha256}): tokens of new clips cannot be "
                "computed with it"
            )
        return ensure_tokens(
            cache,
            self.store.frames,
            ids,
            config=self.config,
            weights=weights,
            device=device,
            progress=progress,
        )

    def build_model(self) -> CMDCL:
        """The model as it starts: seeded heads, and the video encoder unless it is frozen."""
        config = self.config
        encoder = None if config.video_encoder.frozen else build_encoder(config, self.weights)
        torch.manual_seed(config.seed)
        return CMDCL(
            config.cmdcl,
            text_embeddings=torch.from_numpy(self.text.sentence.copy()),
            num_frames=config.num_frames,
            video_width=config.video_encoder.width,
            video_encoder=encoder,
        )


def _find_weights(config: TrainConfig) -> WeightsFile:
    return find_weights(
        config.video_encoder.pretrained,
        sources=TIMESFORMER_SOURCES,
        what="TimeSformer",
        key="train.video_encoder.pretrained",
    )


def _token_cache(store: FeatureStore, config: TrainConfig, weights: WeightsFile, root: Path) -> TokenCache | None:
    if not config.video_encoder.frozen:
        return None
    frames_sha256 = store.fingerprint("frames").sha256 if "frames" in store.streams else None
    return find_token_cache(root, config, weights, frames_sha256)


def _picture_reader(store: FeatureStore, token_cache: TokenCache | None) -> StreamReader:
    """JPEG frames, or frozen tokens where the frames were dropped; CacheError if there is neither."""
    tokens = token_cache.reader() if token_cache is not None and "frames" not in store.streams else None
    return store.frames if tokens is None else tokens


def _check_validation(config: TrainConfig, clip_sets: Mapping[str, ClipSet]) -> None:
    clip_set = clip_sets.get(config.validation_split)
    if clip_set is not None and clip_set.targets.ndim == 2 and not clip_set.targets.any():
        raise ConfigError(
            f"validation split {config.validation_split!r} has no positive label of task {config.task!r}: no checkpoint "
            "can be chosen on it; set train.validation_split to another split, or to ''"
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
    for key in ("weights", "seed"):
        found = text.model.get(key), visual_prompts.model.get(key)
        if found[0] != found[1]:
            raise FingerprintMismatch(
                f"the text embeddings and the visual prompts come from two image-text models (model.{key}: {found[0]!r} "
                f"and {found[1]!r}): run `deconfound extract` for both streams with one extract.image_encoder"
            )


def _notices(
    config: TrainConfig, store: FeatureStore, marks: Sequence[Fingerprint], weights: WeightsFile
) -> tuple[str, ...]:
    used = {mark.stream for mark in marks}
    notices = [notice for notice in store.notices if notice.partition(":")[0] in used]
    if weights.sha256 == RANDOM_WEIGHTS:
        what = "stays random" if config.video_encoder.frozen else "is trained from random weights"
        notices.append(f'video_encoder: the TimeSformer {what} (pretrained = "none")')
    if config.video_encoder.frozen:
        notices.append(
            "video_encoder.frozen: only the heads are trained, on tokens of segment centres, without augmentation"
        )
    if config.validation_split in config.predict_splits:
        notices.append(f"best checkpoint chosen on {config.validation_split!r}, a split that is also reported")
    return tuple(notices)
