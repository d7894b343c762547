"""The two files of a dataset folder as JSON, before anything is believed: what is a text, a list, an object.

People write and edit these files, so that every complaint names the file, the line or the key, and what was found.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cache.errors import ManifestError

HEADER_FILE = "dataset.json"
CLIPS_FILE = "clips.jsonl"


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ, as `object_pairs_hook` of `json.loads`; ValueError names a key that is there twice.

    The `json` of Python keeps the last of them: somebody's other label or split would vanish without a word.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        raise ValueError(f"one object has the key {twice!r} twice; keep one of them")
    return found


def parse_json(text: str) -> Any:  # noqa: ANN401 (any JSON)
    """JSON whose objects have each key once.

    Raises:
        ValueError: it is none (JSONDecodeError), a key is there twice, a number has thousands of digits, or brackets
            are nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def read_header(path: Path, schema_version: int) -> dict[str, Any]:
    """The object in `dataset.json`; ManifestError unless it is one of that version."""
    try:
        body = parse_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ManifestError(f"{path} does not exist; make a dataset folder with `deconfound prepare`") from None
    except ValueError as error:
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
                yield number, mapping(parse_json(line), "a clip")
            except (ValueError, ManifestError) as error:
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
