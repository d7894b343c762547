"""Which CLIP made the features, in enough detail to build it again and to feed it the same pixels.

Why QuickGELU is a field: open_clip builds OpenAI's weights with the other activation under the name without the suffix
and only warns; features are then off without a word. PeVL trains inside the same CLIP, so it builds from this and
refuses another.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from cache.errors import CacheError
from cache.fingerprint import RANDOM_WEIGHTS, Fingerprint

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "squash"]
Triple = tuple[float, float, float]

_PREPROCESSING = ("image_size", "mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True, kw_only=True)
class ImageEncoderSpec:
    """One frozen image encoder and its preprocessing."""

    model: str
    """open_clip's model name, or the stem of the configuration file that describes it."""
    quick_gelu: bool
    """x * sigmoid(1.702 x) instead of GELU."""
    embed_dim: int
    """D: width of the projected embedding."""
    image_size: int
    """Pixels of the square input."""
    mean: Triple
    """Per channel (RGB), of values in 0..1."""
    std: Triple
    """Per channel (RGB), of values in 0..1."""
    interpolation: Interpolation = "bicubic"
    """Always with antialiasing."""
    resize_mode: ResizeMode = "shortest"
    """`shortest`: short side to image_size, then centre crop; `squash`: both sides, the aspect is lost."""
    weights_sha256: str
    """Of the weights file; "none" for random weights."""
    architecture: str = ""
    """Canonical JSON of the open_clip configuration when it is not one that open_clip ships."""

    def __post_init__(self) -> None:
        if self.embed_dim < 1 or self.image_size < 1:
            raise ValueError(
                f"{self.model}: embed_dim {self.embed_dim} and image_size {self.image_size} must be positive"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                f"{self.model}: mean {self.mean} and std {self.std} must be three numbers each, std positive"
            )
        if self.interpolation not in ("bicubic", "bilinear") or self.resize_mode not in ("shortest", "squash"):
            raise ValueError(
                f"{self.model}: interpolation {self.interpolation!r} (bicubic, bilinear) or resize_mode "
                f"{self.resize_mode!r} (shortest, squash) is not known"
            )

    @property
    def random_weights(self) -> bool:
        """True if the weights were asked for as `none`."""
        return self.weights_sha256 == RANDOM_WEIGHTS

    def to_fingerprint(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The `model` and `preprocessing` sections of a fingerprint; callers add weights_name, precision and seed."""
        model: dict[str, Any] = {
            "name": self.model,
            "weights": self.weights_sha256,
            "quick_gelu": self.quick_gelu,
            "embed_dim": self.embed_dim,
        }
        if self.architecture:
            model["architecture"] = json.loads(self.architecture)
        preprocessing = {name: getattr(self, name) for name in _PREPROCESSING}
        return model, preprocessing | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_fingerprint(cls, fingerprint: Fingerprint) -> Self:
        """The inverse of `to_fingerprint`; other keys of the two sections are ignored.

        Raises:
            CacheError: the stream was not made by an image encoder.
        """
        model, preprocessing = fingerprint.model, fingerprint.preprocessing
        try:
            return cls(
                model=model["name"],
                quick_gelu=model["quick_gelu"],
                embed_dim=model["embed_dim"],
                weights_sha256=model["weights"],
                architecture=canonical_architecture(model.get("architecture")),
                image_size=preprocessing["image_size"],
                mean=_triple(preprocessing["mean"]),
                std=_triple(preprocessing["std"]),
                interpolation=preprocessing["interpolation"],
                resize_mode=preprocessing["resize_mode"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CacheError(
                f"the fingerprint of the stream {fingerprint.stream!r} does not describe an image encoder ({error!r}); "
                "give a cache with the stream `visual_prompts`, made by this version"
            ) from error

    def difference(self, other: "ImageEncoderSpec") -> list[str]:
        """One readable line for every field in which `other` differs."""
        return [
            f"{name}: {getattr(self, name)!r} here, {getattr(other, name)!r} there"
            for name in self.__dataclass_fields__
            if getattr(self, name) != getattr(other, name)
        ]


def canonical_architecture(configuration: Mapping[str, Any] | None) -> str:
    """Equal configurations give equal text; none gives an empty one."""
    return json.dumps(configuration, sort_keys=True) if configuration else ""


def _triple(values: list[float]) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
