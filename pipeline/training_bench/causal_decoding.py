"""CMDCL and PCMCI without a cache: CLIP's image tower runs in every step, and so does a TimeSformer that is frozen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from extract.bench.parts import IMAGE_ENCODER
from extract.decoding.resizing import preprocess
from extract.image_encoder import ImageEncoder
from extract.video.pieces import Images
from pipeline.training_bench.decoding import VIDEO_ENCODER, DecodingSource, Recordings, Run, frozen
from train import frames as pictures
from train.clip_set import ClipSet
from train.config import TrainConfig
from train.data import Batch, Source
from train.sampling import Indices, clip_generator, segment_centres, segment_draws


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """`inputs` (L, 3, S, S) of the image encoder and `view` (L, 3, S', S') of the video encoder, bytes both."""

    inputs: Tensor
    view: Tensor | None


class CausalDecoding(DecodingSource[_Clip, Batch]):
    """What `FrameSource` or `TokenSource` gives, made from the videos."""

    def __init__(
        self,
        clip_set: ClipSet,
        recordings: Recordings,
        config: TrainConfig,
        image_encoder: ImageEncoder,
        *,
        video_encoder: Callable[[Tensor], Tensor] | None = None,
        tokens: Source | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            clip_set: the clips.
            recordings: their videos.
            config: the run's configuration.
            image_encoder: makes visual prompts.
            video_encoder: with a frozen one, (n, L, 3, S', S') bytes to tokens (n, L, d_v).
            tokens: with a frozen one, a source to take its tokens from instead.
        """
        super().__init__(clip_set, recordings)
        self._config, self._image_encoder = config, image_encoder
        self._video_encoder, self._tokens = video_encoder, tokens
        self._targets = torch.from_numpy(clip_set.targets)

    def read(self, number: int, epoch: int | None) -> _Clip:
        """One clip at the instants that training takes of it."""
        generator = clip_generator(self._config.seed, epoch or 0, number)
        images = self.recordings.frames(number, self._instants(number, generator))
        return _Clip(inputs=preprocess(images, self._image_encoder.spec), view=self._view(images, generator))

    def finish(self, piece: Indices, clips: Sequence[_Clip], run: Run) -> Batch:
        """Visual prompts, and frames or tokens."""
        inputs = torch.cat([clip.inputs for clip in clips])
        # A copy of what was made without gradients may be used with them.
        prompts = run(IMAGE_ENCODER, lambda: self._image_encoder.encode(inputs)).clone().unflatten(0, (len(clips), -1))
        if self._tokens is not None:
            (batch,) = self._tokens.batches([piece], 0)
            return replace(batch, visual_prompts=prompts)
        views = torch.stack([clip.view for clip in clips if clip.view is not None])
        if self._video_encoder is None:
            return Batch(visual_prompts=prompts, frames=views, targets=self._targets_of(piece))
        encode = self._video_encoder
        tokens = run(VIDEO_ENCODER, lambda: self._encoded(encode, views)).clone().float()
        return Batch(visual_prompts=prompts, frame_tokens=tokens, targets=self._targets_of(piece))

    def _encoded(self, encode: Callable[[Tensor], Tensor], views: Tensor) -> Tensor:
        with frozen(self._image_encoder.device, self._config):
            return encode(views)

    def _targets_of(self, piece: Indices) -> Tensor:
        return self._targets[torch.from_numpy(piece)]

    def _instants(self, number: int, generator: np.random.Generator) -> Indices:
        num_cached, config = self.recordings.num_instants(number), self._config
        if config.video_encoder.frozen or config.augment.instants == "centre":
            return segment_centres(num_cached, config.num_frames)
        return segment_draws(num_cached, config.num_frames, generator)

    def _view(self, images: Images, generator: np.random.Generator) -> Tensor | None:
        """What the video encoder sees: the training view, or the test view where it is frozen."""
        if self._tokens is not None:
            return None
        look, config = self._config.video_encoder, self._config
        frames = torch.from_numpy(images).permute(0, 3, 1, 2)
        if look.frozen:
            return pictures.centre_view(frames, resize=look.resize, size=look.image_size)
        return pictures.augmented_view(frames, size=look.image_size, config=config.augment, generator=generator)
