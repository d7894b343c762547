"""One table of all clips, with a column that says the split: csv with a header, or jsonl with the same keys.

    video,label,split,id,start,end,person             id, start and end are optional; --group person keeps that column
    a/1.mp4,"pour, slowly",train,-x1,0.5,3,P1         --multi-label: pour;stir or pour|stir

    {"video": "a/1.mp4", "label": ["pour", "stir"], "split": "train", "person": "P1"}

An empty label says nothing of the clip: it stays, unlabelled. The decision to question: with --multi-label too, so that
"none of the classes" must be said: a separator alone in a csv, an empty list in jsonl.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import ManifestError
from cache.manifest_json import parse_json
from pipeline.datasets.annotations import Place, parse_number, read_table, read_text
from pipeline.datasets.own.clips import SPLIT_NAMES, Entry, Wishes, make_dataset
from pipeline.datasets.preparation import Preparation
from pipeline.datasets.videos import VideoFolder

COLUMNS = {
    "video": ("video", "path", "file", "filename", "video_path"),
    "label": ("label", "labels", "class"),
    "split": ("split", "subset"),
    "id": ("id",),
    "start": ("start", "start_seconds"),
    "end": ("end", "end_seconds"),
}
"""What a column may be called, in any case; the usual name first."""
_REQUIRED = ("video", "label", "split")
_JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, kw_only=True)
class _Record(Place):
    values: Mapping[str, Any]
    """Texts in a csv, any JSON in jsonl."""

    def text(self, key: str) -> str:
        return _text(self, self.values.get(key), key)


def prepare_table(table: Path, videos: VideoFolder, wishes: Wishes, *, groups: Sequence[str] = ()) -> Preparation:
    """Reads a table; every row is a clip, in the order of the file.

    Args:
        table: jsonl if it is named so, otherwise csv.
        videos: the folder that the paths start from.
        wishes: classes, prompts, one label or several.
        groups: other columns to keep, as groups of clips (subject, camera, ...).

    Raises:
        ManifestError: a column or key is missing, or a value is not what it should be; with file and line.
    """
    is_json = table.suffix.lower() in _JSON_LINES
    records = list(_json_records(table) if is_json else _csv_records(table))
    if not records:
        raise ManifestError(f"{table} holds no clips")
    keys = _keys(records, groups, is_json)
    entries = [_entry(record, keys, groups, wishes.multi_label) for record in records]
    preparation = make_dataset(entries, videos, wishes)
    unused = sorted({key for record in records for key in record.values} - {*keys.values(), *groups})
    note = f"not used: {', '.join(unused)} (--group NAME keeps a column as groups of clips)"
    return Preparation(dataset=preparation.dataset, notes=(*preparation.notes, *([note] if unused else [])))


def _csv_records(table: Path) -> Iterator[_Record]:
    for row in read_table(table, ()):
        yield _Record(path=table, number=row.number, values=row.cells)


def _json_records(table: Path) -> Iterator[_Record]:
    for number, line in enumerate(read_text(table).split("\n"), start=1):
        if line.strip():
            place = Place(path=table, number=number)
            try:
                values = parse_json(line)
            except ValueError as error:
                raise place.error(f"not JSON: {error}") from error
            if not isinstance(values, dict):
                raise place.error(f"expected an object like {{...}}, got {line.strip()[:60]}")
            yield _Record(path=table, number=number, values=values)


def _keys(records: Sequence[_Record], groups: Sequence[str], is_json: bool) -> dict[str, str]:
    """Column -> what the table calls it."""
    found = dict.fromkeys(key for record in records for key in record.values)
    keys = {}
    for column, names in COLUMNS.items():
        matching = [key for key in found if key.lower() in names]
        exact = [key for key in matching if key == column]
        if len(matching) > 1 and not exact:
            raise ManifestError(
                f"{records[0].path}: which of {', '.join(matching)} is the {column}? Name it {column!r}"
            )
        if matching:
            keys[column] = (exact or matching)[0]
    absent = [name for name in (*_REQUIRED, *groups) if name not in keys and name not in found]
    if absent:
        message = f"no {'key' if is_json else 'column'} {', '.join(absent)}; there are: {', '.join(found)}"
        raise ManifestError(f"{records[0].path}: {message}{'' if is_json else ' (cells are separated by commas)'}")
    return keys


def _entry(record: _Record, keys: Mapping[str, str], groups: Sequence[str], multi_label: bool) -> Entry:
    texts = {column: record.text(key) for column, key in keys.items() if column != "label"}
    if not texts["video"]:
        raise record.error("no video is given")
    of_groups = {name: record.text(name) for name in groups}
    return Entry(
        place=record,
        video=texts["video"],
        labels=_labels(record, keys["label"], multi_label),
        split=SPLIT_NAMES.get(texts["split"].lower(), texts["split"]),
        id=texts.get("id", ""),
        start_seconds=_seconds(record, "start", texts),
        end_seconds=_seconds(record, "end", texts),
        groups={name: text for name, text in of_groups.items() if text},
    )


def _seconds(record: _Record, column: str, texts: Mapping[str, str]) -> float | None:
    text = texts.get(column, "")
    return parse_number(record, text, column) if text else None


def _labels(record: _Record, key: str, multi_label: bool) -> tuple[str, ...] | None:
    value = record.values.get(key)
    if isinstance(value, list):
        parts = [_text(record, item, key) for item in value]
    else:
        text = _text(record, value, key)
        if not text:
            return None
        parts = re.split(r"[;|]", text)
        if len(parts) > 1 and not multi_label:
            raise record.error(
                f"{key} is {text[:60]!r}: ';' and '|' divide labels: give --multi-label, or rename the class"
            )
    labels = tuple(part.strip() for part in parts if part.strip())
    if not multi_label and len(labels) != 1:
        raise record.error(f"{len(labels)} labels; a clip has one, or give --multi-label")
    return labels


def _text(place: Place, value: Any, key: str) -> str:  # noqa: ANN401 (JSON from a person)
    if value is not None and (not isinstance(value, str | int | float) or isinstance(value, bool)):
        raise place.error(f"{key} is {json.dumps(value)[:60]}, not a text")
    return "" if value is None else str(value).strip()
