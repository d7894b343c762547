"""The frozen models that the work at hand needs, on one device; each is loaded once, when it is first asked for."""

import sys
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from cache.errors import ConfigError, VideoError
from extract.config import ExtractConfig
from extract.products import VisualPrompts

if TYPE_CHECKING:
    import torch

    from extract.pose.estimator import PoseEstimator


class FrozenModels:
    """Image encoder and pose estimator of one configuration."""

    def __init__(self, config: ExtractConfig, device: str) -> None:
        self._config, self._device_name = config, device

    @cached_property
    def device(self) -> "torch.device":
        """Where models run.

        Raises:
            ConfigError: torch does not have it.
        """
        import torch

        name = self._device_name
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"--device {name}: {error}. Use cpu, or cuda where torch sees a GPU") from error
        return device

    @property
    def on_cpu(self) -> bool:
        """True if a model was asked for, and runs on the CPU."""
        return "device" in vars(self) and self.device.type == "cpu"

    @cached_property
    def visual_prompts(self) -> VisualPrompts:
        """The image encoder with its batch."""
        from extract.image_encoder import ImageEncoder

        encoder = ImageEncoder.load(self._config.image_encoder, self.device)
        return VisualPrompts(encoder, self._config.instants.rows_per_clip)

    @cached_property
    def pose(self) -> "PoseEstimator":
        """HRNet."""
        from extract.pose.estimator import PoseEstimator

        # A batch holds one clip: a larger one would be padding. F is part of the fingerprint, so the size is constant;
        # where clips differ in length, only the configured size is.
        batch_size = min(self._config.pose.batch_size, self._config.instants.rows_per_clip or sys.maxsize)
        return PoseEstimator.load(replace(self._config.pose, batch_size=batch_size), self.device)

    def load(self, streams: frozenset[str]) -> None:
        """Loads what these streams need now, to fail now if it fails.

        Raises:
            ConfigError: the device or a model does not exist.
            WeightsError: weights are absent or of another model.
        """
        if streams - {"frames"}:  # JPEGs need no model, and no seconds to import torch
            _ = self.device
        try:
            if "visual_prompts" in streams:
                _ = self.visual_prompts
            if "joints" in streams:
                _ = self.pose
        except (RuntimeError, VideoError) as error:
            from extract.batch_size import is_out_of_memory

            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            raise ConfigError(
                f"the models do not fit on {self.device} ({error}): use a smaller batch_size, a smaller model or "
                "another --device"
            ) from error
