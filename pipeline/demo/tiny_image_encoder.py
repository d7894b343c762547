"""The demo's image and text encoder: a 64-pixel CLIP in open_clip's format, trained on the biased corpus.

Two decisions a reader would question. The token embedding (49 408 rows of which some sixty are ever used) is random and
frozen, a pure function of `EMBEDDING_SEED`: it is rebuilt on loading and not shipped. And a caption's positives are all
frames of the batch with that caption, because a world of this size repeats captions within every batch.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.demo.corpus import captioned_frame

logger = logging.getLogger(__name__)

MODEL_NAME = "deconfound-tiny-clip"
MODEL_CONFIG = Path(__file__).parent / "weights" / f"{MODEL_NAME}.json"
TOKEN_EMBEDDING = "token_embedding.weight"
EMBEDDING_SEED = b"deconfound tiny token embedding 1"
_VOCABULARY, _WIDTH = 49408, 96
_EMBEDDING_STD = 0.3


def register() -> None:
    """Makes open_clip know the model's name."""
    if MODEL_NAME not in open_clip.list_models():
        open_clip.add_model_config(MODEL_CONFIG)


def token_embedding() -> Tensor:
    """(49408, 96) the frozen random embedding: uniform, from SHAKE-256, the same on any machine for ever."""
    data = hashlib.shake_256(EMBEDDING_SEED).digest(2 * _VOCABULARY * _WIDTH)
    uniform = np.frombuffer(data, dtype="<u2").astype(np.float32) / 65535.0 - 0.5
    return torch.from_numpy(uniform * np.float32(_EMBEDDING_STD * 12**0.5)).view(_VOCABULARY, _WIDTH)


def train_image_encoder(
    *, steps: int = 850, batch_size: int = 128, seed: int = 0, progress: Callable[[int, str], None] | None = None
) -> nn.Module:
    """Trains the encoder; about five minutes on one core.

    Args:
        steps: optimiser steps; below about 300 it knows walls but no actions.
        batch_size: frames per step.
        seed: of weights and corpus.
        progress: called after each step with its number and a line of text.
    """
    torch.manual_seed(seed)
    register()
    model = open_clip.create_model(MODEL_NAME, pretrained=None)
    with torch.no_grad():
        model.token_embedding.weight.copy_(token_embedding())
    model.token_embedding.weight.requires_grad_(False)
    tokenizer = open_clip.get_tokenizer(MODEL_NAME)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (model.visual.image_mean, model.visual.image_std))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng([seed, 1])
    model.train()
    for step in range(steps):
        pairs = [captioned_frame(rng) for _ in range(batch_size)]
        images = torch.from_numpy(np.stack([pair.image for pair in pairs])).permute(0, 3, 1, 2).float() / 255
        captions = sorted({pair.caption for pair in pairs})
        own = torch.tensor([captions.index(pair.caption) for pair in pairs])
        image_features, text_features, scale = model((images - mean) / std, tokenizer(captions))
        loss = contrastive_loss(scale * image_features @ text_features.T, own)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=np.log(100.0))
        if progress is not None:
            progress(step + 1, f"loss {loss.item():.3f}")
    return model.eval()


def contrastive_loss(logits: Tensor, own: Tensor) -> Tensor:
    """Cross-entropy from images to captions and from captions to all their images.

    Args:
        logits: (n, captions) scaled similarities.
        own: (n,) the caption of each image; every caption has an image.
    """
    to_text = F.cross_entropy(logits, own)
    positives = F.one_hot(own, logits.shape[1]).T.float()  # (captions, n)
    weights = positives / positives.sum(dim=1, keepdim=True)
    to_image = -(weights * logits.T.log_softmax(dim=1)).sum(dim=1).mean()
    return (to_text + to_image) / 2
