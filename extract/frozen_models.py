"""The frozen models that the work at hand needs, on one device; each is loaded once, when it is first asked for."""

from functools import cached_property
from typing import TYPE_CHECKING

from cache.errors import ConfigError, VideoError
from extract.config import ExtractConfig

if TYPE_CHECKING:
    import torch

    from extract.pose.detector import Detector
    from extract.products.joints import Joints
    from extract.products.visual_prompts import VisualPrompts


class FrozenModels:
    """Image encoder, pose network and person detector of one configuration."""

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
    def visual_prompts(self) -> "VisualPrompts":
        """The image encoder with its batch."""
        from extract.image_encoder import ImageEncoder
        from extract.products.visual_prompts import VisualPrompts

        encoder = ImageEncoder.load(self._config.image_encoder, self.device)
        return VisualPrompts(encoder, self._config.instants.rows_per_clip)

    @cached_property
    def joints(self) -> "Joints":
        """HRNet with its batch, and the detector that finds people for it."""
        from extract.pose.estimator import PoseEstimator
        from extract.products.joints import Joints

        estimator = PoseEstimator.load(self._config.pose, self.device)
        return Joints(estimator, self._config.instants.rows_per_clip, self.detector)

    @cached_property
    def detector(self) -> "Detector | None":
        """The person detector; None where boxes come from elsewhere."""
        if self._config.pose.boxes != "detector":
            return None
        from extract.pose.detector import Detector

        return Detector.load(self._config.pose, self.device)

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
                _ = self.joints
        except (RuntimeError, VideoError) as error:
            from extract.batch_size import is_out_of_memory

            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            raise ConfigError(
                f"the models do not fit on {self.device} ({error}): use a smaller batch_size, a smaller model or "
                "another --device"
            ) from error
