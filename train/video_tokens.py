"""Pooled tokens of a frozen TimeSformer: what makes them, where they are, and how they are computed.

A reader may ask why the JPEG stream's fingerprint is part of theirs: the same encoder on other JPEGs gives other
tokens, and a run of one must not continue on the other.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cache import fingerprint
from cache.fingerprint import RANDOM_WEIGHTS, Fingerprint
from cache.store import StreamReader
from cache.weights_file import WeightsFile
from train.config import TrainConfig
from train.data import centre_frames
from train.encoders.timesformer import TimeSformer, pool_frames
from train.frames import normalise
from train.sampling import segment_centres
from train.tokens import FrozenEncoder, TokenCache
from train.weights import load_timesformer

STREAM = "video_tokens"
_SHAPE = ("image_size", "patch_size", "width", "depth", "heads", "mlp_ratio")


def encoder_fingerprint(config: TrainConfig, weights: WeightsFile) -> Fingerprint:
    """Which video encoder: its shape and where its weights come from."""
    encoder = config.video_encoder
    model: dict[str, str | int] = {"name": "timesformer", "weights": weights.sha256, "weights_name": weights.name}
    model |= {"seed": encoder.seed} if weights.sha256 == RANDOM_WEIGHTS else {}
    model |= {name: getattr(encoder, name) for name in _SHAPE}
    return Fingerprint(stream="video_encoder", dtype="float32", model=model)


def token_fingerprint(config: TrainConfig, encoder: Fingerprint, frames_sha256: str) -> Fingerprint:
    """What makes tokens: encoder, the JPEG stream they are computed from, view, L, pooling."""
    look = config.video_encoder
    view = {"resize": look.resize, "centre_crop": look.image_size, "mean": look.mean, "std": look.std}
    return Fingerprint(
        stream=STREAM,
        dtype="float32",
        model=encoder.model,
        preprocessing=view | {"frames_sha256": frames_sha256, "pool": config.causal.frame_pool},
        sampling={"num_frames": config.num_frames, "instants": "segment_centres"},
    )


def find_token_cache(
    root: Path, config: TrainConfig, encoder: Fingerprint, frames_sha256: str | None
) -> TokenCache | None:
    """The token cache of a configuration.

    Args:
        root: folder of token caches.
        config: the run's configuration.
        encoder: the video encoder's fingerprint.
        frames_sha256: fingerprint of the JPEG stream; None if it was dropped: then tokens made before serve.

    Returns:
        The cache, which may still be empty; None if the frames are gone and no tokens were made of them.
    """
    if frames_sha256 is not None:
        return TokenCache(root=root, fingerprint=token_fingerprint(config, encoder, frames_sha256))
    for path in sorted(root.glob(f"*/{fingerprint.FILE_NAME}")):
        stored = fingerprint.load(path.parent)
        asked = token_fingerprint(config, encoder, str(stored.preprocessing.get("frames_sha256")))
        if stored.sha256 == asked.sha256:
            return TokenCache(root=root, fingerprint=asked)
    return None


def build_encoder(config: TrainConfig, weights: WeightsFile) -> TimeSformer:
    """The video encoder with its weights; random ones depend on video_encoder.seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.video_encoder.seed)
        return load_timesformer(config.video_encoder.timesformer(config.num_frames), weights)


def frozen_encoder(
    frames: StreamReader, config: TrainConfig, weights: WeightsFile, device: torch.device
) -> FrozenEncoder:
    """The test view of L segment centres to one token of width d_v per frame."""
    network = build_encoder(config, weights).to(device).eval()
    look = config.video_encoder

    def encode(views: Tensor) -> Tensor:
        pixels = normalise(views.to(device), look.mean, look.std)
        return pool_frames(network(pixels), config.num_frames, config.causal.frame_pool)

    return FrozenEncoder(
        frames=frames,
        views=lambda clip_id: centre_frames(frames, clip_id, config),
        instants=lambda num_cached: segment_centres(num_cached, config.num_frames),
        encode=encode,
        dtype=np.float32,
    )
