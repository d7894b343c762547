"""Tokens of the frozen CLIP image tower, for PeVL without adapters: what makes them and how they are computed.

They are those of the test views: nothing that is drawn at random in training can be cached.
"""

import numpy as np
import torch
from torch import Tensor

from cache.fingerprint import Fingerprint
from cache.store import StreamReader
from cache.weights_file import WeightsFile
from train.clip_weights import load_clip
from train.config import TrainConfig
from train.encoders.adapted_clip import VideoEncoder
from train.encoders.clip_tower import ClipShape
from train.frames import normalise
from train.pose_data import crops_of, video_instants
from train.tokens import FrozenEncoder

STREAM = "image_tokens"


def token_fingerprint(config: TrainConfig, shape: ClipShape, clip: Fingerprint, frames_sha256: str) -> Fingerprint:
    """What makes tokens: the image tower, the JPEG stream they are computed from, views, L and T."""
    pevl = config.pevl
    view = {"image_size": shape.image_size, "crops": pevl.crops, "mean": pevl.mean, "std": pevl.std}
    view["video_temporal"] = pevl.video_temporal
    return Fingerprint(
        stream=STREAM,
        dtype="float16",
        model=clip.model,
        preprocessing=view | {"frames_sha256": frames_sha256},
        sampling={"num_frames": config.num_frames, "pose_frames": pevl.pose_frames},
    )


def frozen_encoder(
    frames: StreamReader, config: TrainConfig, shape: ClipShape, weights: WeightsFile, device: torch.device
) -> FrozenEncoder:
    """The test views of a clip to the tokens of the frozen image tower."""
    pevl = config.pevl
    tower = load_clip(shape, weights, seed=pevl.seed).image.to(device).eval()
    encoder = VideoEncoder(
        shape,
        num_frames=config.num_frames,
        adapters=False,
        temporal=pevl.video_temporal,
        ratio=1,
        mlp_scale=0,
        drop_path=0,
    )

    def encode(views: Tensor) -> Tensor:
        pixels = normalise(views.unflatten(1, (-1, config.num_frames)).flatten(0, 1).to(device), pevl.mean, pevl.std)
        return encoder(tower, pixels).unflatten(0, (len(views), -1)).flatten(1, 2)

    return FrozenEncoder(
        frames=frames,
        views=lambda clip_id: crops_of(frames, clip_id, config, shape.image_size).flatten(0, 1),
        instants=lambda num_cached: np.tile(video_instants(num_cached, config), pevl.crops),
        encode=encode,
        dtype=np.float16,
    )
