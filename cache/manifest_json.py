"""The two files of a dataset folder as JSON, before anything is believed: what is a text, a list, an object.

People write and edit these files, so that every complaint names the file, the line or the key, and what was found.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cache.errors import ManifestError

HEADER_FILE = "dataset.json"
CLIPS_FILE = "clips.jsonl"


def read_header(path: Path, schema_version: int) -> dict[str, Any]:
    """The object in `dataset.json`; ManifestError unless it is one of that version."""
    try:
        body = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ManifestError(f"{path} does not exist; make a dataset folder with `deconfound prepare`") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ManifestError(f"{path} is not utf-8 JSON: {error}") from error
    version = body.get("schema_version") if isinstance(body, dict) else None
    if version != schema_version:
        raise ManifestError(f"{path}: schema_version is {version!r}, this version reads {schema_version}")
    return body


def clip_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The objects of `clips.jsonl` with their line numbers, from 1; ManifestError where a line is none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise ManifestError(f"{path} does not exist; it holds one clip a line") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not utf-8: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, mapping(json.loads(line), "a clip")
            except (json.JSONDecodeError, ManifestError) as error:
                raise ManifestError(f"{path}, line {number}: {error}") from error


def texts(value: Any, where: str) -> tuple[str, ...]:  # noqa: ANN401 (JSON from a person)
    """A list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ManifestError(f"{where}: expected a list of texts, got {json.dumps(value)[:80]}")
    return tuple(value)


def mapping(value: Any, where: str) -> Mapping[str, Any]:  # noqa: ANN401 (JSON from a person)
    """An object."""
    if not isinstance(value, dict):
        raise ManifestError(f"{where}: expected an object like {{...}}, got {json.dumps(value)[:80]}")
    return value


def text_lists(value: Any, where: str) -> dict[str, tuple[str, ...]]:  # noqa: ANN401 (JSON from a person)
    """An object of lists of texts."""
    return {key: texts(item, f"{where}.{key}") for key, item in mapping(value, where).items()}


def counts(value: Any, where: str) -> dict[str, dict[str, int]]:  # noqa: ANN401 (JSON from a person)
    """An object of objects of whole numbers."""
    found = {key: dict(mapping(item, f"{where}.{key}")) for key, item in mapping(value, where).items()}
    for key, numbers in found.items():
        for name, number in numbers.items():
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise ManifestError(f"{where}.{key}.{name}: expected a whole number, got {json.dumps(number)[:80]}")
    return found
