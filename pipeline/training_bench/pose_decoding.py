"""PeVL without a cache: the pose network runs in every step, and so does an image tower without adapters.

CLIP with adapters is trained, so it is in the step and not here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cache.skeletons import COCO_17
from extract.bench.parts import CROPPING, IMAGE_ENCODER, JOINTS, POSE_NETWORK
from extract.pose.boxes import whole_frame
from extract.pose.estimator import PoseEstimator
from extract.video.pieces import Images
from pipeline.training_bench.decoding import DecodingSource, Recordings, Run, frozen
from train.clip_set import ClipSet
from train.config import TrainConfig
from train.data import BatchSource
from train.pose_data import PoseBatch, pose_instants
from train.refinement import pose_frame_of
from train.sampling import Indices, clip_generator
from train.views import View, crop_views, joints_on_picture, random_view, view_frames, view_joints


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """The frames (T, H, W, 3) for the pose network, their view, and the video frames (1, L, 3, S, S) in it."""

    images: Images
    view: View
    frames: Tensor | None


class PoseDecoding(DecodingSource[_Clip, PoseBatch]):
    """What `PoseSource` gives for training, made from the videos."""

    def __init__(
        self,
        clip_set: ClipSet,
        recordings: Recordings,
        config: TrainConfig,
        device: torch.device,
        *,
        image_size: int,
        pose: PoseEstimator | None,
        image_encoder: Callable[[Tensor], Tensor] | None = None,
        tokens: BatchSource[PoseBatch] | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            clip_set: the clips.
            recordings: their videos.
            config: the run's configuration.
            device: where frozen models run.
            image_size: S.
            pose: makes joints; None if there is no pose encoder.
            image_encoder: with a tower without adapters, (n, L, 3, S, S) bytes to tokens (n, L, 1 + P, d).
            tokens: with such a tower, a source to take its tokens from instead.
        """
        super().__init__(clip_set, recordings)
        self._config, self._device, self._image_size = config, device, image_size
        self._pose, self._image_encoder, self._tokens = pose, image_encoder, tokens
        self._targets = torch.from_numpy(clip_set.targets)

    def read(self, number: int, epoch: int | None) -> _Clip:
        """One clip at its pose instants, and its view."""
        instants = pose_instants(self.recordings.num_instants(number), self._config)
        video = pose_frame_of(self._config.num_frames, self._config.pevl.pose_frames).numpy()
        images = self.recordings.frames(number, instants if self._pose is not None else instants[video])
        view = self._view(number, epoch, images)
        needs_frames = "video" in self._config.pevl.encoders and self._tokens is None
        seen = images[video] if self._pose is not None else images
        frames = torch.from_numpy(seen).permute(0, 3, 1, 2)
        return _Clip(images=images, view=view, frames=view_frames(frames, view)[None] if needs_frames else None)

    def finish(self, piece: Indices, clips: Sequence[_Clip], run: Run) -> PoseBatch:
        """Joints, and frames or tokens."""
        joints = None if self._pose is None else self._joints(self._pose, clips, run)
        if self._tokens is not None:
            (batch,) = self._tokens.batches([piece], 0)
            return replace(batch, joints=joints)
        present = [clip.frames for clip in clips if clip.frames is not None]
        frames = torch.stack(present) if present else None
        targets = self._targets[torch.from_numpy(piece)]
        if self._image_encoder is None or frames is None:
            return PoseBatch(targets=targets, frames=frames, joints=joints)
        encode, views = self._image_encoder, frames[:, 0]
        tokens = run(IMAGE_ENCODER, lambda: self._encoded(encode, views)).clone().half()[:, None]
        return PoseBatch(targets=targets, tokens=tokens, joints=joints)

    def _view(self, number: int, epoch: int | None, images: Images) -> View:
        pevl, (height, width) = self._config.pevl, images.shape[1:3]
        if self._image_encoder is not None or self._tokens is not None:
            return crop_views(height, width, size=self._image_size, crops=pevl.crops)[pevl.crops // 2]
        generator = clip_generator(self._config.seed, epoch or 0, number)
        return random_view(height, width, config=pevl, size=self._image_size, generator=generator)

    def _joints(self, pose: PoseEstimator, clips: Sequence[_Clip], run: Run) -> Tensor:
        """(n, 1, T, J, 3) in their views."""
        boxes = [whole_frame(*clip.images.shape[:3]).xyxy for clip in clips]
        found = zip(clips, boxes, strict=True)
        crops = run(CROPPING, lambda: torch.cat([pose.crops(clip.images, box) for clip, box in found]))
        heatmaps = run(POSE_NETWORK, lambda: self._heatmaps(pose, crops)).numpy()
        parts = np.split(heatmaps, len(clips))
        decoded = run(JOINTS, lambda: [pose.decode(part, box) for part, box in zip(parts, boxes, strict=True)])
        views = [
            self._seen(np.concatenate([xy, score[..., None]], axis=-1), clip)
            for clip, (xy, score) in zip(clips, decoded, strict=True)
        ]
        return torch.stack(views)[:, None]

    def _heatmaps(self, pose: PoseEstimator, crops: Tensor) -> Tensor:
        """The frames of one clip at a time: no pass is padded."""
        with frozen(self._device, self._config):
            return pose.forward(crops, self._config.pevl.pose_frames)

    def _seen(self, joints: np.ndarray, clip: _Clip) -> Tensor:
        extent = (clip.images.shape[1], clip.images.shape[2])
        moved = joints_on_picture(torch.from_numpy(joints), extent, extent)
        return view_joints(moved, clip.view, flip_order=COCO_17.flip_order, min_score=self._config.pevl.min_score)

    def _encoded(self, encode: Callable[[Tensor], Tensor], views: Tensor) -> Tensor:
        with frozen(self._device, self._config):
            return encode(views)
