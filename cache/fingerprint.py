"""What made a stream: model, weights, preprocessing, sampling. A stream refuses rows made otherwise.

The dataset's name is not part of it: one cache serves several manifests. Library versions are not either: they are
kept per row (`Provenance.decoder`), because a new patch release must not invalidate a month of work.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cache import atomic
from cache.errors import CacheError, FingerprintMismatch

_NAME_ONLY = "weights_name"
SCHEMA_VERSION = 1
RANDOM_WEIGHTS = "none"
FILE_NAME = "fingerprint.json"


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Settings of one stream as JSON values in four named sections.

    `model` follows one convention: name, weights (sha256, or "none" for random), weights_name, and seed when random.
    weights_name is for people: the same weights under another file name are the same.
    """

    stream: str
    dtype: str
    model: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        json.dumps(self.to_json(), allow_nan=False)  # raises TypeError or ValueError on what JSON cannot hold

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values (tuples become lists)."""
        sections = {name: dict(getattr(self, name)) for name in ("model", "preprocessing", "sampling", "decoding")}
        body = {"stream": self.stream, "schema_version": self.schema_version, "dtype": self.dtype, **sections}
        return json.loads(json.dumps(body))

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**body)

    @property
    def sha256(self) -> str:
        """Hex digest of the canonical JSON."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @property
    def random_weights(self) -> bool:
        """True if the stream was made by a model with random weights."""
        return RANDOM_WEIGHTS in (self.model.get("weights"), self.preprocessing.get("detector_weights"))

    def difference(self, asked: Self) -> list[str]:
        """One readable line for every setting in which `asked` differs from this (cached) fingerprint."""
        cached_values, asked_values = _flatten(self.to_json()), _flatten(asked.to_json())
        keys = sorted(cached_values.keys() | asked_values.keys())
        return [
            f"{self.stream}.{key}: the cache has {_show(cached_values, key)}, asked for {_show(asked_values, key)}"
            for key in keys
            if key != f"model.{_NAME_ONLY}" and cached_values.get(key) != asked_values.get(key)
        ]


def ensure(folder: Path, fingerprint: Fingerprint) -> None:
    """Creates `folder/fingerprint.json`, or checks that the one there is the same.

    Raises:
        FingerprintMismatch: the stream was made with other settings; the message lists each difference.
    """
    path = folder / FILE_NAME
    if path.exists() or not atomic.create_bytes(path, atomic.encode_json(fingerprint.to_json())):
        lines = load(folder).difference(fingerprint)
        if lines:
            listing = "\n  ".join(lines)
            raise FingerprintMismatch(
                f"{folder} was made with other settings:\n  {listing}\n"
                "Use the settings that the cache has, extract into another cache folder, or make the stream again with "
                "--overwrite"
            )


def load(folder: Path) -> Fingerprint:
    """Reads the fingerprint of a stream folder."""
    path = folder / FILE_NAME
    advice = "put it back from a copy, or delete the whole folder and extract the stream again"
    try:
        return Fingerprint.from_json(atomic.read_json(path, advice=advice))
    except FileNotFoundError:
        raise CacheError(f"{path} does not exist: {folder} is not a stream of a cache") from None
    except TypeError as error:
        raise CacheError(f"{path} was written by another version of deconfound: {error}") from error


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _show(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "nothing"
