"""A CLIP of a few thousand parameters in open_clip's own format, for tests of both encoders."""

import json
from pathlib import Path
from typing import Any

from extract.config import ImageEncoderConfig

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def tiny_clip(folder: Path, *, pretrained: str = "none", **settings: Any) -> ImageEncoderConfig:  # noqa: ANN401
    """Writes the configuration file and returns a configuration that names it."""
    path = folder / "tiny-clip.json"
    path.write_text(json.dumps(ARCHITECTURE))
    return ImageEncoderConfig(model=str(path), pretrained=pretrained, **{"batch_size": 4, **settings})
