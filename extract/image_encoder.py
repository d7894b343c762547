"""The frozen image encoder: frames in, visual prompts V_P out.

Images come resized (extract/decoding/resizing.py, in the decode processes); only the normalisation happens on the
device, so that bytes travel and not floats.
"""

import logging
from typing import Any, Self

import torch
from torch import Tensor, nn

from cache.encoder_spec import ImageEncoderSpec
from cache.weights_file import WeightsFile
from extract import open_clip_model
from extract.config import ImageEncoderConfig

logger = logging.getLogger(__name__)


class ImageEncoder:
    """The image tower of a frozen CLIP (Radford et al., ICML 2021)."""

    def __init__(
        self, network: nn.Module, spec: ImageEncoderSpec, config: ImageEncoderConfig, device: torch.device
    ) -> None:
        self.spec = spec
        self.config = config
        self.device = device
        self._network = network
        self._mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1)

    @classmethod
    def load(cls, config: ImageEncoderConfig, device: torch.device) -> Self:
        """Builds the tower and loads its weights.

        Raises:
            ConfigError: the model is unknown.
            WeightsError: the weights are absent or of another model.
        """
        spec, _ = image_encoder_spec(config)
        network = open_clip_model.build(config, device)
        return cls(network.get_submodule("visual"), spec, config, device)

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Projected embeddings, not normalised.

        Args:
            images: (b, 3, S, S) uint8, as `resizing.preprocess` gives them.

        Returns:
            (b, D) float32.
        """
        normalised = (images.to(self.device).float() / 255 - self._mean) / self._std
        is_bf16 = self.config.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_bf16):
            output = self._network(normalised)
        # Captioning models give the tokens for the decoder as well.
        return (output[0] if isinstance(output, tuple) else output).float()

    def encode_all(self, images: Tensor, batch_size: int | None = None) -> Tensor:
        """Projected embeddings of any number of images, at one constant batch size with a padded tail.

        Args:
            images: (n, 3, S, S) uint8.
            batch_size: instead of the configured one, after running out of memory.

        Returns:
            (n, D) float32 on the CPU.
        """
        size = batch_size or self.config.batch_size
        rows = [self.encode(_pad(batch, size))[: len(batch)].cpu() for batch in images.split(size) if len(batch)]
        return torch.cat(rows) if rows else torch.zeros(0, self.spec.embed_dim)


def image_encoder_spec(config: ImageEncoderConfig, *, offline: bool = False) -> tuple[ImageEncoderSpec, WeightsFile]:
    """What the encoder is, and its weights, without building it.

    Raises:
        ConfigError: the model is unknown.
        WeightsError: the weights are absent, or were trained with the other activation.
    """
    model = open_clip_model.find_model(config.model)
    weights = open_clip_model.find_model_weights(model, config.pretrained, offline=offline)
    return open_clip_model.describe(model, config.pretrained, weights), weights


def image_encoder_fingerprint(config: ImageEncoderConfig) -> tuple[dict[str, Any], dict[str, Any], WeightsFile]:
    """The `model` and `preprocessing` sections of the fingerprint of visual prompts, without building the model.

    The third part is the weights that they speak of.
    """
    spec, weights = image_encoder_spec(config)
    model, preprocessing = spec.to_fingerprint()
    model |= {"weights_name": weights.name, "precision": config.precision}
    model |= {"seed": config.seed} if weights.random else {}
    return model, preprocessing, weights


def _pad(batch: Tensor, size: int) -> Tensor:
    if len(batch) == size:
        return batch
    return torch.cat([batch, batch.new_zeros(size - len(batch), *batch.shape[1:])])
