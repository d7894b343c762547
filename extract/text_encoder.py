"""The frozen text encoder: class prompts in, sentence and word embeddings out.

Why words are projected as well: the papers compare words with image features, which live behind the projection; the
end-of-text token alone goes through it in CLIP itself. Begin, end and padding are masked out: they are not words.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from torch import Tensor, nn

from cache.errors import ConfigError, VideoError
from extract import open_clip_model
from extract.batch_size import BatchSize
from extract.config import ImageEncoderConfig

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]

_BATCH_SIZE = 32


def encode_texts(
    config: ImageEncoderConfig, prompts: Sequence[str], device: torch.device
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Embeds the prompts of C classes with the text tower that goes with the image encoder.

    A prompt that is too long for the model is cut, and a warning names it.

    Args:
        config: which CLIP.
        prompts: C texts.
        device: where to compute.

    Returns:
        sentence (C, D): projected embedding at the end-of-text token, not normalised; word (C, N_t, D): projected
        embedding of each text position; mask (C, N_t): True at words.

    Raises:
        ConfigError: a prompt has no words, the model has no text tower of CLIP's own kind, or it does not fit into the
            device's memory.
        WeightsError: the weights are absent or of another model.
    """
    network = open_clip_model.build(config, device)
    tower = _text_tower(network, open_clip_model.find_model(config.model))
    tokens, mask = tokenize(prompts, tower.context_length, tower.vocab_size)
    batch = BatchSize(min(_BATCH_SIZE, len(tokens)), device, model="text encoder")
    try:
        pairs = batch.run(lambda size: [_encode(network, tower, part.to(device)) for part in tokens.split(size)])
    except VideoError as error:
        raise ConfigError(f"{error.message}. Use another --device, or a smaller model") from error
    sentence, word = (torch.cat(parts).float().cpu().numpy() for parts in zip(*pairs, strict=True))
    return sentence, word, mask


def tokenize(prompts: Sequence[str], context_length: int, vocab_size: int) -> tuple[Tensor, npt.NDArray[np.bool_]]:
    """Token ids (C, N_t) with begin and end, zero-padded, and the mask of words (C, N_t).

    Raises:
        ConfigError: no prompt at all, a prompt without words, or a token that the model has no row for.
    """
    if not prompts:
        raise ConfigError("there are no class prompts to encode")
    tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
    lengths = [len(tokenizer.encode(prompt)) for prompt in prompts]  # words only
    empty = [index for index, length in enumerate(lengths) if length == 0]
    if empty:
        raise ConfigError(f"the prompts of classes {empty} (counted from 0) have no words")
    room = context_length - 2
    cut = {prompt: length for prompt, length in zip(prompts, lengths, strict=True) if length > room}
    for prompt, length in cut.items():
        logger.warning("the prompt %r has %d tokens; the model reads the first %d", prompt, length, room)
    tokens = tokenizer(list(prompts))
    if int(tokens.max()) >= vocab_size:
        raise ConfigError(f"the text tower knows {vocab_size} tokens, but the prompts need token {int(tokens.max())}")
    position = np.arange(context_length)[None, :]
    return tokens, (position >= 1) & (position <= np.minimum(lengths, room)[:, None])


def _text_tower(network: nn.Module, model: open_clip_model.OpenClipModel) -> Any:  # noqa: ANN401 - open_clip is not typed
    """The module with token_embedding, ln_final and text_projection: the model itself or its `text`."""
    tower: Any = network if hasattr(network, "token_embedding") else getattr(network, "text", None)
    has_other_tokens = "hf_tokenizer_name" in model.architecture["text_cfg"] or "siglip" in model.name.lower()
    if not hasattr(tower, "ln_final") or getattr(tower, "cls_emb", None) is not None or has_other_tokens:
        raise ConfigError(
            f"extract.image_encoder.model = {model.name!r} has a text tower of another kind than CLIP's (another "
            "tokenizer, or a class token); word embeddings are defined for CLIP's own. Choose a model such as "
            "ViT-B-16-quickgelu"
        )
    return tower


@torch.inference_mode()
def _encode(network: Any, tower: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - open_clip is not typed
    """Sentence (c, D) and word (c, N_t, D) embeddings of one pass: what ln_final sees on its way is kept."""
    kept: list[Tensor] = []
    handle = tower.ln_final.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        sentence = network.encode_text(tokens)
    finally:
        handle.remove()
    return sentence, _project(kept[0], tower.text_projection)


def _project(hidden: Tensor, projection: nn.Module | Tensor | None) -> Tensor:
    if projection is None:
        return hidden
    return projection(hidden) if isinstance(projection, nn.Module) else hidden @ projection
