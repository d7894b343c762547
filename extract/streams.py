"""The fingerprint of every stream that a configuration asks for, found without building a model.

Finding it takes open_clip (and torch with it) and a hash over the weights, so the answer is remembered in the cache
under a digest of the settings and of the files they name: asking again for finished work takes a second and no torch.
"""

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache import atomic
from cache.errors import CorruptShard
from cache.fingerprint import Fingerprint
from extract.config import ExtractConfig

logger = logging.getLogger(__name__)

_MEMORY = "resolved.json"
_DECODING = {"pixels": "RGB of sequential decoding, as displayed", "times": "presentation, from the first frame"}
_SECTIONS: dict[str, tuple[str, ...]] = {
    "frames": ("frames",),
    "visual_prompts": ("image_encoder",),
    "joints": ("pose",),
    "text": ("image_encoder",),
}
_WITHOUT_EFFECT = {"batch_size"}


def fingerprints(config: ExtractConfig, cache: Path | None = None) -> dict[str, Fingerprint]:
    """One fingerprint per stream of the configuration.

    Args:
        config: what to extract.
        cache: where answers are remembered; None: nowhere.

    Raises:
        ConfigError: a model is unknown.
        WeightsError: weights are absent or do not fit.
    """
    memory = _remembered(cache)
    found: dict[str, Fingerprint] = {}
    for stream in config.streams:
        key = _memory_key(config, stream)
        body = memory.get(key)
        found[stream] = Fingerprint.from_json(body) if body is not None else _resolve(config, stream)
    return found


def remember(config: ExtractConfig, found: dict[str, Fingerprint], cache: Path) -> None:
    """Keeps the fingerprints of a configuration for the next call."""
    before = _remembered(cache)
    after = before | {_memory_key(config, stream): mark.to_json() for stream, mark in found.items()}
    if after != before:
        atomic.write_json(cache / _MEMORY, {"fingerprints": after})


def _resolve(config: ExtractConfig, stream: str) -> Fingerprint:
    sampling = {"instants": "centres of equal segments", "num_frames": config.num_frames}
    if stream == "frames":
        preprocessing = {**asdict(config.frames), "resize": "bicubic", "chroma": "4:2:0"}
        return Fingerprint(
            stream=stream,
            dtype="jpeg",
            preprocessing=preprocessing,
            sampling=sampling,
            decoding=_DECODING,
        )
    if stream == "joints":
        from extract.pose.estimator import pose_fingerprint_model

        model, preprocessing = pose_fingerprint_model(config.pose)
        return Fingerprint(
            stream=stream,
            dtype="float32",
            model=model,
            preprocessing=preprocessing,
            sampling=sampling,
            decoding=_DECODING,
        )
    from extract.image_encoder import image_encoder_fingerprint

    model, preprocessing = image_encoder_fingerprint(config.image_encoder)
    if stream == "text":
        tower = {name: value for name, value in model.items() if name != "precision"}
        return Fingerprint(
            stream=stream, dtype="float32", model=tower, preprocessing={"tokens": "CLIP's own, words only"}
        )
    return Fingerprint(
        stream=stream,
        dtype="float16",
        model=model,
        preprocessing=preprocessing,
        sampling=sampling,
        decoding=_DECODING,
    )


def _memory_key(config: ExtractConfig, stream: str) -> str:
    settings: dict[str, Any] = {"stream": stream, "num_frames": config.num_frames}
    for section in _SECTIONS[stream]:
        values = asdict(getattr(config, section))
        settings |= {name: value for name, value in values.items() if name not in _WITHOUT_EFFECT}
    files = {
        name: _identity(value)
        for name, value in settings.items()
        if isinstance(value, str) and value and Path(value).expanduser().is_file()
    }
    return hashlib.sha256(json.dumps([settings, files], sort_keys=True).encode()).hexdigest()


def _identity(path: str) -> list[Any]:
    file = Path(path).expanduser().resolve()
    status = file.stat()
    return [str(file), status.st_size, status.st_mtime_ns]


def _remembered(cache: Path | None) -> dict[str, Any]:
    if cache is None:
        return {}
    try:
        return dict(atomic.read_json(cache / _MEMORY)["fingerprints"])
    except FileNotFoundError:
        return {}
    except CorruptShard:
        logger.warning("%s is damaged: settings are resolved again", cache / _MEMORY)
        return {}
