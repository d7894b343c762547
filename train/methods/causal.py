"""CMDCL and PCMCI on a cache: visual prompts and texts of one CLIP, and frames (or tokens) for the TimeSformer.

A reader may ask why CLIP is never loaded here: its features come from the cache, so its weights are not even needed.
What is looked up is the TimeSformer, and that only where it is not in a checkpoint or behind tokens yet.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from cache.errors import FingerprintMismatch
from cache.fingerprint import RANDOM_WEIGHTS, Fingerprint
from cache.manifest import Task
from cache.store import FeatureStore, StreamReader
from cache.weights_file import WeightsFile, find_weights
from train.clip_set import ClipSet, check_instants
from train.config import TrainConfig
from train.data import Batch, FrameSource, Source, TokenSource
from train.frames import normalise
from train.losses import task_loss
from train.methods.method import check_one_model, check_widths, random_notices
from train.models.cmdcl import CMDCL
from train.models.pcmci import PCMCI
from train.tokens import FrozenEncoder, TokenCache, ensure_tokens, sources_of
from train.video_tokens import STREAM, build_encoder, encoder_fingerprint, find_token_cache, frozen_encoder
from train.weights import TIMESFORMER_SOURCES


class CausalMethod:
    """CMDCL or PCMCI, by the configuration; see `Method`."""

    advice = (
        "Raise train.accumulate (fewer clips in one forward pass) or set train.video_encoder.gradient_checkpointing = "
        "true; the run continues with either"
    )

    def __init__(
        self,
        store: FeatureStore,
        task: Task,
        config: TrainConfig,
        *,
        token_root: Path | None,
        stored: Mapping[str, Fingerprint],
    ) -> None:
        """Opens the streams and compares them.

        Args:
            store: the cache.
            task: what to recognise.
            config: the configuration.
            token_root: folder of frozen tokens; by default CACHE/video_tokens.
            stored: fingerprints of a trained run, whose video encoder is in the checkpoint or behind cached tokens;
                without one of it, train.video_encoder.pretrained is looked up.

        Raises:
            DeconfoundError: whatever does not fit, and what to do about it.
        """
        self.config, self._store, self._task = config, store, task
        self.text = store.text(task)
        self._weights = None if "video_encoder" in stored else find_video_encoder(config)
        self._encoder = stored.get("video_encoder") or encoder_fingerprint(config, _known(self._weights))
        self.token_cache = _token_cache(store, config, self._encoder, token_root or store.folder / STREAM)
        self._prompts, self._pictures = store.visual_prompts, _picture_reader(store, self.token_cache)
        self.readers: tuple[StreamReader, ...] = (self._prompts, self._pictures)
        advice = "run `deconfound extract` for both streams with one extract.image_encoder"
        check_one_model(self.text.fingerprint, self._prompts.fingerprint, advice=advice)
        pictures = self._pictures.fingerprint if self.token_cache is None else self.token_cache.fingerprint
        self.fingerprints: tuple[Fingerprint, ...] = (
            self._prompts.fingerprint,
            self.text.fingerprint,
            self._encoder,
            pictures,
        )

    @property
    def contrast(self) -> None:
        """None: the loss is a mean over clips."""
        return

    @property
    def notices(self) -> tuple[str, ...]:
        """Random weights, and what a frozen encoder means."""
        frozen = self.config.video_encoder.frozen
        notices = random_notices(self._store.notices, self.fingerprints)
        if self._encoder.random_weights:
            what = "stays random" if frozen else "is trained from random weights"
            notices.append(f'video_encoder: the TimeSformer {what} (pretrained = "none")')
        if frozen:
            notices.append(
                "video_encoder.frozen: only the heads are trained, on tokens of segment centres, without augmentation"
            )
        return tuple(notices)

    def check_clips(self, clip_sets: Mapping[str, ClipSet]) -> None:
        """Refuses other widths, too few instants, and streams of different instants."""
        for clip_set in clip_sets.values():
            check_instants(clip_set, self.config.num_frames, self._prompts, self._pictures)
        first = next(iter(clip_sets.values())).clips[0]
        key = f"train.{self.config.method}.dim"
        prompts = self._prompts[first.id].shape[1]
        widths = {"the text embeddings": self.text.sentence.shape[1], "the visual prompts": prompts}
        check_widths(widths | {key: self.config.causal.dim}, advice=f"Set {key} = {prompts} for this cache")

    def sources(self, clip_sets: Mapping[str, ClipSet], device: torch.device, *, progress: bool) -> dict[str, Source]:
        """Frames, or tokens of a frozen video encoder, which are computed first where they are missing."""
        config, prompts = self.config, self._prompts
        if self.token_cache is None:
            return {
                split: FrameSource(clips, config, visual_prompts=prompts, frames=self._store.frames)
                for split, clips in clip_sets.items()
            }
        ids = [clip.id for clips in clip_sets.values() for clip in clips.clips]
        tokens = self._all_tokens(self.token_cache, ids, device, progress)
        return {
            split: TokenSource(clips, config.num_frames, visual_prompts=prompts, video_tokens=tokens, device=device)
            for split, clips in clip_sets.items()
        }

    def build_model(self) -> nn.Module:
        """The model as it starts: seeded heads, and the video encoder unless it is frozen."""
        config = self.config
        encoder = None if config.video_encoder.frozen else build_encoder(config, self._weights or _RANDOM)
        torch.manual_seed(config.seed)
        kind: Callable[..., nn.Module] = (
            partial(PCMCI, config.pcmci) if config.method == "pcmci" else partial(CMDCL, config.cmdcl)
        )
        return kind(
            text_embeddings=torch.from_numpy(self.text.sentence.copy()),
            num_frames=config.num_frames,
            video_width=config.video_encoder.width,
            video_encoder=encoder,
        )

    def fast_parameters(self, model: nn.Module) -> tuple[Iterable[str], float]:
        """What fits the evidence, which is ours; both papers give one learning rate for all of theirs."""
        names = (name for name, _ in model.named_parameters() if name.startswith("evidence."))
        return names, self.config.cmdcl.evidence_learning_rate / self.config.optimizer.learning_rate

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy or binary cross-entropy, by the task; with PCMCI's alignment or evidence where they are on."""
        kind, weight = self._task.kind, self.config.pcmci.ivc_align
        if isinstance(model, PCMCI) and weight:
            trace = model.trace(batch.visual_prompts, **self._pixels(batch))
            assert trace.alignment is not None
            return task_loss(kind, trace.logits, batch.targets) + weight * trace.alignment
        loss = task_loss(kind, self._logits(model, batch), batch.targets)
        for logits in model.evidence_fits(batch.visual_prompts) if isinstance(model, CMDCL) else ():
            loss = loss + task_loss(kind, logits, batch.targets)
        return loss

    def predictor(self, model: nn.Module) -> Callable[[Batch], Tensor]:
        """Logits of batches; nothing is shared between them."""
        return lambda batch: self._logits(model, batch)

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.visual_prompts, **self._pixels(batch))

    def _pixels(self, batch: Batch) -> dict[str, Tensor | None]:
        """Frames are normalised here, on the device."""
        if batch.frames is None:
            return {"frame_tokens": batch.frame_tokens}
        look = self.config.video_encoder
        return {"frames": normalise(batch.frames, look.mean, look.std)}

    def _all_tokens(self, cache: TokenCache, ids: list[str], device: torch.device, progress: bool) -> StreamReader:
        frames = self._store.frames if "frames" in self._store.streams else None
        sources = sources_of(ids, frames, self._prompts)
        return ensure_tokens(cache, sources, partial(self._frozen_encoder, device), progress=progress)

    def _frozen_encoder(self, device: torch.device) -> FrozenEncoder:
        return frozen_encoder(self._store.frames, self.config, self.encoder_weights(), device)

    def encoder_weights(self) -> WeightsFile:
        """Weights of the encoder that made the run's tokens.

        Raises:
            WeightsError: they are absent.
            FingerprintMismatch: they are others now.
        """
        weights = self._weights or find_video_encoder(self.config)
        lines = self._encoder.difference(encoder_fingerprint(self.config, weights))
        if lines:
            raise FingerprintMismatch(
                f"frames have to go through {self._encoder.model['name']} again, and "
                f"train.video_encoder.pretrained = {self.config.video_encoder.pretrained!r} is no longer the encoder "
                f"of the run: {'; '.join(lines)}"
            )
        return weights


_RANDOM = WeightsFile(name=RANDOM_WEIGHTS, path=None, sha256=RANDOM_WEIGHTS, licence="")


def _known(weights: WeightsFile | None) -> WeightsFile:
    assert weights is not None  # looked up unless a trained run's fingerprint stands in for it
    return weights


def find_video_encoder(config: TrainConfig) -> WeightsFile:
    """The TimeSformer's weights; WeightsError if they are absent."""
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


def _picture_reader(store: FeatureStore, tokens: TokenCache | None) -> StreamReader:
    """JPEG frames, or frozen tokens where the frames were dropped; CacheError if there is neither."""
    reader = tokens.reader() if tokens is not None and "frames" not in store.streams else None
    return store.frames if reader is None else reader
