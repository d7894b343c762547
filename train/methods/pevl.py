"""PeVL on a cache: frames and joints (or image tokens), and prompts that go through the text tower in training.

A reader may ask why CLIP is loaded although the cache has its features: adapters sit inside its towers. It must be the
CLIP of the cache's text embeddings all the same, to the weights and the activation, as these are compared with.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache.errors import CacheError, ConfigError
from cache.fingerprint import Fingerprint
from cache.manifest import Task
from cache.skeletons import SKELETONS
from cache.store import FeatureStore, StreamReader
from train.clip_set import ClipSet
from train.clip_weights import clip_shape, find_clip_weights, load_clip, tokenize
from train.config import TrainConfig
from train.data import BatchSource
from train.frames import normalise
from train.image_tokens import STREAM, frozen_encoder, token_fingerprint
from train.methods.method import check_one_model, random_notices
from train.models.pevl import PeVL, VisualFeatures
from train.pose_data import PoseBatch, PoseSource, check_pose_instants
from train.tokens import TokenCache, ensure_tokens, sources_of


class PeVLMethod:
    """PeVL with one configuration and one cache; see `Method`."""

    advice = (
        "Set train.pevl.gradient_cache = true and raise train.accumulate (fewer clips in one forward pass, one forward "
        "pass more), or set train.pevl.gradient_checkpointing = true; the run continues with either"
    )

    def __init__(
        self,
        store: FeatureStore,
        task: Task,
        config: TrainConfig,
        *,
        token_root: Path | None,
        stored: Mapping[str, Fingerprint],  # noqa: ARG002 (the frozen towers are needed also after training)
    ) -> None:
        """Opens the streams and compares them with the CLIP that will be built.

        Args:
            store: the cache.
            task: what to recognise.
            config: the configuration.
            token_root: folder of frozen tokens; by default CACHE/image_tokens.
            stored: not used: the checkpoint holds no frozen weights.

        Raises:
            DeconfoundError: whatever does not fit, and what to do about it.
        """
        if task.kind != "single":
            raise ConfigError(
                f"task {task.name!r} has several labels a clip, and PeVL matches a clip with the text of one: choose a "
                "single-label task, or the method cmdcl or pcmci"
            )
        self.config, self._store, self._task = config, store, task
        self.text = store.text(task)
        pevl = config.pevl
        self._shape = clip_shape(pevl.clip)
        self._weights = find_clip_weights(pevl.clip, pevl.pretrained)
        self._clip = self._clip_fingerprint()
        advice = "set train.pevl.clip and train.pevl.pretrained to those of the cache, or extract the text stream again"
        check_one_model(self.text.fingerprint, self._clip, advice=advice)
        self._frames = store.frames if "video" in pevl.encoders else None
        self._joints = store.joints if "pose" in pevl.encoders else None
        self.readers: tuple[StreamReader, ...] = tuple(
            reader for reader in (self._frames, self._joints) if reader is not None
        )
        self.token_cache = self._token_cache(token_root or store.folder / STREAM)
        self.fingerprints: tuple[Fingerprint, ...] = (
            self._clip,
            self.text.fingerprint,
            *(reader.fingerprint for reader in self.readers),
        )

    @property
    def contrast(self) -> "PeVLMethod | None":
        """Features of clips and their joint loss; None where neither texts nor refinement compare clips."""
        return self if self.config.pevl.contrasts_clips else None

    @property
    def notices(self) -> tuple[str, ...]:
        """Random weights, and what frozen towers mean."""
        notices = random_notices(self._store.notices, self.fingerprints)
        if self._clip.random_weights:
            notices.append('image_encoder: the frozen CLIP is random (pretrained = "none")')
        if self.token_cache is not None:
            notices.append("pevl.adapters = []: image tokens are those of the test views, without augmentation")
        return tuple(notices)

    def check_clips(self, clip_sets: Mapping[str, ClipSet]) -> None:
        """Refuses too few instants, and frames and joints of different instants."""
        for clip_set in clip_sets.values():
            check_pose_instants(clip_set, self.config, self._frames, self._joints)

    def sources(
        self, clip_sets: Mapping[str, ClipSet], device: torch.device, *, progress: bool
    ) -> dict[str, BatchSource[PoseBatch]]:
        """Frames and joints; with no adapter at all, image tokens that are computed first where they are missing."""
        tokens = None
        if self.token_cache is not None:
            ids = [clip.id for clips in clip_sets.values() for clip in clips.clips]
            tokens = self._all_tokens(self.token_cache, ids, device, progress)
        return {
            split: PoseSource(
                clips,
                self.config,
                image_size=self._shape.image_size,
                frames=self._frames if tokens is None else None,
                joints=self._joints,
                flip_order=self._flip_order(),
                tokens=tokens,
            )
            for split, clips in clip_sets.items()
        }

    def build_model(self) -> nn.Module:
        """The model as it starts: the frozen towers, seeded new modules."""
        config = self.config
        towers = load_clip(self._shape, self._weights, seed=config.pevl.seed)
        prompts, mask = tokenize(self._task.prompts, self._shape)
        torch.manual_seed(config.seed)
        return PeVL(
            config.pevl,
            towers=towers,
            shape=self._shape,
            prompts=prompts,
            word_mask=mask,
            frozen_sentences=torch.from_numpy(self.text.sentence.copy()),
            num_frames=config.num_frames,
            num_joints=self._num_joints(),
        )

    def fast_parameters(self, model: nn.Module) -> tuple[Iterable[str], float]:
        """All that is new beside CLIP."""
        assert isinstance(model, PeVL)
        base = set(model.base_parameters)
        names = (name for name, parameter in model.named_parameters() if parameter.requires_grad)
        return (name for name in names if name not in base), self.config.pevl.new_lr_mult

    def loss(self, model: nn.Module, batch: PoseBatch) -> Tensor:
        """L_t + lambda_R L_R over the clips of the batch."""
        return self.joint_loss(model, self.features(model, batch), batch.targets)

    def features(self, model: nn.Module, batch: PoseBatch) -> dict[str, Tensor]:
        """The parts of `VisualFeatures` that are there."""
        assert isinstance(model, PeVL)
        return {name: part for name, part in vars(self._visual(model, batch)).items() if part is not None}

    def joint_loss(self, model: nn.Module, features: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """L_t + lambda_R L_R over all clips whose features are given."""
        assert isinstance(model, PeVL)
        return model.loss(VisualFeatures(**features), targets)

    def predictor(self, model: nn.Module) -> Callable[[PoseBatch], Tensor]:
        """Mean logits over the views; the prompts are encoded here, once."""
        assert isinstance(model, PeVL)
        classes = model.encode_classes() if self.config.pevl.is_contrastive else None

        def predict(batch: PoseBatch) -> Tensor:
            logits = model.logits(self._visual(model, batch), classes)
            return logits.unflatten(0, (len(batch.targets), -1)).mean(dim=1)

        return predict

    def _visual(self, model: PeVL, batch: PoseBatch) -> VisualFeatures:
        """Features of n * V views; frames are normalised here, on the device."""
        pixels, tokens, joints = (
            None if part is None else part.flatten(0, 1) for part in (batch.frames, batch.tokens, batch.joints)
        )
        if pixels is not None:
            pixels = normalise(pixels, self.config.pevl.mean, self.config.pevl.std)
        return model(pixels=pixels, tokens=tokens, joints=joints)

    def _clip_fingerprint(self) -> Fingerprint:
        """Which CLIP is built, in the words of the cache's fingerprints."""
        pevl, weights = self.config.pevl, self._weights
        model: dict[str, Any] = {
            "name": Path(pevl.clip).stem if pevl.clip.endswith(".json") else pevl.clip,
            "weights": weights.sha256,
            "quick_gelu": self._shape.quick_gelu,
            "embed_dim": self._shape.embed_dim,
        }
        model |= {"seed": pevl.seed} if weights.random else {}
        if pevl.clip.endswith(".json"):
            model["architecture"] = json.loads(Path(pevl.clip).expanduser().read_bytes())
        return Fingerprint(stream="image_encoder", dtype="float32", model=model)

    def _num_joints(self) -> int:
        if self._joints is None:
            return 0
        return int(self._joints[self._joints.clip_ids[0]].xy.shape[1])

    def _flip_order(self) -> npt.NDArray[np.int64] | None:
        if self._joints is None:
            return None
        name = str(self._joints.fingerprint.model.get("skeleton"))
        if name not in SKELETONS:
            raise CacheError(
                f"{self._joints.folder} has joints of the skeleton {name!r}, whose mirror image is not known: "
                f"known are {', '.join(SKELETONS)}"
            )
        return SKELETONS[name].flip_order

    def _token_cache(self, root: Path) -> TokenCache | None:
        """Where image tokens are; None where frames are read, as with any adapter, or not needed."""
        pevl = self.config.pevl
        if pevl.adapters or not pevl.cache_tokens or self._frames is None:
            return None
        mark = token_fingerprint(self.config, self._shape, self._clip, self._frames.fingerprint.sha256)
        return TokenCache(root=root, fingerprint=mark)

    def _all_tokens(self, cache: TokenCache, ids: list[str], device: torch.device, progress: bool) -> StreamReader:
        frames = self._frames
        assert frames is not None
        build = partial(frozen_encoder, frames, self.config, self._shape, self._weights, device)
        return ensure_tokens(cache, sources_of(ids, frames, frames), build, progress=progress)
