"""The fingerprint of every stream that a configuration asks for, found without building a model.

Finding it takes open_clip (and torch with it) and a hash over the weights, so the answer is remembered in the cache
under a digest of the settings and of the files they name: asking again for finished work takes a second and no torch.
The weights that a tag led to are remembered by path, size and date; before a model is loaded nothing is believed.
"""

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache import atomic, fingerprint
from cache.errors import CorruptShard
from cache.fingerprint import SCHEMA_VERSION, Fingerprint
from cache.store import SETTINGS, stream_settings
from cache.weights_file import WeightsFile
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


class Resolver:
    """Finds the fingerprints of one configuration, and remembers them in one cache."""

    def __init__(self, config: ExtractConfig, cache: Path) -> None:
        self._config, self._cache = config, cache
        self._before = _remembered(cache)
        self._entries: dict[str, Any] = {}

    def marks(self) -> dict[str, Fingerprint]:
        """One fingerprint per stream, from memory where settings and files are those of then.

        Raises:
            ConfigError: a model is unknown.
            WeightsError: weights are absent or do not fit.
        """
        found: dict[str, Fingerprint] = {}
        for stream in self._config.streams:
            entry = self._before.get(_memory_key(self._config, stream))
            if entry is not None and _is_unchanged(entry["weights"]):
                found[stream] = Fingerprint.from_json(entry["fingerprint"])
            else:
                found |= self.resolve([stream])
        return found

    def resolve(self, streams: Iterable[str]) -> dict[str, Fingerprint]:
        """The fingerprints of these streams from the files themselves: for models that are about to be loaded."""
        found: dict[str, Fingerprint] = {}
        for stream in streams:
            key = _memory_key(self._config, stream)
            if key not in self._entries:
                mark, weights = _resolve(self._config, stream)
                file = _identity(weights.path) if weights is not None and weights.path is not None else None
                self._entries[key] = {"fingerprint": mark.to_json(), "weights": file}
            found[stream] = Fingerprint.from_json(self._entries[key]["fingerprint"])
        return found

    def remember(self) -> None:
        """Keeps what was found for the next call, and the settings of each stream for those who ask how it was made."""
        after = self._before | self._entries
        if after != self._before:
            atomic.write_json(self._cache / _MEMORY, {"fingerprints": after})
        settings = stream_settings(self._cache)
        asked = settings | {stream: _settings(self._config, stream) for stream in self._config.streams}
        if asked != settings:
            atomic.write_json(self._cache / SETTINGS, {"streams": asked})


def agreed(cache: Path, marks: Mapping[str, Fingerprint]) -> dict[str, Fingerprint]:
    """The fingerprints as the cache has them, where it has them; nothing is written.

    They may differ from those asked for in the name of a weights file, and shards carry the digest of the cache's.

    Raises:
        FingerprintMismatch: a stream was made with other settings.
    """
    found = stored(cache, marks)
    for stream in found:
        fingerprint.ensure(cache / stream, marks[stream])
    return {**marks, **found}


def stored(cache: Path, streams: Iterable[str]) -> dict[str, Fingerprint]:
    """The fingerprints of those of these streams that the cache has."""
    return {
        stream: fingerprint.load(cache / stream)
        for stream in streams
        if (cache / stream / fingerprint.FILE_NAME).exists()
    }


def _resolve(config: ExtractConfig, stream: str) -> tuple[Fingerprint, WeightsFile | None]:
    settings: dict[str, Any] = {"stream": stream, "sampling": config.instants.to_json(), "decoding": _DECODING}
    if stream == "frames":
        preprocessing = {**asdict(config.frames), "resize": "bicubic", "chroma": "4:2:0"}
        return Fingerprint(**settings, dtype="jpeg", preprocessing=preprocessing), None
    if stream == "joints":
        from extract.pose.estimator import pose_fingerprint_model

        model, preprocessing, weights = pose_fingerprint_model(config.pose)
        return Fingerprint(**settings, dtype="float32", model=model, preprocessing=preprocessing), weights
    from extract.image_encoder import image_encoder_fingerprint

    model, preprocessing, weights = image_encoder_fingerprint(config.image_encoder)
    if stream == "text":
        tower = {name: value for name, value in model.items() if name != "precision"}
        tokens = {"tokens": "CLIP's own, words only"}
        return Fingerprint(stream=stream, dtype="float32", model=tower, preprocessing=tokens), weights
    return Fingerprint(**settings, dtype="float16", model=model, preprocessing=preprocessing), weights


def _settings(config: ExtractConfig, stream: str) -> dict[str, Any]:
    """The part of the configuration that a stream depends on, as JSON, with files named from the root."""
    values = _sampling_keys(config) if stream != "text" else {}
    for section in _SECTIONS[stream]:
        entries = asdict(getattr(config, section))
        files = {name for name, value in entries.items() if _is_file(value)}
        values[section] = {
            name: str(Path(value).expanduser().absolute()) if name in files else value
            for name, value in entries.items()
            if value is not None
        }
    return values


def _sampling_keys(config: ExtractConfig) -> dict[str, Any]:
    """The keys that choose the instants; a policy's key has the policy's name. The default is as it always was."""
    if config.sampling == "uniform":
        return {"num_frames": config.num_frames}
    return {"sampling": config.sampling, config.sampling: getattr(config.instants, config.sampling)}


def _is_file(value: object) -> bool:
    return isinstance(value, str) and bool(value) and Path(value).expanduser().is_file()


def _memory_key(config: ExtractConfig, stream: str) -> str:
    settings = {"stream": stream, **_sampling_keys(config)}
    for section in _SECTIONS[stream]:
        values = asdict(getattr(config, section))
        settings |= {name: value for name, value in values.items() if name not in _WITHOUT_EFFECT}
    versions = {"schema": SCHEMA_VERSION, "package": _package_version()}
    files = {name: _identity(Path(value).expanduser()) for name, value in settings.items() if _is_file(value)}
    return hashlib.sha256(json.dumps([versions, settings, files], sort_keys=True).encode()).hexdigest()


def _package_version() -> str:
    try:
        return importlib.metadata.version("deconfound")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "source tree"


def _identity(file: Path) -> list[Any]:
    status = file.stat()
    return [str(file.absolute()), status.st_size, status.st_mtime_ns]


def _is_unchanged(weights: list[Any] | None) -> bool:
    """True if the weights are as they were, or not there any more: finished work does not need them."""
    if weights is None:
        return True
    try:
        return _identity(Path(weights[0])) == weights
    except OSError:
        return True


def _remembered(cache: Path) -> dict[str, Any]:
    try:
        return dict(atomic.read_json(cache / _MEMORY)["fingerprints"])
    except FileNotFoundError:
        return {}
    except CorruptShard:
        logger.warning("%s is damaged: settings are resolved again", cache / _MEMORY)
        return {}
