"""An explanation on disk: RUN/explanations/<split>.h5, one flat file of arrays like all others.

Arrays stand under the names that `cache.explanation.arrays_of` gives them, texts in one JSON. Unlike predictions the
file knows a digest of its own content: nothing else would show that a picture has changed.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from cache import array_file, atomic
from cache.array_file import Array
from cache.errors import CorruptShard
from cache.explanation import Explanation, array_fields, arrays_of, part_types

SCHEMA_VERSION = 1


def write_explanation(explanation: Explanation, path: Path) -> None:
    """Writes one HDF5 file atomically."""
    arrays = {name: array.astype(axes.dtype) for name, axes, array in arrays_of(explanation)}
    arrays |= array_file.pack_blobs("pictures", explanation.pictures)
    arrays |= array_file.pack_texts("about", [json.dumps(_texts(explanation), ensure_ascii=False)])
    attributes: dict[str, int | str] = {"schema_version": SCHEMA_VERSION, "content_sha256": _digest(arrays)}
    atomic.write_bytes(path, array_file.build(arrays, attributes))


def read_explanation(path: Path) -> Explanation:
    """Reads a file written by `write_explanation`.

    Raises:
        CorruptShard: not such a file, or damaged.
    """
    arrays, attributes = array_file.read(path)
    advice = "run `deconfound predict --explain` again"
    if attributes.get("schema_version") != SCHEMA_VERSION:
        found = attributes.get("schema_version")
        raise CorruptShard(f"{path} is not an explanation of version {SCHEMA_VERSION} (it says {found!r}): {advice}")
    if attributes.get("content_sha256") != _digest(arrays):
        raise CorruptShard(f"{path} does not match its own sha256, it was damaged: {advice}")
    try:
        about = json.loads(array_file.unpack_texts("about", arrays)[0])
        parts = {
            name: kind(**_own_fields(kind, f"{name}.", about[name], arrays))
            for name, kind in part_types().items()
            if name in about
        }
        plain = {key: value for key, value in about.items() if key not in parts}
        return Explanation(**_own_fields(Explanation, "", plain, arrays), **parts, pictures=_blobs("pictures", arrays))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptShard(f"{path} is not an explanation of this version ({error}): {advice}") from error


def _texts(explanation: Explanation) -> dict[str, Any]:
    """All that is no array and no picture, part by part."""
    texts = _plain_fields(explanation, {"pictures", *part_types()})
    parts = {name: getattr(explanation, name) for name in part_types()}
    return texts | {name: _plain_fields(part, set()) for name, part in parts.items() if part is not None}


def _plain_fields(owner: Any, without: set[str]) -> dict[str, Any]:  # noqa: ANN401 (a part)
    others = without | array_fields(type(owner)).keys()
    return {entry.name: getattr(owner, entry.name) for entry in fields(owner) if entry.name not in others}


def _own_fields(kind: type[Any], prefix: str, texts: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    own = {name: np.array(arrays[prefix + name]) for name in array_fields(kind) if prefix + name in arrays}
    return own | {name: _tuples(value) for name, value in texts.items()}


def _tuples(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _blobs(name: str, arrays: Mapping[str, Array]) -> tuple[bytes, ...]:
    data, offsets = arrays[name].tobytes(), arrays[f"{name}_offsets"].tolist()
    return tuple(data[start:stop] for start, stop in itertools.pairwise(offsets))


def _digest(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
